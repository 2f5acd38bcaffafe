"""A bridge that does not know a MAC yet sends the frame out of every port: one copy is for the
probe's pod, the others reach pods that throw them away. Those are no part of the probe's way.

A copy that a pod got has another MAC than its own (PACKET_OTHERHOST); its port is told by what is
at the port's other end. On a node's own interfaces a foreign MAC is a finding and stays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from kptrace.model import CapturedPacket, Netns
from kptrace.simulate.snapshot.network import Link
from kptrace.simulate.snapshot.snapshot import Snapshot


def without_copies(
    sightings: Iterable[CapturedPacket], snapshots: Mapping[Netns, Snapshot]
) -> list[CapturedPacket]:
    """The sightings less those of flooded copies, where it can be told which these are."""
    taken = [s for s in sightings if not (s.other_host and s.netns.pod)]
    groups: dict[object, list[CapturedPacket]] = defaultdict(list)
    for sighting in taken:
        link = _link(sighting, snapshots)
        if sighting.direction == "out" and link is not None and link.master:
            packet = sighting.packet
            groups[sighting.netns, link.master, packet.flow, packet.ttl, packet.ip_id].append(
                sighting
            )
    copies: set[int] = set()
    for group in groups.values():
        right = [s for s in group if _leads_home(s, snapshots)]
        if right:
            copies |= {id(s) for s in group if s not in right}
    return [s for s in taken if id(s) not in copies]


def _link(sighting: CapturedPacket, snapshots: Mapping[Netns, Snapshot]) -> Link | None:
    snapshot = snapshots.get(sighting.netns)
    return snapshot.link(sighting.interface) if snapshot else None


def _leads_home(sighting: CapturedPacket, snapshots: Mapping[Netns, Snapshot]) -> bool:
    """The pod at the port's other end owns the packet's destination."""
    port = _link(sighting, snapshots)
    destination = sighting.packet.innermost.flow.dst
    return port is not None and any(
        snapshot.holds(destination) is not None
        and any(link.index == port.peer and link.peer == port.index for link in snapshot.links)
        for netns, snapshot in snapshots.items()
        if netns.pod and netns.node == sighting.netns.node
    )

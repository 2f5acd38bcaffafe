"""Causes in the tunnel: the packet reached the device, but not the node that it was meant for.

VXLAN without learning (Flannel, Calico) needs three entries for each remote node: a route over the
device, a neighbour (the remote device's MAC for the gateway's address) and an FDB entry (the node
that this MAC lives on). Each one missing or wrong shows in its own way: no frame on the device at
all, a frame on the device but none on the wire, or a frame on the wire to the wrong address.
"""

from __future__ import annotations

from collections.abc import Iterator

from kptrace.diagnose.phrases import drop_report, last_seen
from kptrace.diagnose.probe_evidence import ProbeEvidence
from kptrace.model import CapturedPacket, Finding
from kptrace.simulate.snapshot.network import FdbEntry
from kptrace.simulate.snapshot.snapshot import Snapshot


def diagnose(evidence: ProbeEvidence) -> Iterator[Finding]:
    last = evidence.last
    if last is None or last.netns.pod or last.direction != "out":
        return
    if last.packet.tunnel is not None:
        yield from _stale(evidence, last, last.packet.flow.dst)
    elif (device := evidence.link(last.netns, last.interface)) and device.vxlan is not None:
        known = _known(evidence, last)
        if known:
            yield from _stale(evidence, last, known[0].destination)
        else:
            yield from _missing(evidence, last)


def _stale(evidence: ProbeEvidence, last: CapturedPacket, destination: str) -> Iterator[Finding]:
    """The outer packet is for an address that is no node's."""
    nodes = evidence.documents.nodes
    if not nodes or any(destination in node.addresses for node in nodes):
        return
    meant = _meant_node(evidence)
    if meant is None and "nodes.json" in evidence.documents.partial:
        return  # it may be one that nobody told us of
    node = last.netns.node
    device = _device(evidence, last)
    carried = last.packet.tunnel is not None
    lines = [
        f"the encapsulated packet left {last.interface} of {node} for {destination}"
        if carried
        else f"the FDB of {device} sends {last.dst_mac} to {destination}",
        "the nodes' addresses: " + ", ".join(f"{n.name} {' '.join(n.addresses)}" for n in nodes),
        *(drop_report(evidence, drop) for drop in evidence.drops[:1]),
        *(() if carried else last_seen(evidence)),
    ]
    macs = _macs(evidence, last, destination)
    right = f" (it should be {meant[1]}, {meant[0]})" if meant else ""
    yield Finding(
        cause="fdb-stale",
        severity="error",
        node=node,
        object=f"FDB entry of {device}" + (f" for {macs[0]}" if macs else ""),
        summary=f"{device} on {node} sends to {destination}, which is no node{right}",
        evidence=tuple(lines),
        remedy=(
            *(
                (f"bridge fdb replace {macs[0]} dev {device} dst {meant[1]} self permanent",)
                if macs and meant
                else ()
            ),
            f"restart the CNI's pod on {node}: it writes its FDB entries anew",
        ),
    )


def _missing(evidence: ProbeEvidence, last: CapturedPacket) -> Iterator[Finding]:
    """The frame is on the tunnel device and nothing left the node."""
    node = last.netns.node
    device = last.interface
    drop = evidence.dropped_for("NO_TX_TARGET")
    if drop is None and not last.dst_mac:
        return
    meant = _meant_node(evidence)
    lines = [*last_seen(evidence)]
    if drop is not None:
        lines.append(drop_report(evidence, drop))
    if last.dst_mac:
        lines.append(f"the FDB of {device} has no entry for {last.dst_mac}")
    remedy = [f"restart the CNI's pod on {node}: it writes its FDB entries anew"]
    if meant and last.dst_mac:
        command = f"bridge fdb append {last.dst_mac} dev {device} dst {meant[1]} self permanent"
        remedy.insert(0, command)
    yield Finding(
        cause="fdb-missing",
        severity="error",
        node=node,
        object=f"FDB entry of {device}" + (f" for {last.dst_mac}" if last.dst_mac else ""),
        summary=f"{device} on {node} does not know on which node "
        f"{last.dst_mac or 'the destination'} lives: no FDB entry",
        evidence=tuple(lines),
        remedy=tuple(remedy),
    )


def _known(evidence: ProbeEvidence, last: CapturedPacket) -> tuple[FdbEntry, ...]:
    """The FDB entries for the MAC that the frame on the tunnel device is for."""
    snapshot = evidence.snapshots.get(last.netns)
    if snapshot is None or not last.dst_mac:
        return ()
    return snapshot.tunnel_entries(last.interface, last.dst_mac)


def _device(evidence: ProbeEvidence, last: CapturedPacket) -> str:
    """The tunnel device that the encapsulated packet came from."""
    for sighting in reversed(evidence.journey.forward):
        if sighting.netns == last.netns and evidence.is_tunnel(sighting.netns, sighting.interface):
            return sighting.interface
    return "the tunnel device"


def _macs(evidence: ProbeEvidence, last: CapturedPacket, destination: str) -> tuple[str, ...]:
    snapshot: Snapshot | None = evidence.snapshots.get(last.netns)
    device = _device(evidence, last)
    if snapshot is None:
        return ()
    return tuple(
        entry.mac
        for entry in snapshot.fdb
        if entry.interface == device and entry.destination == destination
    )


def _meant_node(evidence: ProbeEvidence) -> tuple[str, str] | None:
    """Name and address of the node that the backend is on, by the API."""
    backend = evidence.backend
    for endpoint in evidence.resolution.endpoints:
        if backend and (endpoint.address, endpoint.port) == backend:
            node = evidence.documents.node(endpoint.node)
            outer = evidence.last.packet.flow if evidence.last else None
            v6 = outer is not None and outer.ipv6
            addresses = [a for a in node.addresses if (":" in a) == v6] if node else []
            return (endpoint.node, addresses[0]) if addresses else None
    return None

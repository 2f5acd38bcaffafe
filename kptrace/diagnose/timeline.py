"""The sightings of one probe, put in the order in which they happened.

In: the probe, and every sighting of it on any node. Out: a Journey: the first transmission on its
way out, then what came back.

Order is by cause, not by the clocks alone. Two things spoil time: nodes' clocks differ, and all
taps of one received frame share a timestamp (the kernel stamps the skb once, on reception). So the
clocks are first laid over each other with the one certainty there is, that a packet leaves a node
before it reaches the next; and equal stamps are put in the order in which a frame climbs the
devices: on the way in from the outer packet to the inner one and from the port to its bridge, on
the way out the reverse.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from kptrace.diagnose.bridge_flooding import without_copies
from kptrace.model import CapturedPacket, Flow, Netns, Packet, Probe, Value
from kptrace.simulate.snapshot.snapshot import Snapshot

Shifts = Mapping[str, int]


class Timeline(Value):
    """forward: the probe, first transmission; back: its replies and ICMP errors about it.

    shifts: nanoseconds to add to a node's times to bring them to the source node's clock
    """

    forward: tuple[CapturedPacket, ...] = ()
    back: tuple[CapturedPacket, ...] = ()
    shifts: dict[str, int] = msgspec.field(default_factory=dict)

    @property
    def last(self) -> CapturedPacket | None:
        return self.forward[-1] if self.forward else None

    @property
    def flows(self) -> tuple[Flow, ...]:
        """The innermost 5-tuples that the probe had on its way, in order."""
        return tuple(dict.fromkeys(s.packet.innermost.flow for s in self.forward))

    @property
    def carriers(self) -> frozenset[Flow]:
        """The 5-tuples of the packets that carried the probe through a tunnel."""
        return frozenset(s.packet.flow for s in self.forward if s.packet.tunnel)

    def offset_us(self, node: str, time_ns: int) -> float | None:
        """Microseconds since the probe was first seen; None where nothing was seen."""
        if not self.forward:
            return None
        start = self.forward[0]
        begun = start.time_ns + self.shifts.get(start.netns.node, 0)
        return round((time_ns + self.shifts.get(node, 0) - begun) / 1000, 1)


def timeline(
    probe: Probe,
    sightings: Iterable[CapturedPacket],
    snapshots: Mapping[Netns, Snapshot],
    source_node: str,
    sent: Flow | None = None,
) -> Timeline:
    """sent: the 5-tuple as the sender had it, which no tap shows when it was a node."""
    mine = without_copies((s for s in sightings if s.probe_id in (probe.probe_id, 0)), snapshots)
    forward, back = _split(probe, mine, sent)
    shifts = clock_shifts([*forward, *back], source_node)

    def moment(sighting: CapturedPacket) -> tuple[int, int, int]:
        time = sighting.time_ns + shifts.get(sighting.netns.node, 0)
        return (time, 0 if sighting.direction == "in" else 1, _height(sighting, snapshots))

    return Timeline(
        forward=tuple(sorted(_first(forward), key=moment)),
        back=tuple(sorted(_first(back), key=moment)),
        shifts=shifts,
    )


def is_reply(packet: Packet, probe_id: int) -> bool:
    """A TCP answer to the SYN: SYN-ACK or RST that acknowledges it, or an ICMP error about it."""
    inner = packet.innermost
    if inner.icmp is not None:
        return True
    answered = inner.ack == (probe_id + 1) & 0xFFFFFFFF and "A" in inner.flags
    return answered and ("S" in inner.flags or "R" in inner.flags)


def _split(
    probe: Probe, sightings: list[CapturedPacket], sent: Flow | None
) -> tuple[list[CapturedPacket], list[CapturedPacket]]:
    if probe.flow.protocol == "tcp":
        forward = [s for s in sightings if s.packet.innermost.flags == "S"]
        return forward, [s for s in sightings if is_reply(s.packet, probe.probe_id)]
    return _split_datagrams(probe, sightings, sent)


def _split_datagrams(
    probe: Probe, sightings: list[CapturedPacket], sent: Flow | None
) -> tuple[list[CapturedPacket], list[CapturedPacket]]:
    """A UDP answer may carry the cookie too (DNS echoes the question): what goes to an end that the
    probe came from is an answer, everything else with the cookie is the probe. Only that end is
    asked: of an answer that is translated back twice, each half at another hook, a tap in between
    shows a 5-tuple that is the reverse of none.
    """
    forward: list[CapturedPacket] = []
    rest: list[CapturedPacket] = []
    origins = {(sent.src, sent.sport)} if sent else set()
    for sighting in sorted(sightings, key=lambda s: s.time_ns):
        inner = sighting.packet.innermost
        if inner.icmp is not None:
            rest.append(sighting)
        elif (
            sighting.probe_id == probe.probe_id
            and (inner.flow.dst, inner.flow.dport) not in origins
        ):
            origins.add((inner.flow.src, inner.flow.sport))
            forward.append(sighting)
        else:
            rest.append(sighting)
    back = [
        s
        for s in rest
        if s.packet.innermost.icmp is not None
        or (s.packet.innermost.flow.dst, s.packet.innermost.flow.dport) in origins
    ]
    return forward, back


def _first(sightings: Iterable[CapturedPacket]) -> Iterator[CapturedPacket]:
    """The first of each kind: what comes later at the same tap is a retransmission."""
    seen = set()
    for sighting in sorted(sightings, key=lambda s: s.time_ns):
        packet = sighting.packet
        key = (
            sighting.netns,
            sighting.interface,
            sighting.direction,
            packet.flow.src,
            packet.flow.dst,
            packet.innermost.flow,
            packet.innermost.flags,
        )
        if key not in seen:
            seen.add(key)
            yield sighting


def _height(sighting: CapturedPacket, snapshots: Mapping[Netns, Snapshot]) -> int:
    """How far above the wire a tap is, as a tie-breaker: rising on the way in, falling out."""
    snapshot = snapshots.get(sighting.netns)
    link = snapshot.link(sighting.interface) if snapshot else None
    height = 0 if sighting.packet.tunnel else 2
    if link is not None and link.kind == "bridge":
        height += 1
    return height if sighting.direction == "in" else -height


def clock_shifts(sightings: Iterable[CapturedPacket], base: str) -> dict[str, int]:
    """For each node, what to add to its times so that no packet arrives before it left.

    A node whose clock already agrees gets 0. Nodes that no packet joins to ``base`` get 0 too.
    """
    crossings = tuple(_crossings(tuple(sightings)))
    shifts = {base: 0}
    waiting = [base]
    while waiting:
        known = waiting.pop()
        others = {b for a, b, *_ in crossings if a == known}
        others |= {a for a, b, *_ in crossings if b == known}
        for node in sorted(others - shifts.keys()):
            shifts[node] = _shift(node, known, shifts[known], crossings)
            waiting.append(node)
    return shifts


Crossing = tuple[str, str, int, int]


def _crossings(sightings: tuple[CapturedPacket, ...]) -> Iterator[Crossing]:
    """(node left, node reached, time left, time reached) for each packet seen at both ends.

    A SYN-ACK that is sent again is the same to the bit (its IPv4 id is 0), so of those that left a
    node the first is taken: whichever of them was reached, it left no earlier.
    """
    left: dict[object, dict[str, CapturedPacket]] = {}
    for sighting in sorted(sightings, key=lambda s: s.time_ns):
        if sighting.direction == "out":
            nodes = left.setdefault(_identity(sighting.packet), {})
            nodes.setdefault(sighting.netns.node, sighting)
    for reached in sightings:
        if reached.direction == "in":
            for start in left.get(_identity(reached.packet), {}).values():
                if start.netns.node != reached.netns.node:
                    yield start.netns.node, reached.netns.node, start.time_ns, reached.time_ns


def _identity(packet: Packet) -> object:
    """What a packet keeps on the wire and nowhere else: every router that it passes lowers its TTL,
    so the same packet further on is not taken for the one that left.
    """
    inner = packet.innermost
    return (packet.flow, packet.ip_id, packet.ttl, inner.flow, inner.ip_id, inner.ttl, inner.flags)


def _shift(node: str, known: str, known_shift: int, crossings: Iterable[Crossing]) -> int:
    earliest: int | None = None
    latest: int | None = None
    for left, reached, time_left, time_reached in crossings:
        if (left, reached) == (known, node):
            bound = time_left + known_shift - time_reached + 1  # it takes some time
            earliest = bound if earliest is None else max(earliest, bound)
        elif (left, reached) == (node, known):
            bound = time_reached + known_shift - time_left - 1
            latest = bound if latest is None else min(latest, bound)
    if (earliest is None or earliest <= 0) and (latest is None or latest >= 0):
        return 0
    if earliest is None or latest is None:
        return earliest if earliest is not None else latest or 0
    return (earliest + latest) // 2

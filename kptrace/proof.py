"""The proof: arm every tap, send the probes, wait until it is known what became of them, disarm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from kptrace.crew import Crew, unique, wait_all
from kptrace.model import (
    ConntrackEntry,
    Drop,
    Flow,
    Place,
    Probe,
    Resolution,
    Returned,
    Source,
)
from kptrace.protocol import Agent, Inject, Lookup, Recall, Reply, Stop, Watch
from kptrace.walk.listening import FILE as LISTENING
from kptrace.wire.cookie import cookies, payload

ARM_SECONDS = 15.0
DRAIN_SECONDS = 10.0
# After the kernel said that it dropped the probe, the sender may still hear of it (an ICMP error).
GRACE_SECONDS = 0.3
SLICE_SECONDS = 0.05


def probes_for(flow: Flow, seed: int, count: int) -> tuple[Probe, ...]:
    """Each with a source port of the kernel's choice: nat tables are asked once for a 5-tuple."""
    udp = flow.protocol == "udp"
    return tuple(
        Probe(cookie=cookie, flow=flow, payload=payload(cookie, flow.dport) if udp else b"")
        for cookie in cookies(seed, count)
    )


def prove(
    crew: Crew,
    source: Source,
    resolution: Resolution,
    places: tuple[Place, ...],
    probes: tuple[Probe, ...],
    timeout: float,
    raw_trace: bool = False,
) -> None:
    """Arm every tap, send, wait until it is known what became of it, ask conntrack, disarm."""
    backends = tuple({(e.protocol, e.address, e.port): None for e in resolution.endpoints})
    watches = []
    for node in crew.nodes:
        there = tuple(place for place in places if place.node == node)
        watch = partial(Watch, places=there, probes=probes, backends=backends, raw_trace=raw_trace)
        watches.append(crew.send(node, watch))
    wait_all(watches, ARM_SECONDS, "arming")
    near, sending = crew.send(
        source.place.node, partial(Inject, place=source.place, probes=probes, timeout=timeout)
    )
    far = [agent for agent, _ in watches if agent is not near]
    _await_fate(crew, near, far, sending, len(probes), timeout)
    _look_up(crew, source.place.node, places)
    _recall(crew, source.place.node, places)
    _who_listens(crew, resolution, places)
    stops = [crew.send(agent.node, partial(Stop, of=id)) for agent, id in watches]
    wait_all(stops, DRAIN_SECONDS, "draining")


def _await_fate(
    crew: Crew, near: Agent, far: Sequence[Agent], sending: int, count: int, timeout: float
) -> None:
    """Until the sender has heard of every probe, or the kernel has said that it dropped them."""
    slices = int((timeout + GRACE_SECONDS) / SLICE_SECONDS) + 1
    for _ in range(slices):
        if near.wait(sending, SLICE_SECONDS):
            return
        for agent in far:
            agent.wait(sending, 0.0)  # it was not asked that: this raises if the agent is gone
        if _dropped(crew.words()) >= count:
            break
    if not near.wait(sending, GRACE_SECONDS):
        _, stopping = crew.send(near.node, partial(Stop, of=sending))
        wait_all([(near, stopping), (near, sending)], DRAIN_SECONDS, "sending")


def _dropped(replies: Iterable[Reply]) -> int:
    """How many probes the kernel reported as dropped on their way out (a copy that a bridge
    flooded and nobody wanted is not the probe: those carry no reason worth ending for).
    """
    ports = set()
    for reply in replies:
        if isinstance(reply, Drop) and reply.packet is not None:
            inner = reply.packet.innermost
            if inner.icmp is None and inner.flags in ("", "S"):
                ports.add((inner.flow.src, inner.flow.sport))
    return len(ports)


def _look_up(crew: Crew, near: str, places: tuple[Place, ...]) -> None:
    """Ask conntrack for the probes' entries: first where they started, then, by the tuples that
    these entries translate to, on every other node.
    """
    flows = unique(r.flow for r in crew.words() if isinstance(r, Returned))
    for node in (near, *(n for n in crew.nodes if n != near)):
        if Place(node=node) not in places:
            continue
        entries = [r for r in crew.words() if isinstance(r, ConntrackEntry)]
        asked = unique((*flows, *(entry.reply.reverse for entry in entries)))
        lookup = partial(Lookup, place=Place(node=node), flows=asked)
        wait_all([crew.send(node, lookup)], ARM_SECONDS, "conntrack lookup")


def _recall(crew: Crew, near: str, places: tuple[Place, ...]) -> None:
    """Ask which other connections the sender has to the same end: each keeps its own backend."""
    sent = next((r.flow for r in crew.words() if isinstance(r, Returned) and r.flow.src), None)
    if sent is not None and Place(node=near) in places:
        recall = partial(Recall, place=Place(node=near), flow=sent)
        wait_all([crew.send(near, recall)], ARM_SECONDS, "conntrack lookup")


def _who_listens(crew: Crew, resolution: Resolution, places: tuple[Place, ...]) -> None:
    """Where a probe was refused: what the backends listen on instead."""
    if any(isinstance(r, Returned) and r.result == "refused" for r in crew.words()):
        ends = unique(Place(node=one.node, pod=one.pod) for one in resolution.endpoints)
        crew.dump((place for place in ends if place in places), (LISTENING,))

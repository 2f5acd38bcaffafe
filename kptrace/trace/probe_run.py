"""The proof: arm every tap, send the probes, wait until it is known what became of them, disarm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from kptrace.model import (
    ConntrackEntry,
    DropEvent,
    Flow,
    Netns,
    Probe,
    ProbeResult,
    Resolution,
    Source,
)
from kptrace.packet.probe_id import payload, probe_ids
from kptrace.protocol import (
    AgentClient,
    GetConntrack,
    ListConnections,
    Reply,
    SendProbes,
    StartCapture,
    Stop,
)
from kptrace.simulate.snapshot.listening_sockets import FILE as LISTENING
from kptrace.trace.agent_session import AgentSession, unique, wait_all

ARM_SECONDS = 15.0
DRAIN_SECONDS = 10.0
# After the kernel said that it dropped the probe, the sender may still hear of it (an ICMP error).
GRACE_SECONDS = 0.3
SLICE_SECONDS = 0.05


def probes_for(flow: Flow, seed: int, count: int) -> tuple[Probe, ...]:
    """Each with a source port of the kernel's choice: nat tables are asked once for a 5-tuple."""
    udp = flow.protocol == "udp"
    return tuple(
        Probe(probe_id=probe_id, flow=flow, payload=payload(probe_id, flow.dport) if udp else b"")
        for probe_id in probe_ids(seed, count)
    )


def capture_and_send(
    session: AgentSession,
    source: Source,
    resolution: Resolution,
    namespaces: tuple[Netns, ...],
    probes: tuple[Probe, ...],
    timeout: float,
    raw_trace: bool = False,
) -> None:
    """Arm every tap, send, wait until it is known what became of it, ask conntrack, disarm."""
    backends = tuple({(e.protocol, e.address, e.port): None for e in resolution.endpoints})
    watches = []
    for node in session.nodes:
        there = tuple(netns for netns in namespaces if netns.node == node)
        watch = partial(
            StartCapture, namespaces=there, probes=probes, backends=backends, raw_trace=raw_trace
        )
        watches.append(session.send(node, watch))
    wait_all(watches, ARM_SECONDS, "arming")
    near, sending = session.send(
        source.netns.node, partial(SendProbes, netns=source.netns, probes=probes, timeout=timeout)
    )
    far = [agent for agent, _ in watches if agent is not near]
    _wait_for_result(session, near, far, sending, len(probes), timeout)
    _look_up(session, source.netns.node, namespaces)
    _list_older_connections(session, source.netns.node, namespaces)
    _who_listens(session, resolution, namespaces)
    stops = [session.send(agent.node, partial(Stop, of=id)) for agent, id in watches]
    wait_all(stops, DRAIN_SECONDS, "draining")


def _wait_for_result(
    session: AgentSession,
    near: AgentClient,
    far: Sequence[AgentClient],
    sending: int,
    count: int,
    timeout: float,
) -> None:
    """Until the sender has heard of every probe, or the kernel has said that it dropped them."""
    slices = int((timeout + GRACE_SECONDS) / SLICE_SECONDS) + 1
    for _ in range(slices):
        if near.wait(sending, SLICE_SECONDS):
            return
        for agent in far:
            agent.wait(sending, 0.0)  # it was not asked that: this raises if the agent is gone
        if _dropped(session.words()) >= count:
            break
    if not near.wait(sending, GRACE_SECONDS):
        _, stopping = session.send(near.node, partial(Stop, of=sending))
        wait_all([(near, stopping), (near, sending)], DRAIN_SECONDS, "sending")


def _dropped(replies: Iterable[Reply]) -> int:
    """How many probes the kernel reported as dropped on their way out (a copy that a bridge
    flooded and nobody wanted is not the probe: those carry no reason worth ending for).
    """
    ports = set()
    for reply in replies:
        if isinstance(reply, DropEvent) and reply.packet is not None:
            inner = reply.packet.innermost
            if inner.icmp is None and inner.flags in ("", "S"):
                ports.add((inner.flow.src, inner.flow.sport))
    return len(ports)


def _look_up(session: AgentSession, near: str, namespaces: tuple[Netns, ...]) -> None:
    """Ask conntrack for the probes' entries: first where they started, then, by the tuples that
    these entries translate to, on every other node.
    """
    flows = unique(r.flow for r in session.words() if isinstance(r, ProbeResult))
    for node in (near, *(n for n in session.nodes if n != near)):
        if Netns(node=node) not in namespaces:
            continue
        entries = [r for r in session.words() if isinstance(r, ConntrackEntry)]
        asked = unique((*flows, *(entry.reply.reverse for entry in entries)))
        lookup = partial(GetConntrack, netns=Netns(node=node), flows=asked)
        wait_all([session.send(node, lookup)], ARM_SECONDS, "conntrack lookup")


def _list_older_connections(
    session: AgentSession, near: str, namespaces: tuple[Netns, ...]
) -> None:
    """Ask which other connections the sender has to the same end: each keeps its own backend."""
    sent = next(
        (r.flow for r in session.words() if isinstance(r, ProbeResult) and r.flow.src), None
    )
    if sent is not None and Netns(node=near) in namespaces:
        recall = partial(ListConnections, netns=Netns(node=near), flow=sent)
        wait_all([session.send(near, recall)], ARM_SECONDS, "conntrack lookup")


def _who_listens(
    session: AgentSession, resolution: Resolution, namespaces: tuple[Netns, ...]
) -> None:
    """Where a probe was refused: what the backends listen on instead."""
    if any(isinstance(r, ProbeResult) and r.result == "refused" for r in session.words()):
        ends = unique(
            Netns(node=endpoint.node, pod=endpoint.pod) for endpoint in resolution.endpoints
        )
        session.dump((netns for netns in ends if netns in namespaces), (LISTENING,))

"""All that is known about one probe, laid ready for judgement.

In: a Run with its documents, snapshots and prediction. Out: a Case: the probe's journey, the rules
it met, where it ended, and the one predicted branch that it took.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

from kptrace.diagnose.chain_traversal import ChainTraversal, MatchedRuleEvent, chain_traversals
from kptrace.diagnose.timeline import Timeline, timeline
from kptrace.kube.objects.cluster_state import ClusterState
from kptrace.model import (
    Branch,
    CapturedPacket,
    ConntrackEntry,
    DropEvent,
    Endpoint,
    Flow,
    Netns,
    Packet,
    Prediction,
    Probe,
    ProbeResult,
    Resolution,
    RuleTraceEvent,
    SimulatedStep,
    Source,
    TraceRequest,
    Value,
)
from kptrace.packet.probe_id import preflight_id_of
from kptrace.protocol import PreflightResult, Reply
from kptrace.protocol.recording import Recording
from kptrace.simulate.snapshot.network import Link
from kptrace.simulate.snapshot.snapshot import Snapshot


class ProbeEvidence(Value):
    """passages: those of the probe on its way out; ``answers``: those of its reply.

    drops: the kernel's reports that the probe itself (not its reply) was dropped
    branch: the predicted branch to the backend that was chosen, else the likeliest
    """

    question: TraceRequest
    source: Source
    resolution: Resolution
    documents: ClusterState
    snapshots: dict[Netns, Snapshot]
    prediction: Prediction
    probe: Probe
    journey: Timeline
    passages: tuple[ChainTraversal, ...] = ()
    answers: tuple[ChainTraversal, ...] = ()
    drops: tuple[DropEvent, ...] = ()
    entries: tuple[ConntrackEntry, ...] = ()
    returned: ProbeResult | None = None
    branch: Branch | None = None

    # --- where it went ---

    @property
    def node(self) -> str:
        return self.source.netns.node

    @property
    def last(self) -> CapturedPacket | None:
        return self.journey.last

    @property
    def entry(self) -> ConntrackEntry | None:
        """The source node's conntrack entry."""
        return next((e for e in self.entries if e.netns.node == self.node), None)

    @property
    def final(self) -> Flow | None:
        """The probe's innermost 5-tuple as it was last seen."""
        flows = self.journey.flows
        return flows[-1] if flows else None

    @property
    def backend(self) -> tuple[str, int] | None:
        """Address and port that the probe was sent on to; None while nothing translated it."""
        requested = (self.resolution.address, self.resolution.port)
        final = self.final
        if final and (final.dst, final.dport) != requested:
            return final.dst, final.dport
        if self.entry and (self.entry.reply.src, self.entry.reply.sport) != requested:
            return self.entry.reply.src, self.entry.reply.sport
        end = self.packet_when_dropped
        if end and (end.flow.dst, end.flow.dport) != requested:
            return end.flow.dst, end.flow.dport
        return None

    @property
    def packet_when_dropped(self) -> Packet | None:
        """The probe as it was dropped: rules may have changed it since the last tap."""
        dropping = self.ended_by
        if dropping is not None and dropping[0].packet is not None and not dropping[0].outer:
            return dropping[0].packet.innermost
        dropped = next((drop.packet for drop in self.drops if drop.packet), None)
        return dropped.innermost if dropped else None

    @property
    def is_service(self) -> bool:
        """The target is an address of a Service that the proxy must translate."""
        service = self.resolution.service
        return service is not None and not service.headless and not service.external_name

    def seen(self, netns: Netns, interface: str, direction: str) -> CapturedPacket | None:
        return next(
            (
                s
                for s in self.journey.forward
                if (s.netns, s.interface, s.direction) == (netns, interface, direction)
            ),
            None,
        )

    def link(self, netns: Netns, interface: str) -> Link | None:
        snapshot = self.snapshots.get(netns)
        return snapshot.link(interface) if snapshot else None

    def is_tunnel(self, netns: Netns, interface: str) -> bool:
        link = self.link(netns, interface)
        return link is not None and link.tunnel

    def silent(self, step: SimulatedStep) -> bool:
        """A program may pass the taps there by, or what is there is encrypted: nothing seen proves
        nothing.
        """
        if step.packet.tunnel is not None and step.packet.tunnel.kind == "wireguard":
            return True
        snapshot = self.snapshots.get(Netns(node=step.netns.node))
        programs = snapshot.programs if snapshot and not step.netns.pod else None
        return programs is not None and programs.silences(step.interface)

    def at(self, node: str, time_ns: int) -> str:
        """``+58 us`` since the probe left, for evidence lines."""
        offset = self.journey.offset_us(node, time_ns)
        if offset is None:
            return "an unknown time"
        if offset < 1000:
            return f"+{offset:.0f} us"
        return f"+{offset / 1000:.1f} ms" if offset < 1_000_000 else f"+{offset / 1e6:.1f} s"

    # --- where it ended ---

    @property
    def ended_by(self) -> tuple[ChainTraversal, MatchedRuleEvent] | None:
        """The rule or policy that threw the probe away, as the kernel's rule trace told it."""
        for traversal in self.passages:
            if traversal.ended_by is not None:
                return traversal, traversal.ended_by
        return None

    def dropped_for(self, *reasons: str) -> DropEvent | None:
        """The first drop report with one of these reasons (``NO_SOCKET``)."""
        return next((d for d in self.drops if d.reason in reasons), None)

    def expected(self) -> tuple[Endpoint, ...]:
        return self.resolution.endpoints


def probe_evidence(
    run: Recording,
    cluster_state: ClusterState,
    snapshots: dict[Netns, Snapshot],
    prediction: Prediction,
) -> tuple[ProbeEvidence, ...]:
    """One Case for each probe, in the order of sending; one without sightings for a run that
    could not send any.
    """
    sightings = _of(run.replies, CapturedPacket)
    all_passages = chain_traversals(_of(run.replies, RuleTraceEvent), snapshots)
    probes = run.probes or (Probe(probe_id=0, flow=_nowhere(run.resolution)),)
    preflights = {
        word.probe_id for word in _of(run.replies, PreflightResult) if word.entry is not None
    }
    evidence_list = []
    for probe in probes:
        returned = next(
            (r for r in _of(run.replies, ProbeResult) if r.probe_id == probe.probe_id), None
        )
        sent = returned.flow if returned else None
        mine = timeline(probe, sightings, snapshots, run.source.netns.node, sent)
        entries = _entries(_of(run.replies, ConntrackEntry), returned, mine)
        out = set(mine.flows) | {e.original for e in entries} | ({sent} if sent else set())
        back = {flow.reverse for flow in out}
        alone = len(probes) == 1
        own = tuple(_own(all_passages, probe, out, mine.carriers, alone))
        if returned is not None and preflight_id_of(probe.probe_id) in preflights:
            own = _with_preflight(all_passages, own, returned, run.source.netns.node, out)
        evidence = ProbeEvidence(
            question=run.request,
            source=run.source,
            resolution=run.resolution,
            documents=cluster_state,
            snapshots=snapshots,
            prediction=prediction,
            probe=probe,
            journey=mine,
            passages=own,
            answers=tuple(p for p in all_passages if p.packet and p.packet.flow in back),
            drops=tuple(
                drop
                for drop in _of(run.replies, DropEvent)
                if _lost(drop, probe, out, alone) and not _is_retransmission(drop, mine)
            ),
            entries=entries,
            returned=returned,
        )
        branch = _branch(evidence, prediction)
        evidence_list.append(msgspec.structs.replace(evidence, branch=branch))
    return tuple(evidence_list)


Kind = TypeVar("Kind")


def _of(replies: Iterable[Reply], kind: type[Kind]) -> tuple[Kind, ...]:
    return tuple(r for r in replies if isinstance(r, kind))


def _nowhere(resolution: Resolution) -> Flow:
    return Flow(protocol=resolution.protocol, src="", dst=resolution.address, dport=resolution.port)


def _own(
    traversals: Iterable[ChainTraversal],
    probe: Probe,
    out: set[Flow],
    carriers: frozenset[Flow],
    alone: bool,
) -> Iterator[ChainTraversal]:
    """The passages of the probe itself, not of what followed it on the connection.

    The rule trace shows 20 bytes of the transport header: of a tunnel's packet that is not enough
    to see the probe inside, so the carrier is known by its 5-tuple. A packet that was not told at
    all can only be the probe's where there is but one.
    """
    for traversal in traversals:
        packet = traversal.packet
        if packet is None:
            if alone:
                yield traversal
        elif packet.flow in carriers:
            yield msgspec.structs.replace(traversal, outer=True)
        elif _is_probe(packet, probe, out):
            yield traversal


def _with_preflight(
    traversals: Iterable[ChainTraversal],
    own: tuple[ChainTraversal, ...],
    probe: ProbeResult,
    node: str,
    out: set[Flow],
) -> tuple[ChainTraversal, ...]:
    """The chains that the probe traversed, and before them those of its preflight probe alone: nat
    tables are asked once a flow, and the preflight probe was its first packet. The one of a
    datagram is recognised by its time alone.
    """
    preflight = Probe(probe_id=preflight_id_of(probe.probe_id), flow=probe.flow)
    early = [
        traversal
        for traversal in _own(traversals, preflight, out, frozenset(), alone=False)
        if traversal.place.node == node and traversal.met[0].hit.time_ns < probe.sent_ns
    ]
    mine = [traversal for traversal in own if traversal not in early]
    met = {(p.place, p.table, p.chain) for p in mine if not p.outer}
    return (*(p for p in early if (p.place, p.table, p.chain) not in met), *mine)


def _is_probe(packet: Packet, probe: Probe, out: set[Flow]) -> bool:
    """The probe on its way out, also where rules have changed it since the last tap.

    A SYN carries the cookie. A datagram that was reported at all is the probe or its answer, and
    the answer does not come from an end that the probe came from.
    """
    if packet.icmp is not None or packet.flags not in ("", "S"):
        return False
    if packet.seq is not None:
        return packet.seq == probe.probe_id
    return (packet.flow.src, packet.flow.sport) in {(flow.src, flow.sport) for flow in out}


def _lost(drop: DropEvent, probe: Probe, out: set[Flow], alone: bool) -> bool:
    if drop.packet is None:
        return alone
    return _is_probe(drop.packet.innermost, probe, out)


def _is_retransmission(drop: DropEvent, mine: Timeline) -> bool:
    """The backend had answered before: what was dropped is the probe as its sender repeats it."""
    return any(
        answer.netns.node == drop.node
        and answer.time_ns <= drop.time_ns
        and answer.packet.innermost.icmp is None
        and "R" not in answer.packet.innermost.flags
        for answer in mine.back
    )


def _entries(
    entries: Iterable[ConntrackEntry], returned: ProbeResult | None, mine: Timeline
) -> tuple[ConntrackEntry, ...]:
    flows = set(mine.flows)
    if returned is not None:
        flows.add(returned.flow)
    return tuple(e for e in entries if e.original in flows)


def _branch(evidence: ProbeEvidence, prediction: Prediction) -> Branch | None:
    backend = evidence.backend
    for branch in prediction.branches:
        if branch.backend and (branch.backend.address, branch.backend.port) == backend:
            return branch
    if backend is not None:
        return None
    return prediction.branches[0] if prediction.branches else None

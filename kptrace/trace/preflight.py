"""Which way the probes will go, learned before any other node is looked at.

Where an agent costs something (a pod that a cluster must start), the near node's agent first sends
a preflight probe for each probe: a connection that the node's rules decide on and nobody hears of
(agent/probe/preflight.py). Conntrack tells the backend; the probe, sent from the preflight probe's
port, takes the same. So the agents of two nodes do, however many endpoints there are.

The near node's nat chains are asked by the preflight probe and not again by the probe; what their
rule trace tells is the probe's too (diagnose/probe_evidence.py).
"""

from __future__ import annotations

from functools import partial

import msgspec

from kptrace.kube.objects.cluster_state import ClusterState
from kptrace.model import Netns, Prediction, Probe, Source, Value
from kptrace.packet.probe_id import payload, preflight_id_of
from kptrace.protocol import PreflightResult, SendPreflight, StartCapture, Stop
from kptrace.protocol.recording import Recording
from kptrace.simulate.ip.device import missing_pod_netns
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace.trace.agent_session import AgentSession, unique, wait_all

SECONDS = 15.0


class PreflightOutcome(Value):
    """What the preflight probes told.

    probes: to be sent, from the ports of those preflight probes that were recorded
    backends: where these were sent on to
    why: the backends are not known from this
    lost: for none of them there is a record, so the node let none out
    """

    probes: tuple[Probe, ...]
    backends: tuple[str, ...] = ()
    why: str = ""
    lost: bool = False


class PreflightProbes:
    """Those of one run."""

    def __init__(
        self,
        session: AgentSession,
        source: Source,
        near: Snapshot,
        prediction: Prediction,
        raw_trace: bool,
    ) -> None:
        """near: of the source's node; prediction: from what is known of it alone."""
        self._session, self._source, self._near, self._raw_trace = session, source, near, raw_trace
        self._sent: list[int] = []
        self._expected = tuple(b.backend.address for b in prediction.branches if b.backend)

    def why_not_applicable(self) -> str:
        """Why a preflight probe would tell nothing here, or be heard of; empty: it may be sent."""
        if self._near.programs is not None:
            return "BPF programs translate there, not rules"
        if any(self._near.holds(address) for address in self._expected):
            return "a backend has the node's own address, and would hear of a preflight probe"
        return ""

    def send(self, probes: tuple[Probe, ...], cluster_state: ClusterState) -> PreflightOutcome:
        """One for each probe, all at once."""
        node = self._source.netns.node
        preflights = tuple(_preflight_probe(probe) for probe in probes)
        namespaces = unique((Netns(node=node), self._source.netns))
        watch = partial(
            StartCapture,
            namespaces=namespaces,
            probes=preflights,
            sources=("rules",),
            raw_trace=self._raw_trace,
        )
        watching = self._session.send(node, watch)
        wait_all([watching], SECONDS, "arming")
        results = self._ask(preflights, hold=True)
        if any(word.error for word in results) and self._all_routed(cluster_state):
            results = self._ask(self._with_short_ttl(preflights), hold=False)
        stopping = self._session.send(node, partial(Stop, of=watching[1]))
        wait_all([stopping], SECONDS, "draining")
        return self._found(probes, results)

    def _ask(self, preflights: tuple[Probe, ...], hold: bool) -> list[PreflightResult]:
        bridges = tuple(link.name for link in self._near.links if link.kind == "bridge")
        request = partial(
            SendPreflight,
            netns=self._source.netns,
            probes=preflights,
            block_egress=hold,
            bridges=bridges,
        )
        agent, id = self._session.send(self._source.netns.node, request)
        self._sent.append(id)
        wait_all([(agent, id)], SECONDS, "preflight")
        return [word for word in agent.log if isinstance(word, PreflightResult) and word.id == id]

    def dismiss(self) -> None:
        """The probes are through: what may still wait in a neighbour's queue was theirs to wait."""
        node = self._source.netns.node
        stops = [self._session.send(node, partial(Stop, of=id)) for id in self._sent]
        wait_all(stops, SECONDS, "end of the preflight probes")
        self._sent.clear()

    def _all_routed(self, cluster_state: ClusterState) -> bool:
        """Every backend is a pod of another node, in that node's own network: before it stands a
        router that a packet's TTL can end at.
        """
        owners = [cluster_state.pod_at(address) for address in self._expected]
        near = self._source.netns.node
        return bool(owners) and all(pod is not None and pod.node != near for pod in owners)

    def _with_short_ttl(self, preflights: tuple[Probe, ...]) -> tuple[Probe, ...]:
        """Their TTL is used up at the backend's node: the source's own node lowers a pod's once."""
        ttl = 2 if self._source.netns.pod else 1
        return tuple(msgspec.structs.replace(preflight, ttl=ttl) for preflight in preflights)

    def _found(self, probes: tuple[Probe, ...], results: list[PreflightResult]) -> PreflightOutcome:
        why = next(
            (f"a preflight probe could not be sent: {w.error}" for w in results if w.error), ""
        )
        known = {word.probe_id: word for word in results if word.entry is not None}
        if why or not known:
            lost = not why and not self._near.virtual
            return PreflightOutcome(
                probes=probes, why=why or "the node let no preflight probe out", lost=lost
            )
        backends = unique(word.entry.reply.src for word in known.values() if word.entry)
        if len(known) < len(results):
            why = "the node let only some of the preflight probes out"
        following = tuple(
            _after(probe, known.get(preflight_id_of(probe.probe_id))) for probe in probes
        )
        return PreflightOutcome(probes=following, backends=backends, why=why)


def without_unprobed_pods(prediction: Prediction, run: Recording) -> Prediction:
    """Without the complaint that pods were not looked at to which no probe was sent."""
    results = [w for w in run.replies if isinstance(w, PreflightResult) and w.entry is not None]
    chosen = {word.entry.reply.src for word in results if word.entry is not None}
    idle = [end for end in run.resolution.endpoints if results and end.address not in chosen]
    spared = {missing_pod_netns(end.node, end.pod) for end in idle}
    missing = tuple(text for text in prediction.missing if text not in spared)
    return msgspec.structs.replace(prediction, missing=missing)


def _preflight_probe(probe: Probe) -> Probe:
    probe_id, flow = preflight_id_of(probe.probe_id), probe.flow
    data = payload(probe_id, flow.dport) if flow.protocol == "udp" else b""
    return msgspec.structs.replace(probe, probe_id=probe_id, payload=data)


def _after(probe: Probe, preflight_result: PreflightResult | None) -> Probe:
    """From the same port, so by the same conntrack entry."""
    return msgspec.structs.replace(probe, flow=preflight_result.flow) if preflight_result else probe

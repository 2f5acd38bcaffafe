"""The places beyond the source's node that the probes may reach: found, and looked at.

In: what the near node's agent told. Out: the probes as they are to be sent, and the far places,
each with its state dumped. On a sparing ground preflight probes (trace/preflight.py) tell which
these are; else, and where no preflight probe can tell, they are all places that a backend may be
at, on at most MOST_NODES nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from kptrace.kube.objects.cluster_state import ClusterState
from kptrace.model import (
    EvidenceSource,
    Netns,
    Prediction,
    Probe,
    ProgressCallback,
    Resolution,
    Source,
    TraceRequest,
)
from kptrace.plugins import registry
from kptrace.trace.agent_session import FILES, AgentSession, unique
from kptrace.trace.prediction import backend_netns, enter_netns, predicted_for, snapshots_of
from kptrace.trace.preflight import PreflightProbes

_ROUNDS = 3  # a conntrack entry may run out while a far agent starts; then the choice is made anew


class RemoteNodes:
    def __init__(
        self,
        session: AgentSession,
        request: TraceRequest,
        source: Source,
        resolution: Resolution,
        cluster_state: ClusterState,
        progress: ProgressCallback,
    ) -> None:
        self._session, self._source, self._progress = session, source, progress
        self._resolution, self._cluster_state = resolution, cluster_state
        near = snapshots_of(session.texts())
        self._prediction = predicted_for(source, resolution, cluster_state, near)
        self._behind = partial(backend_netns, source, resolution, cluster_state)
        node = near[Netns(node=source.netns.node)]
        self._preflights = PreflightProbes(
            session, source, node, self._prediction, request.trace_rule
        )
        self._looked_at: tuple[Netns, ...] = ()

    def all_backend_netns(self) -> tuple[Netns, ...]:
        return self._look_at(self._behind(_addresses(self._prediction)))

    def select_by_preflight(
        self, probes: tuple[Probe, ...]
    ) -> tuple[tuple[Probe, ...], tuple[Netns, ...]]:
        """With as few agents as possible; the probes go where the preflight probes went."""
        if len({netns.node for netns in self._behind(_addresses(self._prediction))}) < 2:
            return probes, self.all_backend_netns()
        why, asked = self._preflights.why_not_applicable(), set[Netns]()
        for _ in range(_ROUNDS if not why else 0):
            preflight_outcome = self._preflights.send(probes, self._cluster_state)
            if preflight_outcome.lost:
                self._progress(f"{self._source.netns.node} lets no probe out")
                return preflight_outcome.probes, self._look_at(self._likeliest())
            why = preflight_outcome.why or self._chosen_elsewhere(preflight_outcome.backends)
            if why:
                break
            probes = preflight_outcome.probes
            requested = self._behind(preflight_outcome.backends, known=True)
            if asked.issuperset(requested):
                return probes, self._looked_at
            self._progress(
                "the preflight probe was sent on to " + ", ".join(preflight_outcome.backends)
            )
            self._look_at(requested)
            asked.update(requested)
        return self._fall_back_to_all_nodes(probes, why or "the backend is another one each time")

    def release(self) -> None:
        self._preflights.dismiss()

    def _fall_back_to_all_nodes(
        self, probes: tuple[Probe, ...], why: str
    ) -> tuple[tuple[Probe, ...], tuple[Netns, ...]]:
        layer = EvidenceSource(name="preflight", node=self._source.netns.node, unavailable=why)
        self._session.absent.append(layer)
        self._progress(
            f"no preflight probe can show the backend ({why}); looking at every node that has one"
        )
        return probes, self.all_backend_netns()

    def _chosen_elsewhere(self, backends: Iterable[str]) -> str:
        """A node port of another node: it is that node that translates."""
        if self._resolution.address in backends:
            for node in self._cluster_state.nodes:
                if self._resolution.address in node.addresses:
                    return f"it is chosen on {node.name}"
        return ""

    def _likeliest(self) -> tuple[Netns, ...]:
        first = _addresses(self._prediction)[:1]
        return self._behind(first, known=True) if first else ()

    def _look_at(self, requested: Iterable[Netns]) -> tuple[Netns, ...]:
        """All of it that can be looked at, with what was looked at before."""
        near = self._source.netns.node
        namespaces = enter_netns(near, unique((*self._looked_at, *requested)), self._session)
        new = [netns for netns in namespaces if netns not in self._looked_at]
        if new:
            self._progress(
                "collecting state from " + ", ".join(sorted({netns.node for netns in new}))
            )
        self._session.dump(new, FILES)
        self._session.dump((netns for netns in new if not netns.pod), registry.extra_files())
        self._looked_at = namespaces
        return namespaces


def _addresses(prediction: Prediction) -> tuple[str, ...]:
    """Of the backends, the likeliest first."""
    return unique(branch.backend.address for branch in prediction.branches if branch.backend)

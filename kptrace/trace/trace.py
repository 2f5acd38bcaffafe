"""A trace: resolve, read state, predict, probe, diagnose.

``run`` has agents do it and keeps all that they reply; ``report`` makes the report of the replies
and of nothing else. So ``report(unpack(files))`` is the report of any earlier run. Neither does
I/O: the environment (a lab, a cluster, a node) opens agents, and agents do the rest.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from kptrace.diagnose.concurrent_changes import endpoints_changed, rules_changed
from kptrace.diagnose.diagnose import diagnose
from kptrace.diagnose.probe_evidence import probe_evidence
from kptrace.kube.objects.cluster_state import ClusterState, NonApiSource, read_cluster_state
from kptrace.kube.objects.resolve import choose_source, resolve
from kptrace.model import (
    EvidenceSource,
    Netns,
    Outcome,
    Probe,
    ProgressCallback,
    Resolution,
    Source,
    Trace,
    TraceRequest,
    Value,
)
from kptrace.model.errors import KptraceError
from kptrace.plugins import registry
from kptrace.protocol.recording import Recording, files_by_netns, sender_was_there
from kptrace.trace.agent_session import FILES, AgentSession, Environment, unique
from kptrace.trace.dns_lookup import RESOLV_CONF, with_dns
from kptrace.trace.prediction import MOST_NODES, flow_of, predicted_for, snapshots_of
from kptrace.trace.preflight import without_unprobed_pods
from kptrace.trace.probe_run import capture_and_send, probes_for
from kptrace.trace.remote_nodes import RemoteNodes


def run(
    request: TraceRequest, environment: Environment, seed: int, progress: ProgressCallback
) -> Recording:
    """Trace once; everything that was asked and answered."""
    return trace_and_report(request, environment, seed, progress)[0]


def trace_and_report(
    request: TraceRequest, environment: Environment, seed: int, progress: ProgressCallback
) -> tuple[Recording, Trace]:
    """Trace once; the recording and its report, which has to be made to know what it asks for.

    seed: 32 random bits, the first probe id; progress: called with each step, for stderr
    Raises KptraceError where the sender's side cannot be looked at at all.
    """
    plan = _plan(request, environment)
    session = AgentSession(environment)
    api = _open_source(plan, session, environment, progress)
    near = _read_source_state(plan, session)
    plan = msgspec.structs.replace(
        plan, resolution=with_dns(request, plan.source, plan.resolution, session, seed)
    )
    probes = _probe(plan, session, near, seed, progress) if _can_send(plan, near) else ()
    recording = Recording(
        request=request,
        source=plan.source,
        resolution=plan.resolution,
        api=api,
        probes=probes,
        replies=session.words(),
        unavailable=tuple(session.absent),
    )
    trace = _reported(recording, session.texts())  # which asks for the rules that it reaches
    recording = msgspec.structs.replace(recording, replies=session.words())
    return _with_concurrent_changes(recording, trace, plan, session)


class _Plan(Value):
    """What is traced, from where, as the API has it; and the environment it is traced in."""

    request: TraceRequest
    source: Source
    resolution: Resolution
    cluster_state: ClusterState
    api: dict[str, str]
    sparing: bool

    @property
    def backend_nodes(self) -> tuple[str, ...]:
        return unique(endpoint.node for endpoint in self.resolution.endpoints if endpoint.node)


def _plan(request: TraceRequest, environment: Environment) -> _Plan:
    api = dict(environment.api())
    cluster_state = read_cluster_state(api)
    resolution = resolve(request, cluster_state)
    backends = (endpoint.pod for endpoint in resolution.endpoints)
    return _Plan(
        request=request,
        source=choose_source(request, cluster_state, backends),
        resolution=resolution,
        cluster_state=cluster_state,
        api=api,
        sparing=environment.sparing,
    )


def _open_source(
    plan: _Plan, session: AgentSession, environment: Environment, progress: ProgressCallback
) -> dict[str, str]:
    """Start the agents that are needed in any case and enter the sender's namespace.

    Returns the API documents; where no agent can be had there, with what surrounds the Service.
    """
    node = plan.source.netns.node
    progress(f"collecting state from {node}")
    if plan.sparing and len(plan.backend_nodes) == 1:  # its node is needed whatever is chosen
        session.start_agents((node, *plan.backend_nodes))
    api_only = session.open_source_netns(plan.source.netns)
    if not plan.sparing:
        session.start_agents(plan.backend_nodes[:MOST_NODES])
    return dict(api_only) if api_only is not None else plan.api


def _read_source_state(plan: _Plan, session: AgentSession) -> tuple[Netns, ...]:
    """Read the state of the sender's namespace and of its node; those that could be entered."""
    source = plan.source.netns
    near = session.reachable_netns(unique((Netns(node=source.node), source)))
    session.dump(near, (*FILES, RESOLV_CONF))
    session.dump((netns for netns in near if not netns.pod), registry.extra_files())
    return near


def _can_send(plan: _Plan, near: tuple[Netns, ...]) -> bool:
    return bool(plan.resolution.address) and plan.source.netns in near


def _probe(
    plan: _Plan,
    session: AgentSession,
    near: tuple[Netns, ...],
    seed: int,
    progress: ProgressCallback,
) -> tuple[Probe, ...]:
    """Choose the remote nodes, capture, send; the probes as they were sent."""
    request = plan.request
    flow = flow_of(plan.source, plan.resolution, plan.cluster_state)
    probes, remote = probes_for(flow, seed, request.count), tuple[Netns, ...]()
    sees_node = any(not netns.pod for netns in near)  # else nothing beyond the pod can be seen
    nodes = _remote_nodes(plan, session, progress) if sees_node else None
    if nodes is not None and plan.sparing:
        probes, remote = nodes.select_by_preflight(probes)
    elif nodes is not None:
        remote = nodes.all_backend_netns()
    progress("sending " + ("one probe" if request.count == 1 else f"{request.count} probes"))
    namespaces = (*near, *remote)
    capture_and_send(
        session,
        plan.source,
        plan.resolution,
        namespaces,
        probes,
        request.timeout,
        request.trace_rule,
    )
    if nodes is not None:
        nodes.release()
    return probes


def _remote_nodes(plan: _Plan, session: AgentSession, progress: ProgressCallback) -> RemoteNodes:
    return RemoteNodes(
        session, plan.request, plan.source, plan.resolution, plan.cluster_state, progress
    )


def _with_concurrent_changes(
    recording: Recording, trace: Trace, plan: _Plan, session: AgentSession
) -> tuple[Recording, Trace]:
    """Where the report is remarkable, with what changed in rules and endpoints meanwhile."""
    changed = () if _is_unremarkable(trace) else _changes(session, recording, plan.cluster_state)
    if not changed:
        return recording, trace
    recording = msgspec.structs.replace(recording, unavailable=(*recording.unavailable, *changed))
    return recording, report(recording)


def _is_unremarkable(trace: Trace) -> bool:
    """Delivered as predicted, so nothing hangs on what else changed."""
    match = trace.evidence.prediction_match
    diverged = match is not None and match.diverged_at
    return trace.outcome is Outcome.DELIVERED and not trace.findings and not diverged


def _changes(
    session: AgentSession, recording: Recording, before: ClusterState
) -> tuple[EvidenceSource, ...]:
    """What changed since the rules were read and the API was asked: of a Service that is being
    rolled out, an endpoint may go with the probe on its way to it.
    """
    service, node = recording.resolution.service, recording.source.netns.node
    rules = tuple[EvidenceSource, ...]()
    try:
        changed_rules = session.changed_rules().items()
        rules = tuple(rules_changed(netns, parts) for netns, parts in changed_rules)
        if service is None or before.told_by is not None:
            return rules
        api = session.fresh_api()
    except KptraceError:
        return rules  # an agent or the API is gone; what was seen before counts no less
    if api is None:
        return rules
    now = read_cluster_state(api)
    endpoints = (state.endpoints.get(service.key, ()) for state in (before, now))
    return (*rules, *endpoints_changed(node, service.key, *endpoints))


def report(run: Recording) -> Trace:
    """What the run shows. Pure: the same run gives the same report."""
    return _reported(run, files_by_netns(run.replies))


def _reported(run: Recording, texts: Mapping[Netns, Mapping[str, str]]) -> Trace:
    cluster_state, snapshots = read_cluster_state(run.api), snapshots_of(texts)
    prediction = without_unprobed_pods(
        predicted_for(run.source, run.resolution, cluster_state, snapshots), run
    )
    if cluster_state.told_by is not None:
        run = msgspec.structs.replace(
            run, unavailable=(*run.unavailable, _api_not_asked(run, cluster_state.told_by))
        )
    if not sender_was_there(run):
        from kptrace.diagnose.api_only.diagnose import diagnose_from_api  # few need it

        return diagnose_from_api(run, cluster_state)
    trace = diagnose(run, probe_evidence(run, cluster_state, snapshots, prediction))
    return msgspec.structs.replace(trace, networks=registry.detected_networks(snapshots, texts))


def _api_not_asked(run: Recording, non_api_source: NonApiSource) -> EvidenceSource:
    """Where the rules name the endpoints, no rule can be seen to be stale."""
    node = run.source.netns.node
    return EvidenceSource(
        name="the API",
        node=node,
        unavailable=non_api_source.why,
        hint=non_api_source.hint,
        manifest=non_api_source.manifest,
    )

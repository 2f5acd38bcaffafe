"""The story: resolve, snapshot, predict, probe, judge.

``run`` has the agents do it and keeps every word they say; ``report`` makes of these words, and of
nothing else, what the user reads. So ``report(unpack(saved))`` is the report of any earlier run.
Neither does I/O: the ground (a lab, a cluster, a node) opens agents, and agents do the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from kptrace.diagnose.concurrent_changes import endpoints_changed, rules_changed
from kptrace.diagnose.diagnose import diagnose
from kptrace.diagnose.probe_evidence import probe_evidence
from kptrace.kube.objects.cluster_state import ClusterState, NonApiSource, read_cluster_state
from kptrace.kube.objects.resolve import choose_source, resolve
from kptrace.model import EvidenceSource, Netns, Outcome, Probe, Trace, TraceRequest
from kptrace.model.errors import KptraceError
from kptrace.plugins import registry
from kptrace.protocol.recording import Recording, files_by_netns, sender_was_there
from kptrace.trace.agent_session import FILES, AgentSession, Environment, unique
from kptrace.trace.dns_lookup import RESOLV_CONF, with_dns
from kptrace.trace.prediction import MOST_NODES, flow_of, predicted_for, snapshots_of
from kptrace.trace.preflight import without_unprobed_pods
from kptrace.trace.probe_run import capture_and_send, probes_for
from kptrace.trace.remote_nodes import RemoteNodes

Say = Callable[[str], None]


def run(request: TraceRequest, environment: Environment, seed: int, say: Say) -> Recording:
    return trace_and_report(request, environment, seed, say)[0]


def trace_and_report(
    request: TraceRequest, environment: Environment, seed: int, say: Say
) -> tuple[Recording, Trace]:
    """Trace once; the run and its report, which had to be made to know what it asks for.

    seed: 32 random bits, the first cookie; ``say``: progress, for stderr
    """
    api = dict(environment.api())
    cluster_state = read_cluster_state(api)
    resolution = resolve(request, cluster_state)
    source = choose_source(request, cluster_state, (e.pod for e in resolution.endpoints))
    session = AgentSession(environment)
    say(f"collecting state from {source.netns.node}")
    behind = unique(e.node for e in resolution.endpoints if e.node)
    if environment.sparing and len(behind) == 1:  # no scout is needed to know that it is looked at
        session.begin((source.netns.node, *behind))
    alone = session.sender(source.netns)
    api = dict(alone) if alone is not None else api
    if not environment.sparing:
        session.begin(behind[:MOST_NODES])
    near = session.reachable_netns(unique((Netns(node=source.netns.node), source.netns)))
    session.dump(near, (*FILES, RESOLV_CONF))
    session.dump((netns for netns in near if not netns.pod), registry.extra_files())
    resolution = with_dns(request, source, resolution, session, seed)
    probes: tuple[Probe, ...] = ()
    if resolution.address and source.netns in near:
        probes = probes_for(flow_of(source, resolution, cluster_state), seed, request.count)
        beyond, far = None, tuple[Netns, ...]()
        if any(
            not netns.pod for netns in near
        ):  # a pod that sees its own namespace only has nothing beyond
            beyond = RemoteNodes(session, request, source, resolution, cluster_state, say)
            probes, far = (
                beyond.ahead(probes)
                if environment.sparing
                else (probes, beyond.all_backend_netns())
            )
        say("sending " + ("one probe" if request.count == 1 else f"{request.count} probes"))
        namespaces = (*near, *far)
        capture_and_send(
            session, source, resolution, namespaces, probes, request.timeout, request.trace_rule
        )
        if beyond is not None:
            beyond.done()
    recording = Recording(
        request=request,
        source=source,
        resolution=resolution,
        api=api,
        probes=probes,
        replies=session.words(),
        unavailable=tuple(session.absent),
    )
    trace = _reported(recording, session.texts())  # which asks for the rules that it reaches
    recording = msgspec.structs.replace(recording, replies=session.words())
    changed = (
        () if _is_unremarkable(trace) else _changed(session, environment, recording, cluster_state)
    )
    if changed:
        recording = msgspec.structs.replace(
            recording, unavailable=(*recording.unavailable, *changed)
        )
        trace = report(recording)
    return recording, trace


def _is_unremarkable(trace: Trace) -> bool:
    """It came where it was foreseen to come, so nothing hangs on what else changed."""
    agreement = trace.evidence.prediction_match
    parted = agreement is not None and agreement.diverged_at
    return trace.outcome is Outcome.DELIVERED and not trace.findings and not parted


def _changed(
    session: AgentSession, environment: Environment, run: Recording, documents: ClusterState
) -> tuple[EvidenceSource, ...]:
    """Since the rules were read and the API was asked. Of a Service that is being rolled out, an
    endpoint may go with the probe on its way to it.
    """
    service, node = run.resolution.service, run.source.netns.node
    rules = tuple[EvidenceSource, ...]()
    try:
        changed_rules = session.changed_rules().items()
        rules = tuple(rules_changed(netns, parts) for netns, parts in changed_rules)
        if service is None or documents.told_by is not None or not environment.forget():
            return rules
        now = read_cluster_state(environment.api())
    except KptraceError:
        return rules  # an agent or the API is gone; what was seen before counts no less
    behind = (cluster_state.endpoints.get(service.key, ()) for cluster_state in (documents, now))
    return (*rules, *endpoints_changed(node, service.key, *behind))


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

"""The judgement of a run that sent nothing: what the API alone proves, and what it leaves open.

In: a Run whose sender's place was not to be entered, and the API's documents. Out: a Trace without
hops. The API proves a fault only where it leaves nobody to send to, for that holds whatever proxy
and network there are: no endpoint that is ready (or, as kube-proxy 1.36 takes them when none is,
still serving while it ends), none on this node under ``internalTrafficPolicy: Local``, no such
port. All else that it tells may be a cause or not, so the outcome stays open and these are
warnings: a node that is NotReady may go on forwarding, a port need not be declared to be open.
"""

from __future__ import annotations

from collections.abc import Iterator

from kptrace.diagnose.api_only.facts import (
    ApiFacts,
    by_number,
    endpoint_lines,
    facts,
    hosts,
    port_words,
    selected,
    selector,
    undeclared,
    why_nobody,
)
from kptrace.diagnose.api_only.policies import policy_facts, policy_findings
from kptrace.diagnose.diagnose import OUTCOMES
from kptrace.diagnose.evidence_sources import layers
from kptrace.kube.objects.annotations import network_of
from kptrace.kube.objects.cluster_state import ClusterState
from kptrace.model import DetectedNetwork, Evidence, EvidenceSource, Finding, Outcome, Trace
from kptrace.protocol.recording import Recording

NO_ADDRESS = "dns-no-address"
DEPTH = "only the API was asked for this: no packet was sent"
NOWHERE = "no packet was sent, so what becomes of one was not seen"


def diagnose_from_api(run: Recording, cluster_state: ClusterState) -> Trace:
    api_facts = ApiFacts(
        source=run.source,
        resolution=run.resolution,
        documents=cluster_state,
        via=run.request.via,
        matched=tuple(selected(run.resolution.service, cluster_state)),
    )
    proven = _proven(api_facts)
    main = proven or _open(api_facts)
    return Trace(
        target=run.request.target,
        source=run.source,
        outcome=_outcome(proven) if proven else Outcome.INCONCLUSIVE,
        resolution=run.resolution,
        findings=(main, *_maybe(api_facts)),
        evidence=Evidence(visibility="api", sources=(*layers(run), *_unread(cluster_state))),
        networks=tuple(_networks(api_facts)),
        summary=main.summary,
    )


def _outcome(proven: Finding) -> Outcome:
    if proven.cause == NO_ADDRESS:
        return Outcome.UNRESOLVED
    return OUTCOMES.get(proven.cause, Outcome.DROPPED)


def _unread(cluster_state: ClusterState) -> Iterator[EvidenceSource]:
    for file in cluster_state.missing:
        kind = file.removesuffix(".json")
        yield EvidenceSource(
            name=f"the API's {kind}", node="", unavailable="not allowed to read them"
        )
    for read_failure in cluster_state.unread:
        yield EvidenceSource(
            name=read_failure.what,
            node="",
            unavailable=read_failure.why,
            hint=read_failure.hint,
        )


def _networks(api_facts: ApiFacts) -> Iterator[DetectedNetwork]:
    for name in hosts(api_facts):
        node = api_facts.documents.node(name)
        network = network_of(node) if node is not None else None
        if network is not None:
            yield network


# --- what it proves -------------------------------------------------------------------------------


def _proven(api_facts: ApiFacts) -> Finding | None:
    for proof in (_no_such_port, _nobody, _nobody_here):
        finding = proof(api_facts)
        if finding is not None:
            return finding
    return None


def _no_such_port(api_facts: ApiFacts) -> Finding | None:
    resolution = api_facts.resolution
    if resolution.service is not None:
        return None
    for service in api_facts.documents.services:
        if resolution.address in service.cluster_ips:
            break
    else:
        return None
    asked = f"{resolution.port}/{resolution.protocol}"
    offered = ", ".join(f"{port.port}/{port.protocol}" for port in service.ports)
    return Finding(
        cause="no-such-port",
        severity="error",
        node=api_facts.source.netns.node,
        object=f"Service {service.key} port {asked}",
        summary=f"{resolution.address} is Service {service.key}, which has no port {asked}",
        evidence=(f"the API says that {service.key} has: {offered}", DEPTH),
        remedy=(
            f"use one of its ports: {offered}",
            f"kubectl -n {service.namespace} get svc {service.name}  # or add the port to it",
        ),
    )


def _nobody(api_facts: ApiFacts) -> Finding | None:
    service = api_facts.service
    if (
        service is None
        or service.external_name
        or api_facts.usable
        or not api_facts.knows("endpointslices")
    ):
        return None
    of = f"kubectl -n {service.namespace}"
    misnamed = undeclared(api_facts) and not by_number(api_facts)
    text = f"Service {service.key} has no ready endpoint for {port_words(api_facts)}"
    return Finding(
        cause=NO_ADDRESS if service.headless else "no-endpoints",
        severity="error",
        node="",
        object=f"Service {service.key}",
        summary=f"headless {text}, so its name has no address" if service.headless else text,
        evidence=(*endpoint_lines(api_facts), *why_nobody(api_facts, service), DEPTH),
        remedy=(
            f"{of} edit svc {service.name}  # targetPort: as a container calls it, or a number"
            if misnamed
            else f"{of} describe svc {service.name}",
            f"{of} get pods{selector(service)}  # do any match? ready?",
        ),
    )


def _nobody_here(api_facts: ApiFacts) -> Finding | None:
    service, node = api_facts.service, api_facts.source.netns.node
    if service is None or service.internal_policy != "Local" or api_facts.via != "clusterIP":
        return None
    if (
        service.headless
        or service.proxy_name
        or any(endpoint.node == node for endpoint in api_facts.usable)
    ):
        return None
    if not api_facts.knows("endpointslices"):
        return None
    return Finding(
        cause="no-local-endpoints",
        severity="error",
        node=node,
        object=f"Service {service.key}",
        summary=f"{service.key} has internalTrafficPolicy Local and no ready endpoint on {node}: "
        "its packets are dropped there",
        evidence=(*endpoint_lines(api_facts), DEPTH),
        remedy=(
            f"kubectl -n {service.namespace} get pods{selector(service)} -o wide"
            f"  # is one on {node}?",
            "or set internalTrafficPolicy to Cluster",
        ),
    )


# --- what it leaves open --------------------------------------------------------------------------


def _open(api_facts: ApiFacts) -> Finding:
    return Finding(
        cause="not-observed",
        severity="warning",
        node=api_facts.source.netns.node,
        object="the packet",
        summary=NOWHERE,
        evidence=(DEPTH, *facts(api_facts), *policy_facts(api_facts)),
    )


def _maybe(api_facts: ApiFacts) -> Iterator[Finding]:
    """What may be a cause, or a part of one."""
    for name in hosts(api_facts):
        node = api_facts.documents.node(name)
        if node is not None and not node.ready:
            yield Finding(
                cause="node-not-ready",
                severity="warning",
                node=name,
                object=f"node {name}",
                summary=f"node {name} is NotReady: its kubelet does not report",
                remedy=(f"kubectl describe node {name}",),
            )
    yield from policy_findings(api_facts)
    yield from _proxies(api_facts)
    missed, service = undeclared(api_facts), api_facts.service
    if missed and service is not None and by_number(api_facts) and api_facts.usable:
        yield Finding(
            cause="no-listener",
            severity="warning",
            node="",
            object=f"targetPort of Service {service.key}",
            summary=f"{missed}; what is not declared may be open all the same",
            remedy=(f"kubectl -n {service.namespace} get svc {service.name} -o yaml",),
        )


def _proxies(api_facts: ApiFacts) -> Iterator[Finding]:
    """Without kube-proxy the node's rules stay as they are: right until something changes."""
    node = api_facts.source.netns.node
    for pod in api_facts.documents.daemons:
        if pod.node == node and not pod.ready:
            yield Finding(
                cause="proxy-rules-missing",
                severity="warning",
                node=node,
                object=f"pod {pod.key}",
                summary=f"kube-proxy's pod {pod.name} on {node} is not ready: its rules may be old",
                remedy=(f"kubectl -n {pod.namespace} describe pod {pod.name}",),
            )

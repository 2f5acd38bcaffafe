"""The judgement of a run that sent nothing: what the API alone proves, and what it leaves open.

In: a Run whose sender's place was not to be entered, and the API's documents. Out: a Trace without
hops. The API proves a fault only where it leaves nobody to send to, for that holds whatever proxy
and network there are: no endpoint that is ready (or, as kube-proxy 1.36 takes them when none is,
still serving while it ends), none on this node under ``internalTrafficPolicy: Local``, no such
port. All else that it tells may be a cause or not, so the outcome stays open and these are
warnings: a node that is NotReady may go on forwarding, a port need not be declared to be open.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kptrace.judge.layers import layers
from kptrace.judge.verdict import OUTCOMES
from kptrace.judge.words import end
from kptrace.kube.documents import Documents
from kptrace.model import (
    Endpoint,
    Evidence,
    Finding,
    Outcome,
    Pod,
    Resolution,
    Service,
    Source,
    Trace,
    Value,
)
from kptrace.run import Run

MOST = 4  # of a kind that are named one by one
DEPTH = "only the API was asked for this: no packet was sent"
NOWHERE = "no packet was sent, so what becomes of one was not seen"
ENDED = ("Succeeded", "Failed")


class Told(Value):
    """What the API told of one question.

    behind: the endpoints of the asked port and family; ``matched``: the pods that the Service's
    selector finds, of those that still run
    """

    source: Source
    resolution: Resolution
    documents: Documents
    via: str = "clusterIP"
    matched: tuple[Pod, ...] = ()

    @property
    def service(self) -> Service | None:
        return self.resolution.service

    @property
    def behind(self) -> tuple[Endpoint, ...]:
        """A slice without a port leads nowhere, unless addresses are all that is asked for."""
        headless = self.service is not None and self.service.headless
        return tuple(one for one in self.resolution.endpoints if one.port or headless)

    @property
    def usable(self) -> tuple[Endpoint, ...]:
        ready = tuple(one for one in self.behind if one.ready)
        return ready or tuple(one for one in self.behind if one.serving and one.terminating)

    def knows(self, kind: str) -> bool:
        return f"{kind}.json" not in self.documents.missing


def by_the_api(run: Run, documents: Documents) -> Trace:
    told = Told(
        source=run.source,
        resolution=run.resolution,
        documents=documents,
        via=run.question.via,
        matched=tuple(_matched(run.resolution.service, documents)),
    )
    proven = _proven(told)
    main = proven or _open(told)
    return Trace(
        target=run.question.target,
        source=run.source,
        outcome=OUTCOMES.get(proven.cause, Outcome.DROPPED) if proven else Outcome.INCONCLUSIVE,
        resolution=run.resolution,
        findings=(main, *_maybe(told)),
        evidence=Evidence(layers=layers(run)),
        summary=main.summary,
    )


def _matched(service: Service | None, documents: Documents) -> Iterator[Pod]:
    if service is None or not service.selector:
        return
    for pod in documents.pods:
        own = pod.namespace == service.namespace and pod.phase not in ENDED
        if own and set(service.selector) <= set(pod.labels):
            yield pod


# --- what it proves -------------------------------------------------------------------------------


def _proven(told: Told) -> Finding | None:
    for proof in (_no_such_port, _nobody, _nobody_here):
        found = proof(told)
        if found is not None:
            return found
    return None


def _no_such_port(told: Told) -> Finding | None:
    resolution = told.resolution
    if resolution.service is not None:
        return None
    for service in told.documents.services:
        if resolution.address in service.cluster_ips:
            break
    else:
        return None
    asked = f"{resolution.port}/{resolution.protocol}"
    offered = ", ".join(f"{port.port}/{port.protocol}" for port in service.ports)
    return Finding(
        cause="no-such-port",
        severity="error",
        node=told.source.place.node,
        object=f"Service {service.key} port {asked}",
        summary=f"{resolution.address} is Service {service.key}, which has no port {asked}",
        evidence=(f"the API says that {service.key} has: {offered}", DEPTH),
        remedy=(
            f"use one of its ports: {offered}",
            f"kubectl -n {service.namespace} get svc {service.name}  # or add the port to it",
        ),
    )


def _nobody(told: Told) -> Finding | None:
    service = told.service
    if service is None or service.external_name or told.usable or not told.knows("endpointslices"):
        return None
    return Finding(
        cause="no-endpoints",
        severity="error",
        node="",
        object=f"Service {service.key}",
        summary=f"Service {service.key} has no ready endpoint for {_port(told)}",
        evidence=(*_endpoints(told), *_why_nobody(told, service), DEPTH),
        remedy=(
            f"kubectl -n {service.namespace} describe svc {service.name}",
            f"kubectl -n {service.namespace} get pods{_selector(service)}  # do any match? ready?",
        ),
    )


def _why_nobody(told: Told, service: Service) -> Iterator[str]:
    """As far as the API tells it, from the Service on to its pods and their nodes."""
    if not service.selector:
        yield "it has no selector: whoever made it writes its EndpointSlices"
        return
    if not told.knows("pods"):
        return
    if not told.matched:
        yield f"its selector {_pairs(service)} matches no pod in namespace {service.namespace}"
        return
    yield _pods(told, service)
    unready = [pod for pod in told.matched if not pod.ready]
    yield from map(_unready, unready[:MOST])
    yield from _not_ready(told, (pod.node for pod in told.matched))
    undeclared = _undeclared(told)
    if undeclared and not _number(told):
        yield undeclared
    elif not unready and not told.behind:
        yield "no EndpointSlice holds them: does kube-controller-manager run?"


def _nobody_here(told: Told) -> Finding | None:
    service, node = told.service, told.source.place.node
    if service is None or service.internal_policy != "Local" or told.via != "clusterIP":
        return None
    if service.headless or service.proxy_name or any(one.node == node for one in told.usable):
        return None
    if not told.knows("endpointslices"):
        return None
    return Finding(
        cause="no-local-endpoints",
        severity="error",
        node=node,
        object=f"Service {service.key}",
        summary=f"{service.key} has internalTrafficPolicy Local and no ready endpoint on {node}: "
        "its packets are dropped there",
        evidence=(*_endpoints(told), DEPTH),
        remedy=(
            f"kubectl -n {service.namespace} get pods{_selector(service)} -o wide"
            f"  # is one on {node}?",
            "or set internalTrafficPolicy to Cluster",
        ),
    )


# --- what it leaves open --------------------------------------------------------------------------


def _open(told: Told) -> Finding:
    return Finding(
        cause="not-seen",
        severity="warning",
        node=told.source.place.node,
        object="the packet",
        summary=NOWHERE,
        evidence=(DEPTH, *_facts(told)),
    )


def _facts(told: Told) -> Iterator[str]:
    service = told.service
    if service is not None and service.external_name:
        yield f"Service {service.key} is an ExternalName: an alias for {service.external_name}"
    elif service is not None:
        own = f"ClusterIP {', '.join(service.cluster_ips)}" if service.cluster_ips else "headless"
        yield f"Service {service.key}: {own}; {_port(told)}"
        if told.knows("endpointslices"):
            yield from _endpoints(told)
        if service.selector and told.knows("pods"):
            yield _pods(told, service)
    elif told.behind:
        yield from (_behind(told, one) for one in told.behind)
    elif told.resolution.address:
        yield f"{told.resolution.address} belongs to nothing that the API knows"
    yield from _nodes(told)
    if service is not None:
        yield _name(told, service)


def _nodes(told: Told) -> Iterator[str]:
    """``node-a and node-b are Ready``: of the sender and of those behind."""
    known = [told.documents.node(name) for name in _hosts(told)]
    ready = [node.name for node in known if node is not None and node.ready]
    if ready:
        yield f"Ready: {', '.join(ready)}"
    yield from _not_ready(told, _hosts(told))


def _hosts(told: Told) -> Iterable[str]:
    names = (told.source.place.node, *(one.node for one in told.usable))
    return dict.fromkeys(name for name in names if name)


def _not_ready(told: Told, names: Iterable[str]) -> Iterator[str]:
    for name in dict.fromkeys(names):
        node = told.documents.node(name)
        if node is not None and not node.ready:
            yield f"node {name} is NotReady"


def _name(told: Told, service: Service) -> str:
    """What a resolver has to answer (Kubernetes DNS specification 1.1.0, section 2)."""
    name = f"{service.name}.{service.namespace}.svc"
    if service.external_name:
        return f"DNS, which was not asked, has to answer {name} with that alias"
    addresses = service.cluster_ips or tuple(one.address for one in told.usable)
    few = ", ".join(addresses[:MOST]) + (" ..." if len(addresses) > MOST else "")
    return f"DNS, which was not asked, has to answer {name} with {few}"


def _maybe(told: Told) -> Iterator[Finding]:
    """What may be a cause, or a part of one."""
    for name in _hosts(told):
        node = told.documents.node(name)
        if node is not None and not node.ready:
            yield Finding(
                cause="node-not-ready",
                severity="warning",
                node=name,
                object=f"node {name}",
                summary=f"node {name} is NotReady: its kubelet does not report",
                remedy=(f"kubectl describe node {name}",),
            )
    undeclared = _undeclared(told)
    if undeclared and _number(told) and told.usable:
        service = told.service
        assert service is not None
        yield Finding(
            cause="nobody-listens",
            severity="warning",
            node="",
            object=f"targetPort of Service {service.key}",
            summary=f"{undeclared}; what is not declared may be open all the same",
            remedy=(f"kubectl -n {service.namespace} get svc {service.name} -o yaml",),
        )


# --- words ----------------------------------------------------------------------------------------


def _port(told: Told) -> str:
    """``port http 80/TCP to targetPort 8080``."""
    resolution, port = told.resolution, told.resolution.service_port
    if port is None:
        return f"port {resolution.port}/{resolution.protocol.upper()}"
    name = f"{port.name} " if port.name else ""
    return f"port {name}{port.port}/{port.protocol.upper()} to targetPort {port.target_port}"


def _endpoints(told: Told) -> Iterator[str]:
    """How many, and some of them: ``10.244.1.3:8080 pod/web-1 on node-a``; those first that are not
    ready.
    """
    behind = sorted(told.behind, key=lambda one: one.ready)
    if not behind:
        yield "its EndpointSlices hold no endpoint for it"
        return
    ready = sum(one.ready for one in behind)
    yield f"{len(behind)} endpoint{'s' * (len(behind) != 1)}, {ready} of them ready"
    yield from (_behind(told, one) for one in behind[:MOST])
    if len(behind) > MOST:
        yield f"and {len(behind) - MOST} more"


def _behind(told: Told, one: Endpoint) -> str:
    service = told.service
    own = f"{service.namespace}/" if service is not None else ""
    whose = f" pod/{one.pod.removeprefix(own)}" if one.pod else ""
    where = f" on {one.node}" if one.node else ""
    state = "" if one.ready else " (terminating)" if one.terminating else " (not ready)"
    return f"{end(one.address, one.port)}{whose}{where}{state}"


def _pods(told: Told, service: Service) -> str:
    ready = sum(pod.ready for pod in told.matched)
    count = f"{len(told.matched)} pod{'s' * (len(told.matched) != 1)}, {ready} ready"
    return f"its selector {_pairs(service)} matches {count}"


def _unready(pod: Pod) -> str:
    where = f" on {pod.node}" if pod.node else ", which has no node yet"
    state = "terminating" if pod.terminating else f"phase {pod.phase or 'unknown'}"
    return f"pod/{pod.name}{where} is not ready ({state})"


def _number(told: Told) -> bool:
    port = told.resolution.service_port
    return port is not None and port.target_port.isdecimal()


def _undeclared(told: Told) -> str:
    """That no container declares the target port; empty where one does, or none declares any."""
    port = told.resolution.service_port
    declared = dict.fromkeys(one for pod in told.matched for one in pod.ports)
    if port is None or not told.matched or (_number(told) and not declared):
        return ""
    for one in declared:
        if one.protocol == port.protocol and port.target_port in (one.name, str(one.port)):
            return ""
    offered = ", ".join(f"{one.name or '-'} {one.port}/{one.protocol}" for one in declared)
    return (
        f"no container of these pods declares targetPort {port.target_port}/{port.protocol}"
        f" (they have: {offered or 'none'})"
    )


def _pairs(service: Service) -> str:
    return ",".join(f"{key}={value}" for key, value in service.selector)


def _selector(service: Service) -> str:
    return f" -l {_pairs(service)}" if service.selector else ""

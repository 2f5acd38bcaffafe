"""What the API told of one question, in words: the Service, its endpoints, pods and nodes. Pure.

In: the Resolution and the documents. Out: lines for a report that rests on nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kptrace.diagnose.phrases import end
from kptrace.kube.objects.cluster_state import ClusterState
from kptrace.model import Endpoint, Pod, Resolution, Service, Source, Value

MOST = 4  # of a kind that are named one by one
ENDED = ("Succeeded", "Failed")


class ApiFacts(Value):
    """What the API told of one question. ``matched``: the pods that the selector finds."""

    source: Source
    resolution: Resolution
    documents: ClusterState
    via: str = "clusterIP"
    matched: tuple[Pod, ...] = ()

    @property
    def service(self) -> Service | None:
        return self.resolution.service

    @property
    def behind(self) -> tuple[Endpoint, ...]:
        """The endpoints of the asked port and family. A slice without a port leads nowhere, unless
        addresses are all that is asked for.
        """
        headless = self.service is not None and self.service.headless
        return tuple(one for one in self.resolution.endpoints if one.port or headless)

    @property
    def usable(self) -> tuple[Endpoint, ...]:
        """As kube-proxy takes them (rules/kubeproxy/expected_endpoints.py)."""
        ready = tuple(one for one in self.behind if one.ready)
        return ready or tuple(one for one in self.behind if one.serving and one.terminating)

    @property
    def namespace(self) -> str:
        """Whose pods are called by their names alone."""
        return self.service.namespace if self.service else self.source.netns.pod.partition("/")[0]

    def knows(self, kind: str) -> bool:
        return f"{kind}.json" not in self.documents.missing


def selected(service: Service | None, documents: ClusterState) -> Iterator[Pod]:
    """The pods that the Service's selector finds, of those that still run."""
    if service is None or not service.selector:
        return
    for pod in documents.pods:
        own = pod.namespace == service.namespace and pod.phase not in ENDED
        if own and set(service.selector) <= set(pod.labels):
            yield pod


def facts(told: ApiFacts) -> Iterator[str]:
    service = told.service
    if service is not None and service.external_name:
        yield f"Service {service.key} is an ExternalName: an alias for {service.external_name}"
    elif service is not None:
        own = f"ClusterIP {', '.join(service.cluster_ips)}" if service.cluster_ips else "headless"
        yield f"Service {service.key}: {own}; {port_words(told)}"
        if told.knows("endpointslices"):
            yield from endpoint_lines(told)
        if service.selector and told.knows("pods"):
            yield pods_words(told, service)
    elif told.behind:
        yield from (_behind(told, one) for one in told.behind)
    elif told.resolution.address:
        yield f"{told.resolution.address} belongs to nothing that the API knows"
    sender = told.documents.pod(told.source.netns.pod)
    if sender is not None and not sender.ready:
        yield f"the sender, {unready_words(sender)}"
    yield from _nodes(told)
    if service is not None:
        yield _name(told, service)


def _nodes(told: ApiFacts) -> Iterator[str]:
    """Of the sender and of those behind."""
    known = [told.documents.node(name) for name in hosts(told)]
    ready = [node.name for node in known if node is not None and node.ready]
    if ready:
        yield f"nodes that are Ready: {', '.join(ready)}"
    yield from not_ready(told, hosts(told))


def hosts(told: ApiFacts) -> Iterable[str]:
    """The sender's, that of a node port, and those behind."""
    address, nodes = told.resolution.address, told.documents.nodes
    entrance = (node.name for node in nodes if address in node.addresses)
    names = (told.source.netns.node, *entrance, *(one.node for one in told.usable))
    return dict.fromkeys(name for name in names if name)


def not_ready(told: ApiFacts, names: Iterable[str]) -> Iterator[str]:
    for name in dict.fromkeys(names):
        node = told.documents.node(name)
        if node is not None and not node.ready:
            yield f"node {name} is NotReady"


def _name(told: ApiFacts, service: Service) -> str:
    """What a resolver has to answer (Kubernetes DNS specification 1.1.0, section 2)."""
    name = f"{service.name}.{service.namespace}.svc"
    if service.external_name:
        return f"DNS, which was not asked, has to answer {name} with that alias"
    addresses = service.cluster_ips or tuple(one.address for one in told.usable)
    few = ", ".join(addresses[:MOST]) + (" ..." if len(addresses) > MOST else "")
    return f"DNS, which was not asked, has to answer {name} with {few}"


def why_nobody(told: ApiFacts, service: Service) -> Iterator[str]:
    """Why a Service has no ready endpoint, from the Service on to its pods and their nodes."""
    if not service.selector:
        yield "it has no selector: whoever made it writes its EndpointSlices"
        return
    if not told.knows("pods"):
        return
    if not told.matched:
        yield f"its selector {pairs(service)} matches no pod in namespace {service.namespace}"
        return
    yield pods_words(told, service)
    unready = [pod for pod in told.matched if not pod.ready]
    yield from map(unready_words, unready[:MOST])
    yield from not_ready(told, (pod.node for pod in told.matched))
    missed = undeclared(told)
    if missed and not by_number(told):
        yield missed
    elif not unready and not told.behind:
        yield "no EndpointSlice holds them: does kube-controller-manager run?"


def port_words(told: ApiFacts) -> str:
    """``port http 80/TCP to targetPort 8080``."""
    resolution, port = told.resolution, told.resolution.service_port
    if port is None:
        return f"port {resolution.port}/{resolution.protocol.upper()}"
    name = f"{port.name} " if port.name else ""
    node = f", node port {port.node_port}" if told.via == "nodePort" else ""
    return f"port {name}{port.port}/{port.protocol.upper()} to targetPort {port.target_port}{node}"


def endpoint_lines(told: ApiFacts) -> Iterator[str]:
    """How many, and some of them: ``10.244.1.3:8080 pod/web-1 on node-a``; those first that are not
    ready.
    """
    behind = sorted(told.behind, key=lambda one: one.ready)
    if not behind:
        yield "its EndpointSlices hold no endpoint for it"
        return
    ready = sum(one.ready for one in behind)
    yield f"{len(behind)} endpoint{'s' * (len(behind) != 1)}, {ready} ready"
    yield from (_behind(told, one) for one in behind[:MOST])
    if len(behind) > MOST:
        yield f"and {len(behind) - MOST} more"


def _behind(told: ApiFacts, one: Endpoint) -> str:
    whose = f" pod/{one.pod.removeprefix(f'{told.namespace}/')}" if one.pod else ""
    where = f" on {one.node}" if one.node else ""
    state = "" if one.ready else " (terminating)" if one.terminating else " (not ready)"
    return f"{end(one.address, one.port)}{whose}{where}{state}"


def pods_words(told: ApiFacts, service: Service) -> str:
    ready = sum(pod.ready for pod in told.matched)
    count = f"{len(told.matched)} pod{'s' * (len(told.matched) != 1)}, {ready} ready"
    return f"its selector {pairs(service)} matches {count}"


def unready_words(pod: Pod) -> str:
    where = f" on {pod.node}" if pod.node else ", which has no node yet"
    state = "terminating" if pod.terminating else f"phase {pod.phase or 'unknown'}"
    return f"pod/{pod.name}{where} is not ready ({state})"


def by_number(told: ApiFacts) -> bool:
    port = told.resolution.service_port
    return port is not None and port.target_port.isdecimal()


def undeclared(told: ApiFacts) -> str:
    """That no container declares the target port; empty where one does, or none declares any."""
    port = told.resolution.service_port
    declared = dict.fromkeys(one for pod in told.matched for one in pod.ports)
    if port is None or not told.matched or (by_number(told) and not declared):
        return ""
    for one in declared:
        if one.protocol == port.protocol and port.target_port in (one.name, str(one.port)):
            return ""
    offered = ", ".join(f"{one.name or '-'} {one.port}/{one.protocol}" for one in declared)
    return (
        f"no container of these pods declares targetPort {port.target_port}/{port.protocol}"
        f" (they have: {offered or 'none'})"
    )


def pairs(service: Service) -> str:
    return ",".join(f"{key}={value}" for key, value in service.selector)


def selector(service: Service) -> str:
    return f" -l {pairs(service)}" if service.selector else ""

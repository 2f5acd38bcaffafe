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
        return tuple(
            endpoint for endpoint in self.resolution.endpoints if endpoint.port or headless
        )

    @property
    def usable(self) -> tuple[Endpoint, ...]:
        """As kube-proxy takes them (rules/kubeproxy/expected_endpoints.py)."""
        ready = tuple(endpoint for endpoint in self.behind if endpoint.ready)
        return ready or tuple(
            endpoint for endpoint in self.behind if endpoint.serving and endpoint.terminating
        )

    @property
    def namespace(self) -> str:
        """Whose pods are called by their names alone."""
        return self.service.namespace if self.service else self.source.netns.pod.partition("/")[0]

    def knows(self, kind: str) -> bool:
        return f"{kind}.json" not in self.documents.missing


def selected(service: Service | None, cluster_state: ClusterState) -> Iterator[Pod]:
    """The pods that the Service's selector finds, of those that still run."""
    if service is None or not service.selector:
        return
    for pod in cluster_state.pods:
        own = pod.namespace == service.namespace and pod.phase not in ENDED
        if own and set(service.selector) <= set(pod.labels):
            yield pod


def facts(api_facts: ApiFacts) -> Iterator[str]:
    service = api_facts.service
    if service is not None and service.external_name:
        yield f"Service {service.key} is an ExternalName: an alias for {service.external_name}"
    elif service is not None:
        own = f"ClusterIP {', '.join(service.cluster_ips)}" if service.cluster_ips else "headless"
        yield f"Service {service.key}: {own}; {port_words(api_facts)}"
        if api_facts.knows("endpointslices"):
            yield from endpoint_lines(api_facts)
        if service.selector and api_facts.knows("pods"):
            yield pods_words(api_facts, service)
    elif api_facts.behind:
        yield from (_behind(api_facts, endpoint) for endpoint in api_facts.behind)
    elif api_facts.resolution.address:
        yield f"{api_facts.resolution.address} belongs to nothing that the API knows"
    sender = api_facts.documents.pod(api_facts.source.netns.pod)
    if sender is not None and not sender.ready:
        yield f"the sender, {unready_words(sender)}"
    yield from _nodes(api_facts)
    if service is not None:
        yield _name(api_facts, service)


def _nodes(api_facts: ApiFacts) -> Iterator[str]:
    """Of the sender and of those behind."""
    known = [api_facts.documents.node(name) for name in hosts(api_facts)]
    ready = [node.name for node in known if node is not None and node.ready]
    if ready:
        yield f"nodes that are Ready: {', '.join(ready)}"
    yield from not_ready(api_facts, hosts(api_facts))


def hosts(api_facts: ApiFacts) -> Iterable[str]:
    """The sender's, that of a node port, and those behind."""
    address, nodes = api_facts.resolution.address, api_facts.documents.nodes
    entrance = (node.name for node in nodes if address in node.addresses)
    names = (
        api_facts.source.netns.node,
        *entrance,
        *(endpoint.node for endpoint in api_facts.usable),
    )
    return dict.fromkeys(name for name in names if name)


def not_ready(api_facts: ApiFacts, names: Iterable[str]) -> Iterator[str]:
    for name in dict.fromkeys(names):
        node = api_facts.documents.node(name)
        if node is not None and not node.ready:
            yield f"node {name} is NotReady"


def _name(api_facts: ApiFacts, service: Service) -> str:
    """What a resolver has to answer (Kubernetes DNS specification 1.1.0, section 2)."""
    name = f"{service.name}.{service.namespace}.svc"
    if service.external_name:
        return f"DNS, which was not asked, has to answer {name} with that alias"
    addresses = service.cluster_ips or tuple(endpoint.address for endpoint in api_facts.usable)
    few = ", ".join(addresses[:MOST]) + (" ..." if len(addresses) > MOST else "")
    return f"DNS, which was not asked, has to answer {name} with {few}"


def why_nobody(api_facts: ApiFacts, service: Service) -> Iterator[str]:
    """Why a Service has no ready endpoint, from the Service on to its pods and their nodes."""
    if not service.selector:
        yield "it has no selector: whoever made it writes its EndpointSlices"
        return
    if not api_facts.knows("pods"):
        return
    if not api_facts.matched:
        yield f"its selector {pairs(service)} matches no pod in namespace {service.namespace}"
        return
    yield pods_words(api_facts, service)
    unready = [pod for pod in api_facts.matched if not pod.ready]
    yield from map(unready_words, unready[:MOST])
    yield from not_ready(api_facts, (pod.node for pod in api_facts.matched))
    missed = undeclared(api_facts)
    if missed and not by_number(api_facts):
        yield missed
    elif not unready and not api_facts.behind:
        yield "no EndpointSlice holds them: does kube-controller-manager run?"


def port_words(api_facts: ApiFacts) -> str:
    """``port http 80/TCP to targetPort 8080``."""
    resolution, port = api_facts.resolution, api_facts.resolution.service_port
    if port is None:
        return f"port {resolution.port}/{resolution.protocol.upper()}"
    name = f"{port.name} " if port.name else ""
    node = f", node port {port.node_port}" if api_facts.via == "nodePort" else ""
    return f"port {name}{port.port}/{port.protocol.upper()} to targetPort {port.target_port}{node}"


def endpoint_lines(api_facts: ApiFacts) -> Iterator[str]:
    """How many, and some of them: ``10.244.1.3:8080 pod/web-1 on node-a``; those first that are not
    ready.
    """
    behind = sorted(api_facts.behind, key=lambda endpoint: endpoint.ready)
    if not behind:
        yield "its EndpointSlices hold no endpoint for it"
        return
    ready = sum(endpoint.ready for endpoint in behind)
    yield f"{len(behind)} endpoint{'s' * (len(behind) != 1)}, {ready} ready"
    yield from (_behind(api_facts, endpoint) for endpoint in behind[:MOST])
    if len(behind) > MOST:
        yield f"and {len(behind) - MOST} more"


def _behind(api_facts: ApiFacts, endpoint: Endpoint) -> str:
    whose = f" pod/{endpoint.pod.removeprefix(f'{api_facts.namespace}/')}" if endpoint.pod else ""
    where = f" on {endpoint.node}" if endpoint.node else ""
    state = "" if endpoint.ready else " (terminating)" if endpoint.terminating else " (not ready)"
    return f"{end(endpoint.address, endpoint.port)}{whose}{where}{state}"


def pods_words(api_facts: ApiFacts, service: Service) -> str:
    ready = sum(pod.ready for pod in api_facts.matched)
    count = f"{len(api_facts.matched)} pod{'s' * (len(api_facts.matched) != 1)}, {ready} ready"
    return f"its selector {pairs(service)} matches {count}"


def unready_words(pod: Pod) -> str:
    where = f" on {pod.node}" if pod.node else ", which has no node yet"
    state = "terminating" if pod.terminating else f"phase {pod.phase or 'unknown'}"
    return f"pod/{pod.name}{where} is not ready ({state})"


def by_number(api_facts: ApiFacts) -> bool:
    port = api_facts.resolution.service_port
    return port is not None and port.target_port.isdecimal()


def undeclared(api_facts: ApiFacts) -> str:
    """That no container declares the target port; empty where one does, or none declares any."""
    port = api_facts.resolution.service_port
    declared = dict.fromkeys(port for pod in api_facts.matched for port in pod.ports)
    if port is None or not api_facts.matched or (by_number(api_facts) and not declared):
        return ""
    for declared_port in declared:
        if declared_port.protocol == port.protocol and port.target_port in (
            declared_port.name,
            str(declared_port.port),
        ):
            return ""
    offered = ", ".join(f"{port.name or '-'} {port.port}/{port.protocol}" for port in declared)
    return (
        f"no container of these pods declares targetPort {port.target_port}/{port.protocol}"
        f" (they have: {offered or 'none'})"
    )


def pairs(service: Service) -> str:
    return ",".join(f"{key}={value}" for key, value in service.selector)


def selector(service: Service) -> str:
    return f" -l {pairs(service)}" if service.selector else ""

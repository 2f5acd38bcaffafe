"""What a target means: Documents and a Question in, a Resolution and a Source out. Pure.

A Service is reached by its first ClusterIP unless the question says otherwise; a headless one by
its endpoints' own addresses; an address is traced back to the Service that owns it, be it a
ClusterIP, an external or load-balancer address or a node's address with a node port.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from kptrace.kube.objects.cluster_state import ClusterState
from kptrace.model import (
    Endpoint,
    Netns,
    Pod,
    Resolution,
    Service,
    ServicePort,
    Source,
    Target,
    TraceRequest,
)
from kptrace.model.errors import NotFoundError, UsageError
from kptrace.model.suggestions import suggestion, suggestion_for_key


def resolve(request: TraceRequest, cluster_state: ClusterState) -> Resolution:
    """What the API says that the target is. Raises NotFound (with the nearest name) or Usage."""
    target = request.target
    match target.kind:
        case "service":
            return _of_service(request, service_named(target, cluster_state), cluster_state)
        case "pod":
            return _of_pod(request, cluster_state)
        case "address":
            return _of_address(target, cluster_state)
        case "name":
            return Resolution(address="", port=_number(target), protocol=target.protocol or "tcp")


def service_named(target: Target, cluster_state: ClusterState) -> Service:
    service = cluster_state.service(f"{target.namespace}/{target.name}")
    if service is None:
        raise NotFoundError(
            f"no Service {target.name} in namespace {target.namespace}",
            suggestion_for_key(
                f"{target.namespace}/{target.name}", (s.key for s in cluster_state.services), "svc/"
            ),
        )
    return service


def choose_source(
    request: TraceRequest, cluster_state: ClusterState, backends: Iterable[str]
) -> Source:
    """Where the packet starts.

    backends: keys of the pods behind the target; without ``--from`` a ready pod that is none of
    them is taken (it then crosses the proxy as a stranger would), else a node.
    """
    kind, _, name = request.source.partition("/")
    if not request.source:
        return _chosen(request, cluster_state, frozenset(backends))
    if kind in ("pod", "pods", "po") and name:
        return _pod_source(name, request, cluster_state)
    if kind in ("node", "nodes", "no") and name:
        if cluster_state.node(name) is None:
            raise NotFoundError(
                f"no node {name}", suggestion(name, (node.name for node in cluster_state.nodes))
            )
        return Source(kind="node", netns=Netns(node=name), why="as asked")
    raise UsageError(
        f"--from {request.source}: a packet can be sent from a pod or a node only",
        "give --from pod/NAME or --from node/NAME",
    )


def _pod_source(name: str, request: TraceRequest, cluster_state: ClusterState) -> Source:
    bare, _, namespace = name.partition(".")
    key = f"{namespace or request.namespace}/{bare}"
    pod = cluster_state.pod(key)
    if pod is None:
        raise NotFoundError(
            f"no pod {bare} in namespace {namespace or request.namespace}",
            suggestion_for_key(key, (pod.key for pod in cluster_state.pods), "pod/"),
        )
    if not pod.node:
        raise NotFoundError(f"pod {key} runs on no node yet (phase {pod.phase or 'unknown'})")
    netns = Netns(node=pod.node, pod="" if pod.host_network else pod.key)
    return Source(kind="pod", netns=netns, why="as asked")


def _chosen(request: TraceRequest, cluster_state: ClusterState, backends: frozenset[str]) -> Source:
    namespace = request.target.namespace or request.namespace
    for pod in candidate_source_pods(cluster_state.pods, namespace, backends):
        why = f"chosen: a ready pod of {namespace} that is no backend"
        return Source(kind="pod", netns=Netns(node=pod.node, pod=pod.key), why=why)
    for node in sorted(cluster_state.nodes, key=lambda node: not node.ready):
        why = f"chosen: no pod of {namespace} is ready and no backend"
        return Source(kind="node", netns=Netns(node=node.name), why=why)
    raise NotFoundError(
        "no pod and no node to send from", "name one: --from pod/NAME or --from node/NAME"
    )


def candidate_source_pods(
    pods: Iterable[Pod], namespace: str, backends: frozenset[str]
) -> list[Pod]:
    """The pods that a packet can start from as from anybody's, in the order of preference."""
    candidates = (
        pod
        for pod in pods
        if pod.namespace == namespace
        and pod.ready
        and pod.node
        and not pod.host_network
        and pod.key not in backends
    )
    return sorted(candidates, key=lambda pod: pod.name)


def _of_service(request: TraceRequest, service: Service, cluster_state: ClusterState) -> Resolution:
    endpoints = cluster_state.endpoints.get(service.key, ())
    if service.external_name:
        return Resolution(address="", port=_number(request.target), protocol="tcp", service=service)
    port = _service_port(request.target, service)
    behind = tuple(e for e in endpoints if serves(e, port))
    address, number = _entrance(request, service, port, behind, cluster_state)
    same_family = tuple(e for e in behind if (":" in e.address) == (":" in address))
    return Resolution(
        address=address,
        port=number,
        protocol=port.protocol,
        service=service,
        service_port=port,
        endpoints=same_family,
    )


def serves(endpoint: Endpoint, port: ServicePort) -> bool:
    return endpoint.port_name == port.name and endpoint.protocol == port.protocol


def _entrance(
    request: TraceRequest,
    service: Service,
    port: ServicePort,
    endpoints: tuple[Endpoint, ...],
    cluster_state: ClusterState,
) -> tuple[str, int]:
    match request.via:
        case "nodePort":
            if not port.node_port:
                raise UsageError(f"Service {service.key} has no node port", _ways(service))
            nodes = [n for n in cluster_state.nodes if request.node in ("", n.name)]
            if not nodes:
                raise NotFoundError(
                    f"no node {request.node}",
                    suggestion(request.node, (n.name for n in cluster_state.nodes)),
                )
            owned = tuple(a for node in nodes for a in node.addresses)
            return _of_family(request, owned, "node address", service), port.node_port
        case "externalIP":
            return _of_family(request, service.external_ips, "external IP", service), port.port
        case "loadBalancer":
            addresses = service.load_balancer_ips
            return _of_family(request, addresses, "load-balancer IP", service), port.port
        case "clusterIP" if service.headless:
            ready = [e for e in endpoints if e.ready] or list(endpoints)
            if not ready:
                raise NotFoundError(
                    f"Service {service.key} is headless and has no endpoint to send to",
                    "its name resolves to nothing: check the selector and the pods' readiness",
                )
            addresses = tuple(e.address for e in ready)
            address = _of_family(request, addresses, "endpoint", service)
            return address, next(e.port for e in ready if e.address == address) or port.port
        case "clusterIP":
            return _of_family(request, service.cluster_ips, "ClusterIP", service), port.port


def _of_family(
    request: TraceRequest, addresses: tuple[str, ...], what: str, service: Service | None = None
) -> str:
    """The first; ``service``: which has others, perhaps, where it has none of this kind."""
    for address in addresses:
        if request.family in (0, ip_address(address).version):
            return address
    family = f" IPv{request.family}" if request.family else ""
    raise UsageError(
        f"{request.target.text} has no{family} {what}",
        f"it has: {', '.join(addresses)}" if addresses or service is None else _ways(service),
    )


def _ways(service: Service) -> str:
    """Which of its addresses there are to choose from."""
    there = {
        "clusterIP": service.cluster_ips or service.headless,
        "nodePort": any(port.node_port for port in service.ports),
        "externalIP": service.external_ips,
        "loadBalancer": service.load_balancer_ips,
    }
    return "use " + " or ".join(
        f"--via {way}" for way, alternatives in there.items() if alternatives
    )


def _service_port(target: Target, service: Service) -> ServicePort:
    ports = [p for p in service.ports if target.protocol in ("", p.protocol)]
    if not target.port:
        if ports:
            return ports[0]
    else:
        for port in ports:
            if target.port in (port.name, str(port.port)):
                return port
    raise no_such_port(target, service)


def no_such_port(target: Target, service: Service) -> NotFoundError:
    offered = ", ".join(f"{p.name or '-'} {p.port}/{p.protocol}" for p in service.ports)
    requested = "/".join(filter(None, (target.port, target.protocol))) or "at all"
    return NotFoundError(
        f"Service {service.key} has no port {requested}", f"it has: {offered or 'none at all'}"
    )


def _of_pod(request: TraceRequest, cluster_state: ClusterState) -> Resolution:
    target = request.target
    key = f"{target.namespace}/{target.name}"
    pod = cluster_state.pod(key)
    if pod is None:
        raise NotFoundError(
            f"no pod {target.name} in namespace {target.namespace}",
            suggestion_for_key(key, (p.key for p in cluster_state.pods), "pod/"),
        )
    if not pod.ips:
        raise NotFoundError(f"pod {key} has no address yet (phase {pod.phase or 'unknown'})")
    port, protocol = _pod_port(target, pod)
    address = _of_family(request, pod.ips, "address")
    endpoint = Endpoint(
        address=address,
        port=port,
        protocol=protocol,
        node=pod.node,
        pod=pod.key,
        ready=pod.ready,
    )
    return Resolution(address=address, port=port, protocol=protocol, endpoints=(endpoint,))


def _pod_port(target: Target, pod: Pod) -> tuple[int, str]:
    if target.port.isdecimal():
        return int(target.port), target.protocol or "tcp"
    for port in pod.ports:
        if target.port in ("", port.name) and target.protocol in ("", port.protocol):
            return port.port, port.protocol
    offered = ", ".join(f"{p.name or '-'} {p.port}/{p.protocol}" for p in pod.ports)
    raise UsageError(
        f"{target.text}: which port?",
        f"the pod declares: {offered}" if offered else f"name one: pod/{pod.name}:8080",
    )


def _of_address(target: Target, cluster_state: ClusterState) -> Resolution:
    requested = str(ip_address(target.name))
    owners = _owners(target, cluster_state)
    if owners:
        service, port, number = owners[0]
        family = tuple(
            e
            for e in cluster_state.endpoints.get(service.key, ())
            if serves(e, port) and (":" in e.address) == (":" in requested)
        )
        return Resolution(
            address=requested,
            port=number,
            protocol=port.protocol,
            service=service,
            service_port=port,
            endpoints=family,
        )
    if not target.port:
        raise UsageError(
            f"{target.text}: which port? No Service is known to have this address",
            f"name the port: {_with_port(requested)}; or, of an external IP, the Service: "
            "svc/NAME --via externalIP",
        )
    protocol = target.protocol or "tcp"
    pod = cluster_state.pod_at(requested)
    behind = (
        (
            Endpoint(
                address=requested,
                port=_number(target),
                protocol=protocol,
                node=pod.node,
                pod=pod.key,
                ready=pod.ready,
            ),
        )
        if pod
        else ()
    )
    return Resolution(address=requested, port=_number(target), protocol=protocol, endpoints=behind)


def service_at(target: Target, cluster_state: ClusterState) -> Service:
    """Whose address it is. Raises NotFound, and Usage where it is a node's, which many share."""
    owners = _owners(target, cluster_state)
    services = {service.key: service for service, _, _ in owners}
    if not services:
        raise NotFoundError(
            f"{target.text}: no Service is known to have this address",
            "name the Service: svc/NAME -n NAMESPACE",
        )
    if len(services) > 1:
        raise UsageError(
            f"{target.text}: which port? It is the way to {', '.join(services)}",
            "name it: " + ", ".join(_with_port(target.name, number) for _, _, number in owners),
        )
    return next(iter(services.values()))


def _owners(target: Target, cluster_state: ClusterState) -> list[tuple[Service, ServicePort, int]]:
    """The Services that have the address, with the port there and its number."""
    requested = str(ip_address(target.name))
    return [
        (service, port, number)
        for service in cluster_state.services
        for port, number in _ways_in(service, requested, cluster_state)
        if target.port in ("", str(number)) and target.protocol in ("", port.protocol)
    ]


def _with_port(address: str, port: int = 80) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _ways_in(
    service: Service, address: str, cluster_state: ClusterState
) -> Iterable[tuple[ServicePort, int]]:
    own = (*service.cluster_ips, *service.external_ips, *service.load_balancer_ips)
    if address in own:
        yield from ((port, port.port) for port in service.ports)
    elif any(address in node.addresses for node in cluster_state.nodes):
        yield from ((port, port.node_port) for port in service.ports if port.node_port)


def _number(target: Target) -> int:
    if target.port.isdecimal():
        return int(target.port)
    if target.port:
        raise UsageError(
            f"{target.text}: port {target.port} has a name but no Service says which number it is",
            "give the number",
        )
    return 80

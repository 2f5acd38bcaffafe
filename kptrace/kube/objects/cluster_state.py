"""The cluster as the API gives it: JSON texts in, the model's nouns out.

In: ``services.json``, ``endpointslices.json``, ``pods.json``, ``nodes.json`` as
``kubectl get -o json`` prints them (a List, or a single object), and ``servicecidrs.json`` where
there is one. A text that is absent is evidence that is missing and is named in ``missing``; one
that is not what it says it is raises ``ParseError`` with the place inside. ``partial.json`` lists
the files that hold no more than one question needed.

Out: ``ClusterState``. An EndpointSlice becomes one ``Endpoint`` for each address and port, as
kube-proxy reads it (endpointslicecache.go): only the first address of an endpoint counts, an
absent ``ready`` or ``serving`` means yes and an absent ``terminating`` no, name and protocol of
the slice's port say which Service port it serves, and an address that several slices hold counts
once. A slice without ports (a headless Service's) gives endpoints with port 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TypeVar

import msgspec

from kptrace.kube.objects import api_types
from kptrace.model import ContainerPort, Endpoint, Node, Pod, Service, ServicePort, Value
from kptrace.model.errors import ParseError

PROXY_NAME = "service.kubernetes.io/service-proxy-name"
SERVICE_NAME = "kubernetes.io/service-name"
ZONE = "topology.kubernetes.io/zone"
DEFAULT_AFFINITY_SECONDS = 10800

FILES = ("services.json", "endpointslices.json", "pods.json", "nodes.json")
PARTIAL = "partial.json"
TOLD_BY = "told-by.json"
UNREAD = "unread.json"
# what stands around a Service (kube/client/related_objects.py)
AROUND = ("networkpolicies.json", "namespaces.json", "daemons.json", UNREAD)
OPTIONAL_FILES = ("servicecidrs.json", PARTIAL, TOLD_BY, *AROUND)

ManifestT = TypeVar("ManifestT", bound=api_types.Named)
NounT = TypeVar("NounT")
ShapeT = TypeVar("ShapeT")


class NonApiSource(Value):
    """Who told of all this where it was not the API, why, and what would have the API asked."""

    by: str
    why: str = ""
    hint: str = ""
    manifest: str = ""


class ReadFailure(Value):
    """What the API would not tell, and why."""

    what: str
    why: str
    hint: str = ""


class ClusterState(Value):
    """All that the API told. ``endpoints``: by Service key, in the order of the slices.

    policies: NetworkPolicies, as the API has them; ``namespaces``: the labels of each
    daemons: the pods of the proxy and the network on the nodes that matter
    unread:  what was asked for in vain; ``around``: these four were asked for
    missing: names of the files that were not there
    partial: names of those that hold no more than one question needed
    told_by: None where it was the API
    """

    services: tuple[Service, ...] = ()
    endpoints: dict[str, tuple[Endpoint, ...]] = msgspec.field(default_factory=dict)
    pods: tuple[Pod, ...] = ()
    nodes: tuple[Node, ...] = ()
    service_cidrs: tuple[str, ...] = ()
    policies: tuple[api_types.NetworkPolicy, ...] = ()
    namespaces: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)
    daemons: tuple[Pod, ...] = ()
    unread: tuple[ReadFailure, ...] = ()
    around: bool = False
    missing: tuple[str, ...] = ()
    partial: tuple[str, ...] = ()
    told_by: NonApiSource | None = None

    def service(self, key: str) -> Service | None:
        """By ``namespace/name``."""
        return next((service for service in self.services if service.key == key), None)

    def pod(self, key: str) -> Pod | None:
        """By ``namespace/name``."""
        return next((pod for pod in self.pods if pod.key == key), None)

    def node(self, name: str) -> Node | None:
        return next((node for node in self.nodes if node.name == name), None)

    def pod_at(self, address: str) -> Pod | None:
        """The pod that owns an address; a pod on the host's network owns none."""
        owners = (pod for pod in self.pods if address in pod.ips and not pod.host_network)
        return next(owners, None)


def read_folder(folder: Path) -> ClusterState:
    """The ``api`` folder of a bundle; every file may be gzipped."""
    return read_cluster_state(dict(_texts(folder)))


def read_cluster_state(texts: Mapping[str, str | bytes]) -> ClusterState:
    """``texts``: by file name (``services.json``)."""
    return ClusterState(
        services=_all(texts, "services.json", api_types.Service, _service),
        endpoints=_endpoints(
            _all(texts, "endpointslices.json", api_types.EndpointSlice, _slice_endpoints)
        ),
        pods=_all(texts, "pods.json", api_types.Pod, _pod),
        nodes=_all(texts, "nodes.json", api_types.Node, _node),
        service_cidrs=sum(
            _all(texts, "servicecidrs.json", api_types.ServiceCIDR, _service_cidrs), ()
        ),
        policies=_all(texts, "networkpolicies.json", api_types.NetworkPolicy, _policy),
        namespaces=dict(_all(texts, "namespaces.json", api_types.Namespace, _namespace)),
        daemons=_all(texts, "daemons.json", api_types.Pod, _pod),
        unread=_decode(UNREAD, texts[UNREAD], tuple[ReadFailure, ...]) if UNREAD in texts else (),
        around="networkpolicies.json" in texts,
        missing=tuple(name for name in FILES if name not in texts),
        partial=_decode(PARTIAL, texts[PARTIAL], tuple[str, ...]) if PARTIAL in texts else (),
        told_by=_decode(TOLD_BY, texts[TOLD_BY], NonApiSource) if TOLD_BY in texts else None,
    )


def _texts(folder: Path) -> Iterator[tuple[str, bytes]]:
    for name in (*FILES, *OPTIONAL_FILES):
        plain, zipped = folder / name, folder / f"{name}.gz"
        try:
            if plain.is_file():
                yield name, plain.read_bytes()
            elif zipped.is_file():
                import gzip  # few folders need it

                yield name, gzip.decompress(zipped.read_bytes())
        except (OSError, EOFError) as error:
            raise ParseError(name, 0, f"cannot be read: {error}") from error


# --- one file ---------------------------------------------------------------------------------


def _all(
    texts: Mapping[str, str | bytes],
    name: str,
    kind: type[ManifestT],
    make: Callable[[ManifestT], NounT],
) -> tuple[NounT, ...]:
    """Every object of one file as its noun; none when the file is absent."""
    if name not in texts:
        return ()
    return tuple(_make(name, item, make) for item in _items(name, texts[name], kind))


def _make(name: str, item: ManifestT, make: Callable[[ManifestT], NounT]) -> NounT:
    try:
        return make(item)
    except ValueError as error:
        whose = f"{item.metadata.namespace}/{item.metadata.name}".lstrip("/")
        raise ParseError(name, 0, f"{whose}: {error}", _hint(name)) from error


def _items(name: str, text: str | bytes, kind: type[ManifestT]) -> list[ManifestT]:
    header = _decode(name, text, api_types.Header)
    if header.kind == kind.__name__:
        return [_decode(name, text, kind)]
    # the API's own lists are ServiceList, kubectl's are List with a kind in each item
    if header.kind not in ("", "List", f"{kind.__name__}List"):
        raise ParseError(name, 0, f"holds {header.kind}, not {kind.__name__}", _hint(name))
    items: list[ManifestT] = _decode(name, text, api_types.Listing[kind]).items  # type: ignore[valid-type]
    for item in items:
        if item.kind not in ("", kind.__name__):
            raise ParseError(name, 0, f"holds a {item.kind}, not only {kind.__name__}", _hint(name))
    return items


def _decode(name: str, text: str | bytes, shape: type[ShapeT]) -> ShapeT:
    try:
        return msgspec.json.decode(text, type=shape)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ParseError(name, 0, str(error), _hint(name)) from error


def _hint(name: str) -> str:
    return f"write it with: kubectl get {name.removesuffix('.json')} -A -o json"


# --- objects ----------------------------------------------------------------------------------


def _address(text: str) -> str:
    return str(ip_address(text))


def _cidr(text: str) -> str:
    """API objects may hold host bits and spaces here; kube-proxy cuts both away."""
    return str(ip_network(text.strip(), strict=False))


def _service(item: api_types.Service) -> Service:
    spec = item.spec
    ips = spec.cluster_ips or [spec.cluster_ip]
    ingress = [entry for entry in item.status.load_balancer.ingress or () if entry.ip]
    return Service(
        namespace=item.metadata.namespace or "default",
        name=item.metadata.name,
        type=spec.type,
        cluster_ips=tuple(_address(ip) for ip in ips if ip not in ("", "None")),
        external_ips=tuple(_address(ip) for ip in spec.external_ips or ()),
        load_balancer_ips=tuple(
            _address(ingress_point.ip)
            for ingress_point in ingress
            if ingress_point.ip_mode != "Proxy"
        ),
        load_balancer_proxy_ips=tuple(
            _address(ingress_point.ip)
            for ingress_point in ingress
            if ingress_point.ip_mode == "Proxy"
        ),
        source_ranges=tuple(_cidr(text) for text in spec.load_balancer_source_ranges or ()),
        ports=tuple(_port(port) for port in spec.ports or ()),
        headless=spec.cluster_ip == "None" or "None" in ips,
        external_name=spec.external_name,
        selector=_pairs(spec.selector),
        affinity_seconds=_affinity_seconds(spec),
        internal_policy=spec.internal_traffic_policy or "Cluster",
        external_policy=spec.external_traffic_policy or "Cluster",
        proxy_name=(item.metadata.labels or {}).get(PROXY_NAME, ""),
        health_check_node_port=spec.health_check_node_port or 0,
        traffic_distribution=spec.traffic_distribution or "",
    )


def _port(port: api_types.Port) -> ServicePort:
    return ServicePort(
        name=port.name,
        protocol=port.protocol.lower(),
        port=port.port,
        target_port=str(port.target_port or port.port),
        node_port=port.node_port or 0,
        app_protocol=port.app_protocol or "",
    )


def _affinity_seconds(spec: api_types.ServiceSpec) -> int:
    if spec.session_affinity != "ClientIP":
        return 0
    config = spec.session_affinity_config
    chosen = config.client_ip.timeout_seconds if config and config.client_ip else None
    return DEFAULT_AFFINITY_SECONDS if chosen is None else chosen


def _slice_endpoints(item: api_types.EndpointSlice) -> tuple[str, tuple[Endpoint, ...]]:
    """The Service's key (empty: the slice belongs to none) and what the slice adds to it."""
    service = (item.metadata.labels or {}).get(SERVICE_NAME, "")
    if not service or item.address_type not in ("IPv4", "IPv6"):
        return "", ()
    ports = item.ports or [api_types.SlicePort()]
    return f"{item.metadata.namespace or 'default'}/{service}", tuple(
        _endpoint(endpoint, port)
        for port in ports
        for endpoint in item.endpoints or ()
        if endpoint.addresses
    )


def _endpoint(endpoint: api_types.SliceEndpoint, port: api_types.SlicePort) -> Endpoint:
    conditions, hints, target = endpoint.conditions, endpoint.hints, endpoint.target_ref
    return Endpoint(
        address=_address(endpoint.addresses[0]),
        port=port.port or 0,
        protocol=(port.protocol or "TCP").lower(),
        port_name=port.name or "",
        node=endpoint.node_name or "",
        pod=f"{target.namespace}/{target.name}" if target and target.kind == "Pod" else "",
        ready=conditions.ready is not False,
        serving=conditions.serving is not False,
        terminating=conditions.terminating is True,
        zones=tuple(hint.name for hint in (hints and hints.for_zones) or ()),
        nodes=tuple(hint.name for hint in (hints and hints.for_nodes) or ()),
    )


def _endpoints(
    slices: Iterable[tuple[str, tuple[Endpoint, ...]]],
) -> dict[str, tuple[Endpoint, ...]]:
    """By Service; the first slice that names an address and port wins."""
    merged: dict[str, dict[tuple[str, str, str, int], Endpoint]] = {}
    for key, endpoints in slices:
        known = merged.setdefault(key, {})
        for endpoint in endpoints:
            known.setdefault(
                (endpoint.port_name, endpoint.protocol, endpoint.address, endpoint.port), endpoint
            )
    merged.pop("", None)
    return {key: tuple(known.values()) for key, known in merged.items()}


def _pod(item: api_types.Pod) -> Pod:
    status = item.status
    ips = [pod_ip.ip for pod_ip in status.pod_ips or ()] or [status.pod_ip]
    return Pod(
        namespace=item.metadata.namespace or "default",
        name=item.metadata.name,
        node=item.spec.node_name,
        ips=tuple(_address(ip) for ip in ips if ip),
        host_network=bool(item.spec.host_network),
        phase=status.phase,
        ready=_is_ready(status.conditions),
        terminating=item.metadata.deletion_timestamp is not None,
        labels=_pairs(item.metadata.labels),
        ports=tuple(
            ContainerPort(
                name=port.name,
                port=port.container_port,
                protocol=port.protocol.lower(),
                host_port=port.host_port or 0,
            )
            for container in item.spec.containers
            for port in container.ports or ()
        ),
    )


def _node(item: api_types.Node) -> Node:
    addresses = item.status.addresses or []
    cidrs = item.spec.pod_cidrs or [item.spec.pod_cidr]
    return Node(
        name=item.metadata.name,
        addresses=tuple(
            _address(address.address)
            for kind in ("InternalIP", "ExternalIP")
            for address in addresses
            if address.type == kind
        ),
        pod_cidrs=tuple(_cidr(cidr) for cidr in cidrs if cidr),
        zone=(item.metadata.labels or {}).get(ZONE, ""),
        ready=_is_ready(item.status.conditions),
        annotations=_pairs(item.metadata.annotations),
        kubelet=item.status.node_info.kubelet_version,
        kernel=item.status.node_info.kernel_version,
    )


def _service_cidrs(item: api_types.ServiceCIDR) -> tuple[str, ...]:
    return tuple(_cidr(cidr) for cidr in item.spec.cidrs or ())


def _policy(item: api_types.NetworkPolicy) -> api_types.NetworkPolicy:
    """As it is, with its addresses looked at."""
    for rule in (*(item.spec.ingress or ()), *(item.spec.egress or ())):
        for peer in (*(rule.from_ or ()), *(rule.to or ())):
            for cidr in (
                (peer.ip_block.cidr, *(peer.ip_block.except_ or ())) if peer.ip_block else ()
            ):
                _cidr(cidr)
    return item


def _namespace(item: api_types.Namespace) -> tuple[str, dict[str, str]]:
    return item.metadata.name, item.metadata.labels or {}


def _pairs(mapping: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    return tuple((mapping or {}).items())


def _is_ready(conditions: Iterable[api_types.Condition] | None) -> bool:
    return any(
        condition.type == "Ready" and condition.status == "True" for condition in conditions or ()
    )

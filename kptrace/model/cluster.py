"""What the API and DNS say: Services, endpoints, pods, nodes, resolution."""

from __future__ import annotations

from kptrace.model.base import Value


class ServicePort(Value):
    """A port of a Service."""

    name: str
    protocol: str
    port: int
    target_port: str
    node_port: int = 0
    app_protocol: str = ""


class Service(Value):
    """A Service as the API gives it. ``cluster_ips`` is empty for a headless one.

    load_balancer_ips: those the proxy rewrites (``ipMode`` VIP or absent); an address with
    ``ipMode: Proxy`` is the load balancer's own and stands in ``load_balancer_proxy_ips``
    """

    namespace: str
    name: str
    type: str
    cluster_ips: tuple[str, ...] = ()
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()
    source_ranges: tuple[str, ...] = ()
    ports: tuple[ServicePort, ...] = ()
    headless: bool = False
    external_name: str = ""
    selector: tuple[tuple[str, str], ...] = ()
    affinity_seconds: int = 0
    internal_policy: str = "Cluster"
    external_policy: str = "Cluster"
    proxy_name: str = ""
    load_balancer_proxy_ips: tuple[str, ...] = ()
    health_check_node_port: int = 0
    traffic_distribution: str = ""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


class Endpoint(Value):
    """An address of an EndpointSlice with its port. ``zones`` and ``nodes`` are topology hints."""

    address: str
    port: int
    protocol: str = "tcp"
    port_name: str = ""
    node: str = ""
    pod: str = ""
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    zones: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()


class ContainerPort(Value):
    """A port that a container declares; ``targetPort`` may name it."""

    name: str
    port: int
    protocol: str = "tcp"
    host_port: int = 0


class Pod(Value):
    """A pod as the API gives it. ``ready`` is its Ready condition, not a guess from its phase."""

    namespace: str
    name: str
    node: str = ""
    ips: tuple[str, ...] = ()
    host_network: bool = False
    phase: str = ""
    ready: bool = False
    terminating: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    ports: tuple[ContainerPort, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


class Node(Value):
    """A node as the API gives it. ``addresses``: the InternalIPs first, no host names.

    kubelet, kernel: their versions, as the kubelet reports them
    """

    name: str
    addresses: tuple[str, ...] = ()
    pod_cidrs: tuple[str, ...] = ()
    zone: str = ""
    ready: bool = False
    annotations: tuple[tuple[str, str], ...] = ()
    kubelet: str = ""
    kernel: str = ""


class DnsAnswer(Value):
    """A DNS query as the source sent it, and its answer.

    records: (type, text) in the order of the answer
    status: the rcode's name, or ``TIMEOUT``, ``CLOSED`` (nobody serves the port), ``UNREACHABLE``
        where no answer came
    """

    name: str
    type: str
    server: str
    transport: str = "udp"
    status: str = ""
    records: tuple[tuple[str, str], ...] = ()
    elapsed_us: int = 0


class Resolution(Value):
    """What the target means: where the packet will be sent, and the endpoints behind that."""

    address: str
    port: int
    protocol: str
    service: Service | None = None
    service_port: ServicePort | None = None
    endpoints: tuple[Endpoint, ...] = ()
    search: tuple[str, ...] = ()
    ndots: int = 1
    dns: tuple[DnsAnswer, ...] = ()

"""What stands in a lab: the pods and Services of the namespace ``shop``, and the cluster's DNS.

Two tables. A Service selects the pods whose app it names, as ``app=NAME`` does in a cluster; one
kind of Service each, so that every rule shape of kube-proxy is there once. ``near`` and ``remote``
have one backend each, on the first and on the second node: what breaks between nodes shows on
``remote`` alone, what breaks on one node's bridge shows on ``near``.
"""

from __future__ import annotations

from typing import Literal

from kptrace.model import Value

NAMESPACES = ("shop", "kube-system")
DNS_SERVICE = "kube-system/kube-dns"
EXTERNAL_IP = "203.0.113.10"

Family = Literal["IPv4", "IPv6"]


class Listener(Value):
    """A port that a pod's server listens on; ``name`` is what a targetPort may say."""

    name: str
    protocol: str
    port: int


class PodSpec(Value):
    """``node``: 0 for the first; ``host``: the last number of its addresses."""

    name: str
    app: str
    node: int
    host: int
    listeners: tuple[Listener, ...] = ()
    namespace: str = "shop"


class PortSpec(Value):
    port: int
    target: str
    protocol: str = "TCP"
    name: str = ""
    node_port: int = 0


class ServiceSpec(Value):
    """``host``: the last number of its cluster addresses, 0 for a headless one."""

    name: str
    app: str
    host: int
    ports: tuple[PortSpec, ...]
    what: str
    namespace: str = "shop"
    families: tuple[Family, ...] = ("IPv4",)
    type: str = "ClusterIP"
    sticky: bool = False
    internal_policy: str = "Cluster"
    external_policy: str = "Cluster"
    external_ips: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


HTTP = Listener(name="http", protocol="tcp", port=8080)
METRICS = Listener(name="metrics", protocol="tcp", port=9090)
ECHO = Listener(name="echo", protocol="udp", port=7007)
DNS = (
    Listener(name="dns", protocol="udp", port=53),
    Listener(name="dns-tcp", protocol="tcp", port=53),
)

PODS = (
    PodSpec(name="web-1", app="web", node=0, host=11, listeners=(HTTP, METRICS)),
    PodSpec(name="web-2", app="web", node=1, host=12, listeners=(HTTP, METRICS)),
    PodSpec(name="web-3", app="web", node=1, host=13, listeners=(HTTP, METRICS)),
    PodSpec(name="near-1", app="near", node=0, host=31, listeners=(HTTP,)),
    PodSpec(name="remote-1", app="remote", node=1, host=21, listeners=(HTTP,)),
    PodSpec(name="echo-1", app="echo", node=0, host=41, listeners=(ECHO,)),
    PodSpec(name="echo-2", app="echo", node=1, host=42, listeners=(ECHO,)),
    PodSpec(
        name="coredns-1", app="kube-dns", node=0, host=53, listeners=DNS, namespace="kube-system"
    ),
    PodSpec(
        name="coredns-2", app="kube-dns", node=1, host=54, listeners=DNS, namespace="kube-system"
    ),
)


def client(node: int) -> PodSpec:
    """Every node has a client: ``client`` on the first, then ``client-b``, ``client-c``."""
    name = "client" if node == 0 else f"client-{chr(ord('a') + node)}"
    return PodSpec(name=name, app=name, node=node, host=10, listeners=(HTTP,) * (node == 0))


WEB_PORT = (PortSpec(port=80, target="http"),)
NAMED_PORT = (PortSpec(port=80, target="http", name="http"),)

SERVICES = (
    ServiceSpec(
        name="web",
        app="web",
        host=1,
        ports=(*NAMED_PORT, PortSpec(port=9090, target="metrics", name="metrics")),
        what="ClusterIP, two named ports, three pods",
    ),
    ServiceSpec(
        name="remote", app="remote", host=2, ports=NAMED_PORT, what="one pod, on the second node"
    ),
    ServiceSpec(
        name="near", app="near", host=3, ports=NAMED_PORT, what="one pod, on the first node"
    ),
    ServiceSpec(
        name="self", app="client", host=4, ports=WEB_PORT, what="one pod, the client (hairpin)"
    ),
    ServiceSpec(
        name="echo",
        app="echo",
        host=5,
        ports=(PortSpec(port=7, target="echo", protocol="UDP"),),
        what="UDP, a pod on each node",
    ),
    ServiceSpec(name="headless", app="web", host=0, ports=NAMED_PORT, what="DNS gives the pods"),
    ServiceSpec(name="empty", app="nobody", host=6, ports=WEB_PORT, what="selects no pod"),
    ServiceSpec(
        name="sticky", app="web", host=7, ports=WEB_PORT, sticky=True, what="ClientIP affinity"
    ),
    ServiceSpec(
        name="nodeport",
        app="web",
        host=8,
        ports=(PortSpec(port=80, target="http", node_port=30080),),
        type="NodePort",
        what="NodePort, traffic policy Cluster",
    ),
    ServiceSpec(
        name="nodeport-local",
        app="web",
        host=9,
        ports=(PortSpec(port=80, target="http", node_port=30081),),
        type="NodePort",
        external_policy="Local",
        what="NodePort, external policy Local",
    ),
    ServiceSpec(
        name="local",
        app="web",
        host=10,
        ports=WEB_PORT,
        internal_policy="Local",
        what="internal policy Local",
    ),
    ServiceSpec(
        name="external",
        app="web",
        host=11,
        ports=WEB_PORT,
        external_ips=(EXTERNAL_IP,),
        what="an external IP",
    ),
    ServiceSpec(
        name="web6", app="web", host=12, ports=WEB_PORT, families=("IPv6",), what="IPv6 only"
    ),
    ServiceSpec(
        name="dual",
        app="web",
        host=13,
        ports=WEB_PORT,
        families=("IPv4", "IPv6"),
        what="both families",
    ),
    ServiceSpec(
        name="kube-dns",
        app="kube-dns",
        host=0,
        ports=(
            PortSpec(port=53, target="dns", protocol="UDP", name="dns"),
            PortSpec(port=53, target="dns-tcp", name="dns-tcp"),
        ),
        namespace="kube-system",
        what="the cluster's DNS",
    ),
)

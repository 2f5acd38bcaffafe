"""The address plan of a lab: name, nodes, proxy mode and network in, every address out; pure.

The numbers are those of kptrace's recorded nodes: node N (1 for node-a) is 172.30.0.(10+N) and
fd00:30::(10+N); its pods are 10.244.N.0/24 and fd00:10:244:N::/64 with the bridge at .1, as the
bridge plugin's ``isDefaultGateway`` has it; Services are 10.96.0.0/16 and fd00:10:96::/112.

Everything is computed, nothing is chosen at run time: ``down`` in another process, after an ``up``
that was killed half-way, finds all that may exist from the few values in the state file.
Namespaces are ``kpt-LAB-underlay``, ``kpt-LAB-node-a`` and ``kpt-LAB-shop.web-1`` (the dot keeps a
pod apart from every node of every other lab); interfaces need no lab in their names.
"""

from __future__ import annotations

import hashlib
import re
from ipaddress import ip_network
from typing import Literal, TypeVar, get_args

from kptrace.lab import workloads
from kptrace.model import Netns, Value
from kptrace.model.errors import UsageError

Proxy = Literal["iptables", "iptables-legacy", "nftables", "ipvs", "cilium"]
Network = Literal[
    "vxlan",
    "host-gw",
    "flannel-ipip",
    "bridge",
    "calico-ipip",
    "calico-crosssubnet",
    "calico-vxlan",
    "calico-direct",
    "cilium-vxlan",
    "cilium-direct",
]
Scheduler = Literal["rr", "lc", "sh", "wrr", "wlc", "dh", "mh"]
EVERY_PROXY: tuple[Proxy, ...] = get_args(Proxy)
EVERY_NETWORK: tuple[Network, ...] = get_args(Network)
SCHEDULERS: tuple[Scheduler, ...] = get_args(Scheduler)
# what needs no module that some kernels lack
PROXIES: tuple[Proxy, ...] = ("iptables", "iptables-legacy", "nftables")
NETWORKS: tuple[Network, ...] = ("vxlan", "host-gw")
Choice = TypeVar("Choice", bound=str)

POD_NETWORK = ("10.244.0.0/16", "fd00:10:244::/48")
SERVICE_NETWORK = ("10.96.0.0/16", "fd00:10:96::/112")
UNDERLAY = ("172.30.0.1", "fd00:30::1")
# where calico-crosssubnet has the nodes after the second
SECOND_UNDERLAY = "172.30.1.1"
UNDERLAY_PREFIX = (24, 64)
DNS_ADDRESS = "10.96.0.10"

UNDERLAY_MTU = 1500
VXLAN_ID = 1
VXLAN_PORT = 8472
# flannel takes 50 from the underlay's MTU for both families (vxlan_network.go, MTU)
VXLAN_OVERHEAD = 50
IPIP_OVERHEAD = 20
OVERHEAD = {
    "vxlan": VXLAN_OVERHEAD,
    "calico-vxlan": VXLAN_OVERHEAD,
    "cilium-vxlan": VXLAN_OVERHEAD,
    "flannel-ipip": IPIP_OVERHEAD,
    "calico-ipip": IPIP_OVERHEAD,
    "calico-crosssubnet": IPIP_OVERHEAD,
}
# the lengths of Calico's blocks (IPPool.spec.blockSize)
BLOCK_LENGTHS = (26, 122)

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
MIN_NODES, MAX_NODES = 2, 9


class NodePlan(Value):
    """``number`` is 1 for node-a. Pairs of addresses are (IPv4, IPv6).

    underlay: the routers' addresses, the node's default routes
    """

    name: str
    number: int
    netns: str
    addresses: tuple[str, str]
    underlay: tuple[str, str]
    pod_cidrs: tuple[str, str]
    gateways: tuple[str, str]
    tunnel_addresses: tuple[str, str]
    vtep_macs: tuple[str, str]
    bridge_mac: str

    @property
    def place(self) -> Netns:
        return Netns(node=self.name)

    @property
    def zone(self) -> str:
        return f"zone-{self.name[-1]}"


class PodPlan(Value):
    """``interface``: the name of the veth's end in the node, as CNI plugins choose it."""

    namespace: str
    name: str
    app: str
    node: str
    netns: str
    addresses: tuple[str, str]
    mac: str
    interface: str
    listeners: tuple[workloads.Listener, ...]

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def place(self) -> Netns:
        return Netns(node=self.node, pod=self.key)


class Plan(Value):
    name: str
    proxy: Proxy
    network: Network
    scheduler: Scheduler
    underlay: str
    nodes: tuple[NodePlan, ...]
    pods: tuple[PodPlan, ...]

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Every network namespace of this lab."""
        return (
            self.underlay,
            *(node.netns for node in self.nodes),
            *(pod.netns for pod in self.pods),
        )

    @property
    def pod_mtu(self) -> int:
        return UNDERLAY_MTU - OVERHEAD.get(self.network, 0)

    @property
    def calico(self) -> bool:
        return self.network.startswith("calico-")

    @property
    def cilium(self) -> bool:
        return self.network.startswith("cilium-")

    def blocks(self, node: NodePlan, family: int) -> tuple[str, ...]:
        """Calico's blocks on a node: those that hold its tunnel's and its pods' addresses."""
        addresses = [node.gateways[family], *(p.addresses[family] for p in self.pods_on(node.name))]
        networks = {
            ip_network(f"{a}/{BLOCK_LENGTHS[family]}", strict=False): None for a in addresses
        }
        return tuple(str(network) for network in sorted(networks, key=str))

    def local_addresses(self, node: NodePlan) -> tuple[str, ...]:
        """All that a node has itself, but for loopback and the Services' addresses."""
        addresses = [*node.addresses]
        if self.cilium:
            return (*addresses, *node.gateways)
        if self.calico:
            addresses += node.gateways[:1] if self.network != "calico-direct" else ()
            return tuple(addresses)
        addresses += node.gateways
        tunnels = {"vxlan": 2, "flannel-ipip": 1}.get(self.network, 0)
        return (*addresses, *node.tunnel_addresses[:tunnels])

    def pod_routes(self, node: NodePlan, family: int) -> tuple[str, ...]:
        """The networks by which other nodes reach a node's pods."""
        return self.blocks(node, family) if self.calico else (node.pod_cidrs[family],)

    def node(self, name: str) -> NodePlan:
        return next(node for node in self.nodes if node.name == name)

    def pod(self, key: str) -> PodPlan:
        return next(pod for pod in self.pods if pod.key == key)

    def pods_on(self, node: str) -> tuple[PodPlan, ...]:
        return tuple(pod for pod in self.pods if pod.node == node)

    def backends(self, service: workloads.ServiceSpec) -> tuple[PodPlan, ...]:
        """The pods that the Service selects."""
        return tuple(
            pod for pod in self.pods if (pod.namespace, pod.app) == (service.namespace, service.app)
        )


def plan(
    name: str = "default",
    nodes: int = 2,
    proxy: str = "iptables",
    network: str = "vxlan",
    scheduler: str = "rr",
) -> Plan:
    """The plan of a lab, or ``UsageError`` for a value that cannot be."""
    check_name(name)
    if not MIN_NODES <= nodes <= MAX_NODES:
        raise UsageError(f"a lab has {MIN_NODES} to {MAX_NODES} nodes, not {nodes}")
    specs = [*(workloads.client(index) for index in range(nodes)), *workloads.PODS]
    chosen = _one_of(EVERY_NETWORK, "--network", network)
    if (proxy == "cilium") != chosen.startswith("cilium-"):
        raise UsageError(
            f"--proxy {proxy} and --network {network} do not go together",
            "--proxy cilium goes with --network cilium-vxlan or cilium-direct, and they with it",
        )
    return Plan(
        name=name,
        proxy=_one_of(EVERY_PROXY, "--proxy", proxy),
        network=chosen,
        scheduler=_one_of(SCHEDULERS, "--scheduler", scheduler),
        underlay=f"kpt-{name}-underlay",
        nodes=tuple(_node(name, number, chosen) for number in range(1, nodes + 1)),
        pods=tuple(_pod(name, spec, chosen) for spec in specs),
    )


def check_name(name: str) -> None:
    """A lab's name becomes part of file names: nothing but small letters, digits and dashes."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a lab's name",
            "use 1 to 32 small letters, digits and dashes, such as `default` or `ci-2`",
        )


def _one_of(choices: tuple[Choice, ...], option: str, value: str) -> Choice:
    for choice in choices:
        if choice == value:
            return choice
    raise UsageError(f"{option} {value!r} is none of: {', '.join(choices)}")


def node_name(number: int) -> str:
    return f"node-{chr(ord('a') + number - 1)}"


def _node(lab: str, number: int, network: Network) -> NodePlan:
    name = node_name(number)
    apart = network == "calico-crosssubnet" and number > 2
    router = SECOND_UNDERLAY if apart else UNDERLAY[0]
    return NodePlan(
        name=name,
        number=number,
        netns=f"kpt-{lab}-{name}",
        addresses=(f"{router.rpartition('.')[0]}.{10 + number}", f"fd00:30::{10 + number}"),
        underlay=(router, UNDERLAY[1]),
        pod_cidrs=(f"10.244.{number}.0/24", f"fd00:10:244:{number}::/64"),
        gateways=(f"10.244.{number}.1", f"fd00:10:244:{number}::1"),
        tunnel_addresses=(f"10.244.{number}.0", f"fd00:10:244:{number}::"),
        vtep_macs=(f"02:00:00:00:00:{number:02x}", f"02:00:00:00:06:{number:02x}"),
        bridge_mac=f"0a:58:0a:f4:{number:02x}:01",
    )


def _pod(lab: str, spec: workloads.PodSpec, network: Network) -> PodPlan:
    number = spec.node + 1
    return PodPlan(
        namespace=spec.namespace,
        name=spec.name,
        app=spec.app,
        node=node_name(number),
        netns=f"kpt-{lab}-{spec.namespace}.{spec.name}",
        addresses=(f"10.244.{number}.{spec.host}", f"fd00:10:244:{number}::{spec.host}"),
        mac=f"0a:58:0a:f4:{number:02x}:{spec.host:02x}",
        interface=_interface(spec, network),
        listeners=spec.listeners,
    )


def _interface(spec: workloads.PodSpec, network: Network) -> str:
    """As the bridge plugin makes it up, or as Calico (VethNameForWorkload) and Cilium
    (Endpoint2IfName) compute it.
    """
    if network.startswith("calico-"):
        named = f"{spec.namespace}.{spec.name}"
        return f"cali{hashlib.sha1(named.encode(), usedforsecurity=False).hexdigest()[:11]}"
    digest = hashlib.sha256(f"{spec.namespace}/{spec.name}".encode()).hexdigest()
    return f"lxc{digest[:12]}" if network.startswith("cilium-") else f"veth{digest[:8]}"


def cluster_ips(service: workloads.ServiceSpec) -> tuple[str, ...]:
    """The Service's cluster addresses in the order of its families; none for a headless one."""
    if service.key == workloads.DNS_SERVICE:
        return (DNS_ADDRESS,)
    if not service.host:
        return ()
    by_family = {
        "IPv4": f"10.96.1.{service.host}",
        "IPv6": f"fd00:10:96::1{service.host:02d}",
    }
    return tuple(by_family[family] for family in service.families)

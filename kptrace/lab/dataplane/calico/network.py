"""What Calico leaves on a node but for its rules (rules.py): links and routes; pure.

pods      each has a veth ``caliXXXXXXXXXXX`` with the MAC ee:ee:ee:ee:ee:ee and no address; the
          node has a route to the pod over it and answers ARP for 169.254.1.1, the pod's gateway,
          because it would route that address elsewhere (proxy_arp; IPv6: the veth's own address)
blocks    a node's pods come from blocks of 64; what no pod has there is a blackhole
routes    ``BLOCK via NODE dev tunl0 onlink`` (IPIP), the same over eth0 (direct, and within one
          subnet under CrossSubnet), or via the other tunnel's address (VXLAN), by ``proto bird``

Sources: felix/dataplane/linux, felix/routetable, confd's BIRD templates. IPv6 pods go without
encapsulation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_network

from kptrace.lab.address_plan import (
    IPIP_OVERHEAD,
    UNDERLAY_MTU,
    UNDERLAY_PREFIX,
    VXLAN_OVERHEAD,
    NodePlan,
    Plan,
    PodPlan,
)

GATEWAY = "169.254.1.1"
HOST_MAC = "ee:ee:ee:ee:ee:ee"
GATEWAY6 = "fe80::ecee:eeff:feee:eeee"  # the link-local address of that MAC
VXLAN_DEVICE, VXLAN_ID, VXLAN_PORT = "vxlan.calico", 4096, 4789
TUNNEL = "tunl0"
TUNNELLED = ("calico-ipip", "calico-crosssubnet")


def node_links(plan: Plan, one: NodePlan) -> list[str]:
    lines = []
    for pod in plan.pods_on(one.name):
        lines += _veth(plan, pod)
    for family in (0, 1):
        lines += [f"route add blackhole {block} proto bird" for block in plan.blocks(one, family)]
    lines += _tunnel(plan, one)
    for other in plan.nodes:
        if other != one:
            lines += _routes(plan, one, other)
    return lines


def _veth(plan: Plan, pod: PodPlan) -> list[str]:
    return [
        f"link add {pod.interface} address {HOST_MAC} mtu {plan.pod_mtu} type veth"
        f" peer name eth0 address {pod.mac} mtu {plan.pod_mtu} netns {pod.netns}",
        f"link set {pod.interface} up",
        *(f"route add {address} dev {pod.interface} scope link" for address in pod.addresses[:1]),
        f"route add {pod.addresses[1]} dev {pod.interface}",
    ]


def _tunnel(plan: Plan, one: NodePlan) -> list[str]:
    """tunl0 is in every namespace once the kernel has IPIP; Calico gives it an address."""
    address = one.gateways[0]
    if plan.network in TUNNELLED:
        return [
            f"link set {TUNNEL} mtu {UNDERLAY_MTU - IPIP_OVERHEAD} up",
            f"addr add {address}/32 dev {TUNNEL}",
        ]
    if plan.network == "calico-vxlan":
        return [
            f"link add {VXLAN_DEVICE} address {one.vtep_macs[0]}"
            f" mtu {UNDERLAY_MTU - VXLAN_OVERHEAD} type vxlan id {VXLAN_ID}"
            f" local {one.addresses[0]} dev eth0 dstport {VXLAN_PORT} nolearning",
            f"addr add {address}/32 dev {VXLAN_DEVICE}",
            f"link set {VXLAN_DEVICE} up",
        ]
    return []


def _routes(plan: Plan, one: NodePlan, other: NodePlan) -> Iterator[str]:
    if plan.network == "calico-vxlan":
        far = other.gateways[0]
        yield f"neigh replace {far} dev {VXLAN_DEVICE} lladdr {other.vtep_macs[0]} nud permanent"
        way = f"via {far} dev {VXLAN_DEVICE} onlink proto 80"
    elif tunnels(plan, one, other):
        way = f"via {other.addresses[0]} dev {TUNNEL} onlink proto bird"
    else:
        way = f"via {other.addresses[0]} dev eth0 proto bird"
    yield from (f"route add {block} {way}" for block in plan.blocks(other, 0))
    way6 = f"via {other.addresses[1]} dev eth0 proto bird"
    yield from (f"route add {block} {way6}" for block in plan.blocks(other, 1))


def tunnels(plan: Plan, one: NodePlan, other: NodePlan) -> bool:
    """Whether IPIP carries what goes from one node to the other."""
    near = ip_network(f"{one.addresses[0]}/{UNDERLAY_PREFIX[0]}", strict=False)
    apart = near != ip_network(f"{other.addresses[0]}/{UNDERLAY_PREFIX[0]}", strict=False)
    return plan.network == "calico-ipip" or (plan.network == "calico-crosssubnet" and apart)


def fdb(plan: Plan, others: Iterable[NodePlan]) -> Iterator[str]:
    if plan.network == "calico-vxlan":
        for other in others:
            yield (
                f"fdb replace {other.vtep_macs[0]} dev {VXLAN_DEVICE}"
                f" dst {other.addresses[0]} self permanent"
            )


def device_sysctls(plan: Plan, one: NodePlan) -> Iterator[tuple[str, str]]:
    for pod in plan.pods_on(one.name):
        name = pod.interface
        yield f"net.ipv4.conf.{name}.proxy_arp", "1"
        yield f"net.ipv4.neigh.{name}.proxy_delay", "0"
        yield f"net.ipv4.conf.{name}.forwarding", "1"
        yield f"net.ipv4.conf.{name}.route_localnet", "1"
        yield f"net.ipv4.conf.{name}.rp_filter", "1"
        yield f"net.ipv6.conf.{name}.forwarding", "1"


def pod_links(pod: PodPlan) -> tuple[str, ...]:
    return (
        "link set lo up",
        "link set eth0 up",
        f"addr add {pod.addresses[0]}/32 dev eth0",
        f"addr add {pod.addresses[1]}/128 dev eth0 nodad",
        f"route add {GATEWAY} dev eth0 scope link",
        f"route add default via {GATEWAY} dev eth0",
        f"route add default via {GATEWAY6} dev eth0",
    )

"""What Cilium leaves on a node but for its maps (socket_lb.py): links, routes, rules; pure.

    cilium_host <-> cilium_net   a veth pair; the first has the node's router addresses
    lxcXXXXXXXXXXXX              a pod's veth; the node has a route to the pod over it
    cilium_vxlan                 on 8472, where the network is a tunnel; one device for both
                                 families, and the sender's identity stands where others have a VNI

It is Cilium with endpoint routes and without programs on devices: the kernel itself routes and
forwards, and its rules and captures tell the whole way. Cilium's own tunnel takes the remote node
from the program's metadata, this one from routes, neighbours and the FDB.

Sources: pkg/datapath/linux (routes), pkg/datapath/iptables (chains), pkg/endpoint/connector.
"""

from __future__ import annotations

from collections.abc import Iterator

from kptrace.lab.address_plan import (
    POD_NETWORK,
    UNDERLAY_MTU,
    VXLAN_OVERHEAD,
    VXLAN_PORT,
    NodePlan,
    Plan,
    PodPlan,
)

TUNNEL = "cilium_vxlan"
# an identity that Cilium gave to some set of labels; below 256 they are its own
IDENTITY = 26171


def host_mac(pod: PodPlan) -> str:
    """Of the node's end: the pod's gateway, whatever address it asks for."""
    return f"0e{pod.mac[2:]}"


def node_links(plan: Plan, one: NodePlan) -> list[str]:
    lines = [
        "link add cilium_host type veth peer name cilium_net",
        f"addr add {one.gateways[0]}/32 dev cilium_host",
        f"addr add {one.gateways[1]}/128 dev cilium_host nodad",
        "link set cilium_host up",
        "link set cilium_net up",
    ]
    for pod in plan.pods_on(one.name):
        lines += _veth(plan, pod)
    others = [other for other in plan.nodes if other != one]
    lines += _tunnel(one, others) if plan.network == "cilium-vxlan" else _direct(others)
    return lines


def _veth(plan: Plan, pod: PodPlan) -> list[str]:
    return [
        f"link add {pod.interface} address {host_mac(pod)} mtu {plan.pod_mtu} type veth"
        f" peer name eth0 address {pod.mac} mtu {plan.pod_mtu} netns {pod.netns}",
        f"link set {pod.interface} up",
        f"route add {pod.addresses[0]} dev {pod.interface} scope link",
        f"route add {pod.addresses[1]} dev {pod.interface}",
    ]


def _tunnel(one: NodePlan, others: list[NodePlan]) -> Iterator[str]:
    yield (
        f"link add {TUNNEL} address {one.vtep_macs[0]} mtu {UNDERLAY_MTU - VXLAN_OVERHEAD}"
        f" type vxlan id {IDENTITY} local {one.addresses[0]} dev eth0"
        f" dstport {VXLAN_PORT} nolearning"
    )
    yield f"link set {TUNNEL} up"
    for other in others:
        for family in (0, 1):
            far = other.gateways[family]
            yield f"neigh replace {far} dev {TUNNEL} lladdr {other.vtep_macs[0]} nud permanent"
            yield (
                f"route add {other.pod_cidrs[family]} via {far} dev {TUNNEL} onlink"
                f" src {one.gateways[family]}"
            )


def _direct(others: list[NodePlan]) -> Iterator[str]:
    """``autoDirectNodeRoutes``"""
    for other in others:
        for cidr, address in zip(other.pod_cidrs, other.addresses, strict=True):
            yield f"route add {cidr} via {address} dev eth0"


def fdb(plan: Plan, others: list[NodePlan]) -> Iterator[str]:
    if plan.network == "cilium-vxlan":
        for other in others:
            yield (
                f"fdb replace {other.vtep_macs[0]} dev {TUNNEL}"
                f" dst {other.addresses[0]} self permanent"
            )


def pod_links(plan: Plan, pod: PodPlan) -> tuple[str, ...]:
    """The gateway is the node's router; for IPv6 nobody but Cilium's program would answer."""
    gateway, gateway6 = plan.node(pod.node).gateways
    return (
        "link set lo up",
        "link set eth0 up",
        f"addr add {pod.addresses[0]}/32 dev eth0",
        f"addr add {pod.addresses[1]}/128 dev eth0 nodad",
        f"route add {gateway} dev eth0 scope link",
        f"route add default via {gateway} dev eth0",
        f"neigh add {gateway6} dev eth0 lladdr {host_mac(pod)} nud permanent",
        f"route add {gateway6} dev eth0",
        f"route add default via {gateway6} dev eth0",
    )


def rules(one: NodePlan, family: int) -> str:
    """Cilium's chains for ``iptables-restore --noflush``; its jumps stand first."""
    network, cidr = POD_NETWORK[family], one.pod_cidrs[family]
    masquerade = '-m comment --comment "cilium masquerade non-cluster"'
    accepts = "\n".join(
        f'-A CILIUM_FORWARD {way} -m comment --comment "cilium: {words} forward accept" -j ACCEPT'
        for way, words in (
            ("-o cilium_host", "any->cluster on cilium_host"),
            ("-i cilium_host", "cluster->any on cilium_host"),
            ("-i lxc+", "cluster->any on lxc+"),
            ("-o lxc+", "any->cluster on lxc+"),
            ("-i cilium_net", "cluster->any on cilium_net"),
        )
    )
    return f"""*filter
:CILIUM_FORWARD - [0:0]
-I FORWARD 1 -m comment --comment "cilium-feeder: CILIUM_FORWARD" -j CILIUM_FORWARD
{accepts}
COMMIT
*nat
:CILIUM_POST_nat - [0:0]
-I POSTROUTING 1 -m comment --comment "cilium-feeder: CILIUM_POST_nat" -j CILIUM_POST_nat
-A CILIUM_POST_nat -s {cidr} ! -d {network} ! -o cilium_+ {masquerade} -j MASQUERADE
COMMIT
"""

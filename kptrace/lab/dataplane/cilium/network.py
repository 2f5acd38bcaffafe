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

from kptrace.lab.address_plan import (
    POD_NETWORK,
    UNDERLAY_MTU,
    VXLAN_OVERHEAD,
    VXLAN_PORT,
    NodePlan,
    Plan,
    PodPlan,
)
from kptrace.lab.network_objects import (
    AddAddress,
    AddFdbEntry,
    AddLink,
    AddNeighbour,
    AddRoute,
    NetworkObject,
    Peer,
    up,
)

TUNNEL = "cilium_vxlan"
# an identity that Cilium gave to some set of labels; below 256 they are its own
IDENTITY = 26171


def host_mac(pod: PodPlan) -> str:
    """Of the node's end: the pod's gateway, whatever address it asks for."""
    return f"0e{pod.mac[2:]}"


def node_objects(plan: Plan, node: NodePlan) -> list[NetworkObject]:
    """The node's links, routes, neighbours and FDB entries, in the order of their making."""
    objects: list[NetworkObject] = [
        AddLink(name="cilium_host", kind="veth", peer=Peer(name="cilium_net")),
        AddAddress(device="cilium_host", address=f"{node.gateways[0]}/32"),
        AddAddress(device="cilium_host", address=f"{node.gateways[1]}/128", nodad=True),
        up("cilium_host"),
        up("cilium_net"),
    ]
    for pod in plan.pods_on(node.name):
        objects += _veth(plan, pod)
    others = [other for other in plan.nodes if other != node]
    tunnelled = plan.network == "cilium-vxlan"
    return objects + (_tunnel(node, others) if tunnelled else _direct(others))


def _veth(plan: Plan, pod: PodPlan) -> list[NetworkObject]:
    peer = Peer(name="eth0", netns=pod.netns, mac=pod.mac, mtu=plan.pod_mtu)
    return [
        AddLink(name=pod.interface, kind="veth", mac=host_mac(pod), mtu=plan.pod_mtu, peer=peer),
        up(pod.interface),
        AddRoute(destination=pod.addresses[0], device=pod.interface, link_scope=True),
        AddRoute(destination=pod.addresses[1], device=pod.interface),
    ]


def _tunnel(node: NodePlan, others: list[NodePlan]) -> list[NetworkObject]:
    objects: list[NetworkObject] = [
        AddLink(
            name=TUNNEL,
            kind="vxlan",
            mac=node.vtep_macs[0],
            mtu=UNDERLAY_MTU - VXLAN_OVERHEAD,
            vni=IDENTITY,
            local=node.addresses[0],
            lower="eth0",
            port=VXLAN_PORT,
            learning=False,
        ),
        up(TUNNEL),
    ]
    for other in others:
        mac = other.vtep_macs[0]
        for family in (0, 1):
            router = other.gateways[family]
            objects += [
                AddNeighbour(address=router, device=TUNNEL, mac=mac),
                AddRoute(
                    destination=other.pod_cidrs[family],
                    gateway=router,
                    device=TUNNEL,
                    onlink=True,
                    source=node.gateways[family],
                ),
            ]
        objects.append(AddFdbEntry(mac=mac, device=TUNNEL, destination=other.addresses[0]))
    return objects


def _direct(others: list[NodePlan]) -> list[NetworkObject]:
    """The routes of ``autoDirectNodeRoutes``."""
    return [
        AddRoute(destination=cidr, gateway=address, device="eth0")
        for other in others
        for cidr, address in zip(other.pod_cidrs, other.addresses, strict=True)
    ]


def pod_objects(plan: Plan, pod: PodPlan) -> tuple[NetworkObject, ...]:
    """The pod's side. The gateway is the node's router; for IPv6 only Cilium's program would answer
    for it, so the pod has a permanent neighbour.
    """
    gateway, gateway6 = plan.node(pod.node).gateways
    return (
        up("lo"),
        up("eth0"),
        AddAddress(device="eth0", address=f"{pod.addresses[0]}/32"),
        AddAddress(device="eth0", address=f"{pod.addresses[1]}/128", nodad=True),
        AddRoute(destination=gateway, device="eth0", link_scope=True),
        AddRoute(destination="default", gateway=gateway, device="eth0"),
        AddNeighbour(address=gateway6, device="eth0", mac=host_mac(pod)),
        AddRoute(destination=gateway6, device="eth0"),
        AddRoute(destination="default", gateway=gateway6, device="eth0"),
    )


def rules(node: NodePlan, family: int) -> str:
    """Cilium's chains for ``iptables-restore --noflush``; its jumps stand first."""
    network, cidr = POD_NETWORK[family], node.pod_cidrs[family]
    masquerade = '-m comment --comment "cilium masquerade non-cluster"'
    accepts = "\n".join(
        f'-A CILIUM_FORWARD {match} -m comment --comment "cilium: {what} forward accept" -j ACCEPT'
        for match, what in (
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

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

from collections.abc import Iterator
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
from kptrace.lab.network_objects import (
    AddAddress,
    AddFdbEntry,
    AddLink,
    AddNeighbour,
    AddRoute,
    NetworkObject,
    Peer,
    SetLink,
    up,
)

GATEWAY = "169.254.1.1"
HOST_MAC = "ee:ee:ee:ee:ee:ee"
GATEWAY6 = "fe80::ecee:eeff:feee:eeee"  # the link-local address of that MAC
VXLAN_DEVICE, VXLAN_ID, VXLAN_PORT = "vxlan.calico", 4096, 4789
TUNNEL = "tunl0"
BIRD, VXLAN_PROTOCOL = 12, 80  # who made a route (rtnetlink(7); felix/routetable)
TUNNELLED = ("calico-ipip", "calico-crosssubnet")


def node_objects(plan: Plan, node: NodePlan) -> list[NetworkObject]:
    """The node's links, routes, neighbours and FDB entries, in the order of their making."""
    objects: list[NetworkObject] = []
    for pod in plan.pods_on(node.name):
        objects += _veth(plan, pod)
    for family in (0, 1):
        objects += [
            AddRoute(destination=block, kind="blackhole", protocol=BIRD)
            for block in plan.blocks(node, family)
        ]
    objects += _tunnel(plan, node)
    for other in plan.nodes:
        if other != node:
            objects += _routes(plan, node, other)
    return objects


def _veth(plan: Plan, pod: PodPlan) -> list[NetworkObject]:
    peer = Peer(name="eth0", netns=pod.netns, mac=pod.mac, mtu=plan.pod_mtu)
    return [
        AddLink(name=pod.interface, kind="veth", mac=HOST_MAC, mtu=plan.pod_mtu, peer=peer),
        up(pod.interface),
        AddRoute(destination=pod.addresses[0], device=pod.interface, link_scope=True),
        AddRoute(destination=pod.addresses[1], device=pod.interface),
    ]


def _tunnel(plan: Plan, node: NodePlan) -> list[NetworkObject]:
    """The tunnel device. tunl0 is in every namespace once the kernel has IPIP; Calico gives it an
    address.
    """
    address = f"{node.gateways[0]}/32"
    if plan.network in TUNNELLED:
        return [
            SetLink(name=TUNNEL, mtu=UNDERLAY_MTU - IPIP_OVERHEAD, up=True),
            AddAddress(device=TUNNEL, address=address),
        ]
    if plan.network == "calico-vxlan":
        return [
            AddLink(
                name=VXLAN_DEVICE,
                kind="vxlan",
                mac=node.vtep_macs[0],
                mtu=UNDERLAY_MTU - VXLAN_OVERHEAD,
                vni=VXLAN_ID,
                local=node.addresses[0],
                lower="eth0",
                port=VXLAN_PORT,
                learning=False,
            ),
            AddAddress(device=VXLAN_DEVICE, address=address),
            up(VXLAN_DEVICE),
        ]
    return []


def _routes(plan: Plan, node: NodePlan, other: NodePlan) -> Iterator[NetworkObject]:
    if plan.network == "calico-vxlan":
        router, mac = other.gateways[0], other.vtep_macs[0]
        yield AddNeighbour(address=router, device=VXLAN_DEVICE, mac=mac)
        yield AddFdbEntry(mac=mac, device=VXLAN_DEVICE, destination=other.addresses[0])
        gateway, device, onlink, protocol = router, VXLAN_DEVICE, True, VXLAN_PROTOCOL
    elif tunnels(plan, node, other):
        gateway, device, onlink, protocol = other.addresses[0], TUNNEL, True, BIRD
    else:
        gateway, device, onlink, protocol = other.addresses[0], "eth0", False, BIRD
    for block in plan.blocks(other, 0):
        yield AddRoute(
            destination=block, gateway=gateway, device=device, onlink=onlink, protocol=protocol
        )
    for block in plan.blocks(other, 1):
        yield AddRoute(destination=block, gateway=other.addresses[1], device="eth0", protocol=BIRD)


def tunnels(plan: Plan, node: NodePlan, other: NodePlan) -> bool:
    """Whether IPIP carries what goes from one node to the other."""
    near = ip_network(f"{node.addresses[0]}/{UNDERLAY_PREFIX[0]}", strict=False)
    apart = near != ip_network(f"{other.addresses[0]}/{UNDERLAY_PREFIX[0]}", strict=False)
    return plan.network == "calico-ipip" or (plan.network == "calico-crosssubnet" and apart)


def device_sysctls(plan: Plan, node: NodePlan) -> Iterator[tuple[str, str]]:
    for pod in plan.pods_on(node.name):
        name = pod.interface
        yield f"net.ipv4.conf.{name}.proxy_arp", "1"
        yield f"net.ipv4.neigh.{name}.proxy_delay", "0"
        yield f"net.ipv4.conf.{name}.forwarding", "1"
        yield f"net.ipv4.conf.{name}.route_localnet", "1"
        yield f"net.ipv4.conf.{name}.rp_filter", "1"
        yield f"net.ipv6.conf.{name}.forwarding", "1"


def pod_objects(pod: PodPlan) -> tuple[NetworkObject, ...]:
    """The pod's side: both default gateways are addresses that the node's veth answers for."""
    return (
        up("lo"),
        up("eth0"),
        AddAddress(device="eth0", address=f"{pod.addresses[0]}/32"),
        AddAddress(device="eth0", address=f"{pod.addresses[1]}/128", nodad=True),
        AddRoute(destination=GATEWAY, device="eth0", link_scope=True),
        AddRoute(destination="default", gateway=GATEWAY, device="eth0"),
        AddRoute(destination="default", gateway=GATEWAY6, device="eth0"),
    )

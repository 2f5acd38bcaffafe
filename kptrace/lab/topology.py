"""What makes the lab's network: the plan in, network objects, sysctls and rules out. Pure.

Each network namespace gets a ``NetnsSetup``. They come in the order underlay, nodes, pods,
because a veth is made in the node and its other end lands in the pod. What a node holds is what
Flannel and the bridge plugin leave on one (pkg/backend/vxlan, pkg/trafficmngr/iptables;
plugins/main/bridge):

vxlan     flannel.1 with the lease's network address /32 (so that no broadcast route appears), no
          learning, and for each other node a route via *its* network address ``onlink``, a
          permanent neighbour for that address with the VTEP's MAC, and an FDB entry from the MAC
          to the node's underlay address. IPv6 has a second device, flannel-v6.1, over the IPv6
          underlay.
host-gw   for each other node a route via its underlay address; no device.
ipip      flannel.ipip with the same address as flannel.1 would have, routes via the nodes' underlay
          addresses ``onlink``; IPv6, which that backend lacks, goes as in host-gw.

bridge    the same routes, but an administrator wrote them: no Flannel (lab/dataplane/bridge.py).

Calico's nodes and pods are in lab/dataplane/calico/network.py, Cilium's in
lab/dataplane/cilium/network.py, the bridge in lab/dataplane/bridge.py. IPVS needs the device
kube-ipvs0 and some sysctls.

Unknown addresses leave a node by its default route to the underlay, which forwards nothing: as on
a node whose router drops what it does not know. IPv6 duplicate address detection is off, so that
every address can be used at once.
"""

from __future__ import annotations

from kptrace.lab import workloads
from kptrace.lab.address_plan import (
    IPIP_OVERHEAD,
    POD_NETWORK,
    SECOND_UNDERLAY,
    UNDERLAY,
    UNDERLAY_MTU,
    UNDERLAY_PREFIX,
    VXLAN_ID,
    VXLAN_OVERHEAD,
    VXLAN_PORT,
    NodePlan,
    Plan,
    PodPlan,
)
from kptrace.lab.dataplane import bridge
from kptrace.lab.dataplane.calico import network as calico
from kptrace.lab.dataplane.cilium import network as cilium
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
from kptrace.model import Value

Sysctls = tuple[tuple[str, str], ...]


class NetnsSetup(Value):
    """What makes one namespace.

    objects: links, addresses, routes, neighbours and FDB entries, in the order of their making
    device_sysctls: sysctls of devices, which are there only then
    """

    netns: str
    sysctls: Sysctls
    objects: tuple[NetworkObject, ...]
    device_sysctls: Sysctls = ()


# A namespace starts with the machine's own values or with the kernel's, as
# net.core.devconf_inherit_init_net says: what matters is set, whatever it was.
COMMON = (
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv6.conf.all.disable_ipv6", "0"),
    ("net.ipv6.conf.default.disable_ipv6", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
)
UNDERLAY_SYSCTLS = (
    *COMMON,
    ("net.ipv4.ip_forward", "0"),
    ("net.ipv6.conf.all.forwarding", "0"),
    ("net.bridge.bridge-nf-call-iptables", "0"),
    ("net.bridge.bridge-nf-call-ip6tables", "0"),
)
NODE_SYSCTLS = (
    *COMMON,
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.all.forwarding", "1"),
    ("net.bridge.bridge-nf-call-iptables", "1"),
    ("net.bridge.bridge-nf-call-ip6tables", "1"),
)
# kube-proxy's iptables mode lets 127.0.0.1 reach node ports (proxier.go, localhostNodePorts)
LOCALHOST_NODE_PORTS = (("net.ipv4.conf.all.route_localnet", "1"),)
# NewProxier in pkg/proxy/ipvs; the lab's nodes are no load balancers that hide ARP
IPVS_SYSCTLS = (
    ("net.ipv4.vs.conntrack", "1"),
    ("net.ipv4.vs.expire_nodest_conn", "1"),
    ("net.ipv4.vs.expire_quiescent_template", "1"),
)
PROXY_SYSCTLS = {
    "iptables": LOCALHOST_NODE_PORTS,
    "iptables-legacy": LOCALHOST_NODE_PORTS,
    "nftables": (),
    "ipvs": IPVS_SYSCTLS,
    "cilium": (),
}
POD_SYSCTLS = (*COMMON, ("net.ipv4.ip_forward", "0"))


def setups(plan: Plan) -> tuple[tuple[NetnsSetup, ...], ...]:
    """The namespaces in three steps; those of one step do not depend on each other."""
    return (
        (underlay_setup(plan),),
        tuple(node_setup(plan, node) for node in plan.nodes),
        tuple(pod_setup(plan, pod) for pod in plan.pods),
    )


def underlay_setup(plan: Plan) -> NetnsSetup:
    """The network between the nodes: a bridge with a port for each."""
    address, address6 = UNDERLAY
    prefix, prefix6 = UNDERLAY_PREFIX
    objects: list[NetworkObject] = [
        up("lo"),
        AddLink(name="br0", kind="bridge"),
        AddAddress(device="br0", address=f"{address}/{prefix}"),
        AddAddress(device="br0", address=f"{address6}/{prefix6}", nodad=True),
        up("br0"),
    ]
    for node in plan.nodes:
        peer = Peer(name="eth0", netns=node.netns, mtu=UNDERLAY_MTU)
        objects += [
            AddLink(name=node.name, kind="veth", mtu=UNDERLAY_MTU, peer=peer),
            SetLink(name=node.name, master="br0", up=True),
        ]
    # the world outside finds the external IP through the first node
    first = plan.nodes[0].addresses[0]
    objects.append(AddRoute(destination=workloads.EXTERNAL_IP, gateway=first))
    sysctls: Sysctls = UNDERLAY_SYSCTLS
    if any(node.underlay[0] == SECOND_UNDERLAY for node in plan.nodes):
        objects.append(AddAddress(device="br0", address=f"{SECOND_UNDERLAY}/{prefix}"))
        sysctls += (("net.ipv4.ip_forward", "1"), ("net.ipv4.conf.all.send_redirects", "0"))
    return NetnsSetup(netns=plan.underlay, sysctls=sysctls, objects=tuple(objects))


def node_setup(plan: Plan, node: NodePlan) -> NetnsSetup:
    """What a node of this network and proxy holds, but for its rules."""
    others = [other for other in plan.nodes if other != node]
    objects = uplink(node)
    if plan.proxy == "ipvs":
        objects.append(AddLink(name="kube-ipvs0", kind="dummy"))
    if plan.calico:
        objects += calico.node_objects(plan, node)
    elif plan.cilium:
        objects += cilium.node_objects(plan, node)
    else:
        objects += bridge.device(plan, node)
        for pod in plan.pods_on(node.name):
            objects += bridge.port(plan, pod)
        objects += NETWORK_OBJECTS[plan.network](node, others)
    return NetnsSetup(
        netns=node.netns,
        sysctls=NODE_SYSCTLS + PROXY_SYSCTLS[plan.proxy],
        objects=tuple(objects),
        device_sysctls=tuple(calico.device_sysctls(plan, node)) if plan.calico else (),
    )


def uplink(node: NodePlan) -> list[NetworkObject]:
    """The node's side of its link to the underlay, where eth0 was made."""
    return [
        up("lo"),
        up("eth0"),
        AddAddress(device="eth0", address=f"{node.addresses[0]}/{UNDERLAY_PREFIX[0]}"),
        AddAddress(device="eth0", address=f"{node.addresses[1]}/{UNDERLAY_PREFIX[1]}", nodad=True),
        *(
            AddRoute(destination="default", gateway=gateway, device="eth0")
            for gateway in node.underlay
        ),
    ]


TUNNELS = ("flannel.1", "flannel-v6.1")


def vxlan(node: NodePlan, others: list[NodePlan]) -> list[NetworkObject]:
    """Flannel's VXLAN devices with routes, neighbours and FDB entries for the other nodes."""
    objects: list[NetworkObject] = []
    for family, device in enumerate(TUNNELS):
        objects += [
            AddLink(
                name=device,
                kind="vxlan",
                mac=node.vtep_macs[family],
                mtu=UNDERLAY_MTU - VXLAN_OVERHEAD,
                vni=VXLAN_ID,
                local=node.addresses[family],
                lower="eth0",
                port=VXLAN_PORT,
                learning=False,
            ),
            AddAddress(
                device=device, address=f"{node.tunnel_addresses[family]}/{128 if family else 32}"
            ),
            up(device),
        ]
        for other in others:
            remote, mac = other.tunnel_addresses[family], other.vtep_macs[family]
            pods = other.pod_cidrs[family]
            objects += [
                AddNeighbour(address=remote, device=device, mac=mac),
                AddFdbEntry(mac=mac, device=device, destination=other.addresses[family]),
                AddRoute(destination=pods, gateway=remote, device=device, onlink=True),
            ]
    return objects


def host_gateway(node: NodePlan, others: list[NodePlan]) -> list[NetworkObject]:
    """A route for each other node's pods via that node's own address."""
    return [
        AddRoute(destination=cidr, gateway=address, device="eth0")
        for other in others
        for cidr, address in zip(other.pod_cidrs, other.addresses, strict=True)
    ]


IPIP_DEVICE = "flannel.ipip"


def ipip(node: NodePlan, others: list[NodePlan]) -> list[NetworkObject]:
    """Flannel's IPIP device. ``local`` makes it another device than tunl0, which takes the packets
    that no other one does.
    """
    objects: list[NetworkObject] = [
        AddLink(
            name=IPIP_DEVICE,
            kind="ipip",
            mtu=UNDERLAY_MTU - IPIP_OVERHEAD,
            local=node.addresses[0],
            lower="eth0",
        ),
        AddAddress(device=IPIP_DEVICE, address=f"{node.tunnel_addresses[0]}/32"),
        up(IPIP_DEVICE),
    ]
    for other in others:
        (pods, pods6), (address, address6) = other.pod_cidrs, other.addresses
        objects += [
            AddRoute(destination=pods, gateway=address, device=IPIP_DEVICE, onlink=True),
            AddRoute(destination=pods6, gateway=address6, device="eth0"),
        ]
    return objects


def tunnel_device(plan: Plan) -> str:
    """Which device carries IPv4 to the other nodes; empty where none does."""
    devices = {
        "vxlan": TUNNELS[0],
        "flannel-ipip": IPIP_DEVICE,
        "calico-vxlan": calico.VXLAN_DEVICE,
        "cilium-vxlan": cilium.TUNNEL,
    }
    return calico.TUNNEL if plan.network in calico.TUNNELLED else devices.get(plan.network, "")


NETWORK_OBJECTS = {
    "vxlan": vxlan,
    "host-gw": host_gateway,
    "flannel-ipip": ipip,
    "bridge": host_gateway,  # static routes are the same ones
}


def pod_setup(plan: Plan, pod: PodPlan) -> NetnsSetup:
    """A pod's own namespace; its device was made in the node."""
    if plan.calico:
        objects = calico.pod_objects(pod)
    elif plan.cilium:
        objects = cilium.pod_objects(plan, pod)
    else:
        gateway, gateway6 = plan.node(pod.node).gateways
        objects = (
            up("lo"),
            up("eth0"),
            AddAddress(device="eth0", address=f"{pod.addresses[0]}/24"),
            AddAddress(device="eth0", address=f"{pod.addresses[1]}/64", nodad=True),
            AddRoute(destination="default", gateway=gateway, device="eth0"),
            AddRoute(destination="default", gateway=gateway6, device="eth0"),
        )
    return NetnsSetup(netns=pod.netns, sysctls=POD_SYSCTLS, objects=objects)


def resolv_conf(pod: PodPlan, nameserver: str) -> str:
    """What the kubelet gives a pod with dnsPolicy ClusterFirst."""
    return (
        f"nameserver {nameserver}\n"
        f"search {pod.namespace}.svc.cluster.local svc.cluster.local cluster.local\n"
        "options ndots:5\n"
    )


def flannel_rules(node: NodePlan, family: int) -> str:
    """Flannel's chains for ``iptables-restore --noflush``; ``family`` 0 is IPv4, 1 IPv6.

    The jumps are appended, as Flannel does it: kube-proxy's stand before them.
    """
    network, cidr = POD_NETWORK[family], node.pod_cidrs[family]
    multicast = "ff00::/8" if family else "224.0.0.0/4"
    masq = '-m comment --comment "flanneld masq"'
    forward = '-m comment --comment "flanneld forward"'
    return f"""*filter
:FLANNEL-FWD - [0:0]
-A FORWARD {forward} -j FLANNEL-FWD
-A FLANNEL-FWD -s {network} {forward} -j ACCEPT
-A FLANNEL-FWD -d {network} {forward} -j ACCEPT
COMMIT
*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING {masq} -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 {masq} -j RETURN
-A FLANNEL-POSTRTG -s {cidr} -d {network} {masq} -j RETURN
-A FLANNEL-POSTRTG -s {network} -d {cidr} {masq} -j RETURN
-A FLANNEL-POSTRTG ! -s {network} -d {cidr} {masq} -j RETURN
-A FLANNEL-POSTRTG -s {network} ! -d {multicast} {masq} -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s {network} -d {network} {masq} -j MASQUERADE --random-fully
COMMIT
"""

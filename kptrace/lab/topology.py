"""What makes the lab's network: the plan in, lines for ``ip -batch``, sysctls and rules out; pure.

Each network namespace gets a ``NetnsSetup``. The links come in the order underlay, nodes, pods,
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
from kptrace.model import Value

FDB_FLAGS = "self permanent"


Sysctls = tuple[tuple[str, str], ...]


class NetnsSetup(Value):
    """One namespace: its sysctls, lines for ``ip -batch`` and then for ``bridge -batch``, and the
    sysctls of devices, which are there only then.
    """

    netns: str
    sysctls: Sysctls
    links: tuple[str, ...]
    fdb: tuple[str, ...] = ()
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


def recipes(plan: Plan) -> tuple[tuple[NetnsSetup, ...], ...]:
    """In three steps; the recipes of one step do not depend on each other."""
    return (
        (underlay(plan),),
        tuple(node(plan, one) for one in plan.nodes),
        tuple(pod(plan, one) for one in plan.pods),
    )


def underlay(plan: Plan) -> NetnsSetup:
    address, address6 = UNDERLAY
    prefix, prefix6 = UNDERLAY_PREFIX
    lines = [
        "link set lo up",
        "link add br0 type bridge",
        f"addr add {address}/{prefix} dev br0",
        f"addr add {address6}/{prefix6} dev br0 nodad",
        "link set br0 up",
    ]
    for one in plan.nodes:
        lines += [
            f"link add {one.name} mtu {UNDERLAY_MTU} type veth"
            f" peer name eth0 mtu {UNDERLAY_MTU} netns {one.netns}",
            f"link set {one.name} master br0",
            f"link set {one.name} up",
        ]
    # the world outside finds the external IP through the first node
    lines.append(f"route add {workloads.EXTERNAL_IP} via {plan.nodes[0].addresses[0]}")
    sysctls: Sysctls = UNDERLAY_SYSCTLS
    if any(one.underlay[0] == SECOND_UNDERLAY for one in plan.nodes):
        lines.append(f"addr add {SECOND_UNDERLAY}/{prefix} dev br0")
        sysctls += (("net.ipv4.ip_forward", "1"), ("net.ipv4.conf.all.send_redirects", "0"))
    return NetnsSetup(netns=plan.underlay, sysctls=sysctls, links=tuple(lines))


def node(plan: Plan, one: NodePlan) -> NetnsSetup:
    others = [other for other in plan.nodes if other != one]
    links = uplink(one)
    if plan.proxy == "ipvs":
        links.append("link add kube-ipvs0 type dummy")
    entries: list[str] = []
    if plan.calico:
        links += calico.node_links(plan, one)
        entries += calico.fdb(plan, others)
    elif plan.cilium:
        links += cilium.node_links(plan, one)
        entries += cilium.fdb(plan, others)
    else:
        links += bridge.device(plan, one)
        for pod in plan.pods_on(one.name):
            links += bridge.port(plan, pod)
        links += NETWORK_LINKS[plan.network](one, others)
        entries += fdb(others) if plan.network == "vxlan" else ()
    return NetnsSetup(
        netns=one.netns,
        sysctls=NODE_SYSCTLS + PROXY_SYSCTLS[plan.proxy],
        links=tuple(links),
        fdb=tuple(entries),
        device_sysctls=tuple(calico.device_sysctls(plan, one)) if plan.calico else (),
    )


def uplink(one: NodePlan) -> list[str]:
    """eth0 was made in the underlay."""
    return [
        "link set lo up",
        "link set eth0 up",
        f"addr add {one.addresses[0]}/{UNDERLAY_PREFIX[0]} dev eth0",
        f"addr add {one.addresses[1]}/{UNDERLAY_PREFIX[1]} dev eth0 nodad",
        *(f"route add default via {gateway} dev eth0" for gateway in one.underlay),
    ]


TUNNELS = ("flannel.1", "flannel-v6.1")


def vxlan(one: NodePlan, others: list[NodePlan]) -> list[str]:
    lines = []
    for family, device in enumerate(TUNNELS):
        bits = 128 if family else 32
        lines += [
            f"link add {device} address {one.vtep_macs[family]}"
            f" mtu {UNDERLAY_MTU - VXLAN_OVERHEAD} type vxlan id {VXLAN_ID}"
            f" local {one.addresses[family]} dev eth0 dstport {VXLAN_PORT} nolearning",
            f"addr add {one.tunnel_addresses[family]}/{bits} dev {device}",
            f"link set {device} up",
        ]
        for other in others:
            remote = other.tunnel_addresses[family]
            lines += [
                f"neigh replace {remote} dev {device}"
                f" lladdr {other.vtep_macs[family]} nud permanent",
                f"route add {other.pod_cidrs[family]} via {remote} dev {device} onlink",
            ]
    return lines


def fdb(others: list[NodePlan]) -> list[str]:
    return [
        f"fdb replace {other.vtep_macs[family]} dev {device}"
        f" dst {other.addresses[family]} {FDB_FLAGS}"
        for family, device in enumerate(TUNNELS)
        for other in others
    ]


def host_gateway(one: NodePlan, others: list[NodePlan]) -> list[str]:
    return [
        f"route add {cidr} via {address} dev eth0"
        for other in others
        for cidr, address in zip(other.pod_cidrs, other.addresses, strict=True)
    ]


IPIP_DEVICE = "flannel.ipip"


def ipip(one: NodePlan, others: list[NodePlan]) -> list[str]:
    """``local`` makes it another device than tunl0, which takes what no other one does."""
    return [
        f"link add {IPIP_DEVICE} mtu {UNDERLAY_MTU - IPIP_OVERHEAD}"
        f" type ipip local {one.addresses[0]} dev eth0",
        f"addr add {one.tunnel_addresses[0]}/32 dev {IPIP_DEVICE}",
        f"link set {IPIP_DEVICE} up",
        *(
            f"route add {other.pod_cidrs[0]} via {other.addresses[0]} dev {IPIP_DEVICE} onlink"
            for other in others
        ),
        *(f"route add {other.pod_cidrs[1]} via {other.addresses[1]} dev eth0" for other in others),
    ]


def tunnel_device(plan: Plan) -> str:
    """Which device carries IPv4 to the other nodes; empty where none does."""
    devices = {
        "vxlan": TUNNELS[0],
        "flannel-ipip": IPIP_DEVICE,
        "calico-vxlan": calico.VXLAN_DEVICE,
        "cilium-vxlan": cilium.TUNNEL,
    }
    return calico.TUNNEL if plan.network in calico.TUNNELLED else devices.get(plan.network, "")


NETWORK_LINKS = {
    "vxlan": vxlan,
    "host-gw": host_gateway,
    "flannel-ipip": ipip,
    "bridge": host_gateway,  # static routes are the same ones
}


def pod(plan: Plan, one: PodPlan) -> NetnsSetup:
    if plan.calico:
        return NetnsSetup(netns=one.netns, sysctls=POD_SYSCTLS, links=calico.pod_links(one))
    if plan.cilium:
        return NetnsSetup(netns=one.netns, sysctls=POD_SYSCTLS, links=cilium.pod_links(plan, one))
    gateway, gateway6 = plan.node(one.node).gateways
    return NetnsSetup(
        netns=one.netns,
        sysctls=POD_SYSCTLS,
        links=(
            "link set lo up",
            "link set eth0 up",
            f"addr add {one.addresses[0]}/24 dev eth0",
            f"addr add {one.addresses[1]}/64 dev eth0 nodad",
            f"route add default via {gateway} dev eth0",
            f"route add default via {gateway6} dev eth0",
        ),
    )


def resolv_conf(one: PodPlan, nameserver: str) -> str:
    """What the kubelet gives a pod with dnsPolicy ClusterFirst."""
    return (
        f"nameserver {nameserver}\n"
        f"search {one.namespace}.svc.cluster.local svc.cluster.local cluster.local\n"
        "options ndots:5\n"
    )


def flannel_rules(one: NodePlan, family: int) -> str:
    """Flannel's chains for ``iptables-restore --noflush``; ``family`` 0 is IPv4, 1 IPv6.

    The jumps are appended, as Flannel does it: kube-proxy's stand before them.
    """
    network, cidr = POD_NETWORK[family], one.pod_cidrs[family]
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

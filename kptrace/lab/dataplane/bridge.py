"""What the bridge plugin leaves on a node: the bridge, a port a pod, its masquerading; pure.

Flannel delegates to it (isDefaultGateway, hairpinMode) and masquerades itself. Alone (``--network
bridge``) it knows of no other node: the routes to them are static, as an administrator writes them,
and ``ipMasq`` gives each pod a chain that hides it behind its node from all but its own node's
pods, so that a backend elsewhere sees the node's address.

Source: containernetworking/plugins, plugins/main/bridge, pkg/ip/ipmasq_iptables_linux.go,
pkg/utils (FormatChainName, FormatComment).
"""

from __future__ import annotations

import hashlib

from kptrace.lab.address_plan import NodePlan, Plan, PodPlan
from kptrace.lab.network_objects import (
    AddAddress,
    AddLink,
    NetworkObject,
    Peer,
    SetHairpin,
    SetLink,
    up,
)

CONFIG = "pods"  # the name in the network configuration
MULTICAST = ("224.0.0.0/4", "ff00::/8")


def device(plan: Plan, node: NodePlan) -> list[NetworkObject]:
    """The bridge ``cni0`` with the node's gateway addresses."""
    return [
        AddLink(name="cni0", kind="bridge", mac=node.bridge_mac, mtu=plan.pod_mtu),
        AddAddress(device="cni0", address=f"{node.gateways[0]}/24"),
        AddAddress(device="cni0", address=f"{node.gateways[1]}/64", nodad=True),
        up("cni0"),
    ]


def port(plan: Plan, pod: PodPlan) -> list[NetworkObject]:
    """A pod's port of the bridge. Hairpin lets a pod reach itself through a Service."""
    peer = Peer(name="eth0", netns=pod.netns, mac=pod.mac, mtu=plan.pod_mtu)
    return [
        AddLink(name=pod.interface, kind="veth", mtu=plan.pod_mtu, peer=peer),
        SetLink(name=pod.interface, master="cni0"),
        SetHairpin(port=pod.interface),
        up(pod.interface),
    ]


def masquerading(plan: Plan, node: NodePlan, family: int) -> str:
    """For ``iptables-restore --noflush``; ``family`` 0 is IPv4, 1 IPv6."""
    pods = plan.pods_on(node.name)
    lines = ["*nat", *(f":{chain(pod)} - [0:0]" for pod in pods)]
    for pod in pods:
        why = f'-m comment --comment "name: \\"{CONFIG}\\" id: \\"{container(pod)}\\""'
        lines += [
            f"-A POSTROUTING -s {pod.addresses[family]} {why} -j {chain(pod)}",
            f"-A {chain(pod)} -d {node.pod_cidrs[family]} {why} -j ACCEPT",
            f"-A {chain(pod)} ! -d {MULTICAST[family]} {why} -j MASQUERADE",
        ]
    return "\n".join([*lines, "COMMIT", ""])


def container(pod: PodPlan) -> str:
    return hashlib.sha256(pod.key.encode()).hexdigest()


def chain(pod: PodPlan) -> str:
    """As long as a chain's name may be: 28 characters."""
    return f"CNI-{hashlib.sha512((CONFIG + container(pod)).encode()).hexdigest()[:24]}"

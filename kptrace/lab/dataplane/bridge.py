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

CONFIG = "pods"  # the name in the network configuration
MULTICAST = ("224.0.0.0/4", "ff00::/8")


def device(plan: Plan, one: NodePlan) -> list[str]:
    return [
        f"link add cni0 address {one.bridge_mac} mtu {plan.pod_mtu} type bridge",
        f"addr add {one.gateways[0]}/24 dev cni0",
        f"addr add {one.gateways[1]}/64 dev cni0 nodad",
        "link set cni0 up",
    ]


def port(plan: Plan, one: PodPlan) -> list[str]:
    """Hairpin lets a pod reach itself through a Service."""
    return [
        f"link add {one.interface} mtu {plan.pod_mtu} type veth"
        f" peer name eth0 address {one.mac} mtu {plan.pod_mtu} netns {one.netns}",
        f"link set {one.interface} master cni0",
        f"link set {one.interface} type bridge_slave hairpin on",
        f"link set {one.interface} up",
    ]


def masquerading(plan: Plan, one: NodePlan, family: int) -> str:
    """For ``iptables-restore --noflush``; ``family`` 0 is IPv4, 1 IPv6."""
    pods = plan.pods_on(one.name)
    lines = ["*nat", *(f":{chain(pod)} - [0:0]" for pod in pods)]
    for pod in pods:
        why = f'-m comment --comment "name: \\"{CONFIG}\\" id: \\"{container(pod)}\\""'
        lines += [
            f"-A POSTROUTING -s {pod.addresses[family]} {why} -j {chain(pod)}",
            f"-A {chain(pod)} -d {one.pod_cidrs[family]} {why} -j ACCEPT",
            f"-A {chain(pod)} ! -d {MULTICAST[family]} {why} -j MASQUERADE",
        ]
    return "\n".join([*lines, "COMMIT", ""])


def container(pod: PodPlan) -> str:
    return hashlib.sha256(pod.key.encode()).hexdigest()


def chain(pod: PodPlan) -> str:
    """As long as a chain's name may be: 28 characters."""
    return f"CNI-{hashlib.sha512((CONFIG + container(pod)).encode()).hexdigest()[:24]}"

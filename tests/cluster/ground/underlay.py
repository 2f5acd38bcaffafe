"""The network between the machines of a cluster: a bridge in the control plane's namespace.

Nodes have ``eth0`` and the control plane as their router; the machine itself has one interface,
``kpcN``, by which kubectl reaches the API server and traffic from outside reaches the nodes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from cluster.ground.plan import EXTERNAL_IP, MachinePlan, Plan
from cluster.ground.shell import attempt, run

BRIDGE = "br0"
PREFIX = (24, 64)
# of each machine's namespace; the bridge hands on frames, it does not filter them
SYSCTLS = {
    "net.ipv4.ip_forward": 1,
    "net.ipv6.conf.all.forwarding": 1,
    "net.ipv6.conf.default.accept_dad": 0,
    "net.ipv6.conf.all.accept_dad": 0,
}
ON_THE_BRIDGE = {"net.bridge.bridge-nf-call-iptables": 0, "net.bridge.bridge-nf-call-ip6tables": 0}
ON_A_NODE = {"net.bridge.bridge-nf-call-iptables": 1, "net.bridge.bridge-nf-call-ip6tables": 1}


def up(plan: Plan) -> None:
    for machine in plan.machines:
        run("ip", "netns", "add", machine.netns)
        extra = ON_THE_BRIDGE if machine == plan.control else ON_A_NODE
        settings = (f"{name}={value}" for name, value in {**SYSCTLS, **extra}.items())
        _inside(machine, "sysctl", "-q", "-w", *settings)
    _batch(plan.control, _control(plan))
    for node in plan.nodes:
        _batch(plan.control, _port(node.role, f"eth0 netns {node.netns}"))
        _batch(node, _node(plan, node))
    _batch(plan.control, _port("outside", f"{plan.outside_interface} netns {os.getpid()}"))
    _batch(None, _addressed(plan.outside_interface, plan.outside))
    # 203.0.113.10 is routed to the first node, as a router outside would do
    _batch(plan.control, [f"route add {EXTERNAL_IP} via {plan.nodes[0].addresses[0]}"])


def down(plan: Plan) -> None:
    """Whatever of it is there."""
    attempt("ip", "link", "delete", plan.outside_interface)
    for machine in plan.machines:
        attempt("ip", "netns", "delete", machine.netns)


def _control(plan: Plan) -> Iterator[str]:
    yield f"link add {BRIDGE} type bridge"
    yield from _addressed(BRIDGE, plan.control.addresses)


def _port(name: str, peer: str) -> list[str]:
    return [
        f"link add {name} type veth peer name {peer}",
        f"link set {name} master {BRIDGE} up",
    ]


def _node(plan: Plan, node: MachinePlan) -> Iterator[str]:
    yield from _addressed("eth0", node.addresses)
    for router in plan.control.addresses:
        yield f"route add default via {router} dev eth0"


def _addressed(interface: str, addresses: tuple[str, str]) -> Iterator[str]:
    yield f"link set {interface} up"
    for address, length in zip(addresses, PREFIX, strict=True):
        nodad = " nodad" if ":" in address else ""
        yield f"address add {address}/{length} dev {interface}{nodad}"


def _inside(machine: MachinePlan | None, *command: str, given: str = "") -> None:
    where = ("ip", "netns", "exec", machine.netns) if machine else ()
    run(*where, *command, given=given)


def _batch(machine: MachinePlan | None, lines: Iterator[str] | list[str]) -> None:
    _inside(machine, "ip", "-batch", "-", given="".join(f"{line}\n" for line in lines))

"""The ways in which a fault damages a lab, each with the way back.

A ``FaultAction`` looks at what stands there (``before``, kept in the state file, so that another
process can heal it), does its harm, and undoes it. ``undo`` puts back what was there and nothing
else, and it may come after an ``inflict`` that was killed half-way: what is in place already is
left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import msgspec

from kptrace.lab import host_commands, load_rules, netlink, servers, topology
from kptrace.lab.address_plan import VXLAN_PORT, NodePlan
from kptrace.lab.dataplane.calico import network
from kptrace.lab.dataplane.kubeproxy.ipvs import DEVICE
from kptrace.lab.load_rules import ProxyView
from kptrace.lab.network_objects import (
    AddAddress,
    AddFdbEntry,
    AddRoute,
    NetworkObject,
    RemoveAddress,
    RemoveFdbEntry,
    RemoveRoute,
    SetLink,
)
from kptrace.lab.state import Lab
from kptrace.lab.topology import tunnel_device
from kptrace.lab.workloads import Listener
from kptrace.model import Value

Before = dict[str, str]


class FaultAction(Protocol):
    def before(self, lab: Lab, node: NodePlan) -> Before: ...

    def apply(self, lab: Lab, node: NodePlan) -> None: ...

    def undo(self, lab: Lab, node: NodePlan, before: Before) -> None: ...


class Sysctl(Value):
    """A kernel setting of the node has another value."""

    name: str
    value: str

    def before(self, lab: Lab, node: NodePlan) -> Before:
        return {self.name: host_commands.read_sysctl(self.name, node.netns)}

    def apply(self, lab: Lab, node: NodePlan) -> None:
        host_commands.write_sysctls([(self.name, self.value)], node.netns)

    def undo(self, lab: Lab, node: NodePlan, before: Before) -> None:
        host_commands.write_sysctls(before.items(), node.netns)


class TunnelPortBlocked(Value):
    """A rule that drops the tunnel's UDP port in INPUT, for both families: as the last one, or
    as the first where the CNI's own would have accepted before.
    """

    def before(self, lab: Lab, node: NodePlan) -> Before:
        return {}

    def apply(self, lab: Lab, node: NodePlan) -> None:
        where = ("-I", "INPUT", "1") if lab.plan.calico else ("-A", "INPUT")
        for family in (0, 1):
            _iptables(lab, node, family, *where, *self._rule(lab))

    def undo(self, lab: Lab, node: NodePlan, before: Before) -> None:
        for family in (0, 1):
            with suppress(host_commands.CommandFailed):
                _iptables(lab, node, family, "-D", "INPUT", *self._rule(lab))

    def _rule(self, lab: Lab) -> tuple[str, ...]:
        port = network.VXLAN_PORT if lab.plan.calico else VXLAN_PORT
        return ("-p", "udp", "--dport", str(port), "-j", "DROP")


class FirstRule(Value):
    """An IPv4 rule before all others of a chain of ``filter``, the CNI's own among them."""

    chain: str
    rule: tuple[str, ...]

    def before(self, lab: Lab, node: NodePlan) -> Before:
        return {}

    def apply(self, lab: Lab, node: NodePlan) -> None:
        _iptables(lab, node, 0, "-I", self.chain, "1", *self.rule)

    def undo(self, lab: Lab, node: NodePlan, before: Before) -> None:
        with suppress(host_commands.CommandFailed):
            _iptables(lab, node, 0, "-D", self.chain, *self.rule)


class ForwardPolicy(Value):
    """FORWARD drops by default, and the CNI's chain no longer accepts before the policy comes.

    As on a node whose firewall was set up by somebody who knew of no pods.
    """

    policy: str
    jumps: tuple[str, ...] = ("-j FLANNEL-FWD", "-j CILIUM_FORWARD")

    def before(self, lab: Lab, node: NodePlan) -> Before:
        return {str(family): _iptables(lab, node, family, "-S", "FORWARD") for family in (0, 1)}

    def apply(self, lab: Lab, node: NodePlan) -> None:
        for family in (0, 1):
            _, netns = self._read(_iptables(lab, node, family, "-S", "FORWARD"))
            _iptables(lab, node, family, "-P", "FORWARD", self.policy)
            if netns:
                _iptables(lab, node, family, "-D", "FORWARD", str(netns))

    def undo(self, lab: Lab, node: NodePlan, before: Before) -> None:
        for family in (0, 1):
            policy, netns = self._read(before[str(family)])
            now = _iptables(lab, node, family, "-S", "FORWARD")
            _iptables(lab, node, family, "-P", "FORWARD", policy)
            if netns and not self._read(now)[1]:
                last = min(netns, now.count("\n-A ") + 1)
                jump = before[str(family)].splitlines()[netns]
                text = jump.replace("-A FORWARD", f"-I FORWARD {last}", 1)
                load_rules.restore(lab.plan, node, family, f"*filter\n{text}\nCOMMIT\n")

    def _read(self, listing: str) -> tuple[str, int]:
        """The policy, and which rule the jump is; 0 when there is none."""
        first, *lines = listing.splitlines()
        namespaces = [number for number, line in enumerate(lines, 1) if line.endswith(self.jumps)]
        return first.split()[-1], next(iter(namespaces), 0)


class Route(Value):
    """The node has no route to the pods of ``to``."""

    to: str

    def _cidr(self, lab: Lab) -> str:
        return lab.plan.pod_routes(lab.plan.node(self.to), 0)[0]

    def before(self, lab: Lab, node: NodePlan) -> Before:
        return {"routes": _encoded(netlink.routes(node.netns, destination=self._cidr(lab)))}

    def apply(self, lab: Lab, node: NodePlan) -> None:
        netlink.make([RemoveRoute(destination=self._cidr(lab))], node.netns)

    def undo(self, lab: Lab, node: NodePlan, before: Before) -> None:
        netlink.make(_decoded(before["routes"]), node.netns)


class StrictReversePath(Value):
    """The node still has a route to a pod of ``key`` as if it ran here, and its reverse path
    filter is strict: what that pod sends comes in by another interface than answers would leave by.
    """

    key: str

    def before(self, lab: Lab, node: NodePlan) -> Before:
        name = self._sysctl(lab)
        return {name: host_commands.read_sysctl(name, node.netns)}

    def apply(self, lab: Lab, node: NodePlan) -> None:
        netlink.make([self._route(lab, node)], node.netns)
        host_commands.write_sysctls([(self._sysctl(lab), "1")], node.netns)

    def undo(self, lab: Lab, node: NodePlan, before: Before) -> None:
        host_commands.write_sysctls(before.items(), node.netns)
        route = self._route(lab, node)
        with suppress(netlink.NetworkObjectError):
            netlink.make(
                [RemoveRoute(destination=route.destination, device=route.device)], node.netns
            )

    def _sysctl(self, lab: Lab) -> str:
        near = lab.plan.network == "calico-crosssubnet"  # no tunnel between the first two nodes
        device = "eth0" if near else tunnel_device(lab.plan) or "eth0"
        return f"net.ipv4.conf.{device.replace('.', '/')}.rp_filter"

    def _route(self, lab: Lab, node: NodePlan) -> AddRoute:
        """On a bridge, or over the veth of a pod that has the address no more."""
        routed = lab.plan.calico or lab.plan.cilium
        device = lab.plan.pods_on(node.name)[0].interface if routed else "cni0"
        address = lab.plan.pod(self.key).addresses[0]
        return AddRoute(destination=f"{address}/32", device=device, link_scope=True)


class TunnelDown(Value):
    """The node's tunnel device is down; the kernel takes the routes over it away."""

    def before(self, lab: Lab, node: NodePlan) -> Before:
        device = topology.tunnel_device(lab.plan)
        return {"routes": _encoded(netlink.routes(node.netns, device=device))}

    def apply(self, lab: Lab, node: NodePlan) -> None:
        netlink.make([SetLink(name=topology.tunnel_device(lab.plan), up=False)], node.netns)

    def undo(self, lab: Lab, node: NodePlan, before: Before) -> None:
        device = SetLink(name=topology.tunnel_device(lab.plan), up=True)
        netlink.make([device, *_decoded(before["routes"])], node.netns)


class ServiceAddress(Value):
    """A Service's address is missing on kube-ipvs0, so packets for it are not the node's own."""

    address: str

    def before(self, lab: Lab, node: NodePlan) -> Before:
        return {}

    def apply(self, lab: Lab, node: NodePlan) -> None:
        netlink.make([RemoveAddress(device=DEVICE, address=f"{self.address}/32")], node.netns)

    def undo(self, lab: Lab, node: NodePlan, before: Before) -> None:
        netlink.make([AddAddress(device=DEVICE, address=f"{self.address}/32")], node.netns)


class ServerWeight(Value):
    """Every server of a virtual service (TCP) has another weight."""

    service: str
    weight: int

    def before(self, lab: Lab, node: NodePlan) -> Before:
        listed = host_commands.run(("ipvsadm", "--save", "-n"), netns=node.netns)
        start = f"-a -t {self.service} "
        servers = [line for line in listed.splitlines() if line.startswith(start)]
        return {"servers": "\n".join(servers)}

    def apply(self, lab: Lab, node: NodePlan) -> None:
        for line in self.before(lab, node)["servers"].splitlines():
            *arguments, _ = line.split()
            self._edit(node, [*arguments, str(self.weight)])

    def undo(self, lab: Lab, node: NodePlan, before: Before) -> None:
        for line in before["servers"].splitlines():
            self._edit(node, line.split())

    def _edit(self, node: NodePlan, arguments: list[str]) -> None:
        host_commands.run(("ipvsadm", "-e", *arguments[1:]), netns=node.netns)


class Fdb(Value):
    """The tunnel's entry for ``to`` leads to another address, or is gone when ``dst`` is empty."""

    to: str
    dst: str = ""

    def before(self, lab: Lab, node: NodePlan) -> Before:
        mac, device = self._key(lab)
        return {"destination": netlink.fdb_destination(node.netns, device, mac)}

    def apply(self, lab: Lab, node: NodePlan) -> None:
        mac, device = self._key(lab)
        if self.dst:
            entry: NetworkObject = AddFdbEntry(mac=mac, device=device, destination=self.dst)
        else:
            entry = RemoveFdbEntry(mac=mac, device=device)
        netlink.make([entry], node.netns)

    def undo(self, lab: Lab, node: NodePlan, before: Before) -> None:
        mac, device = self._key(lab)
        entry = AddFdbEntry(mac=mac, device=device, destination=before["destination"])
        netlink.make([entry], node.netns)

    def _key(self, lab: Lab) -> tuple[str, str]:
        """The entry's MAC and device."""
        return lab.plan.node(self.to).vtep_macs[0], tunnel_device(lab.plan)


class ClosedPort(Value):
    """The pod runs, but nothing listens on its port."""

    pod: str
    listener: Listener

    def before(self, lab: Lab, node: NodePlan) -> Before:
        return {}

    def apply(self, lab: Lab, node: NodePlan) -> None:
        self._order(lab, "close")

    def undo(self, lab: Lab, node: NodePlan, before: Before) -> None:
        self._order(lab, "open")

    def _order(self, lab: Lab, do: servers.Doing) -> None:
        order = servers.ServerCommand(
            do=do, pod=self.pod, protocol=self.listener.protocol, port=self.listener.port
        )
        servers.control(lab, order)


class StaleProxyView(Value):
    """kube-proxy writes rules for a cluster that is not as the API says (or the API itself lies).

    believe: from the view of the healthy cluster to the one that the node has
    everywhere: on all nodes, because the API says so too
    """

    believe: Callable[[ProxyView], ProxyView]
    everywhere: bool = False

    def before(self, lab: Lab, node: NodePlan) -> Before:
        return {}

    def apply(self, lab: Lab, node: NodePlan) -> None:
        true = load_rules.healthy(lab.plan)
        for target in self._nodes(lab, node):
            load_rules.reload(lab.plan, target, true, self.believe(true))

    def undo(self, lab: Lab, node: NodePlan, before: Before) -> None:
        true = load_rules.healthy(lab.plan)
        for target in self._nodes(lab, node):
            load_rules.reload(lab.plan, target, self.believe(true), true)

    def _nodes(self, lab: Lab, node: NodePlan) -> tuple[NodePlan, ...]:
        return lab.plan.nodes if self.everywhere else (node,)


def _encoded(routes: tuple[AddRoute, ...]) -> str:
    return msgspec.json.encode(routes).decode()


def _decoded(text: str) -> tuple[AddRoute, ...]:
    return msgspec.json.decode(text, type=tuple[AddRoute, ...])


def _iptables(lab: Lab, node: NodePlan, family: int, *arguments: str) -> str:
    program = host_commands.iptables(lab.plan.proxy, family)
    return host_commands.run((program, "--wait", *arguments), netns=node.netns)

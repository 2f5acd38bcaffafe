"""Which rules stand on a node, and how they get there.

kube-proxy's part is a function of what a node believes of the cluster: its ``ProxyView``, which is
the API's word unless a fault says otherwise. Loading is what kube-proxy does: its own chains are
emptied and filled in one ``iptables-restore --noflush`` and those that it no longer has are deleted
(the nftables table is replaced in one transaction, of IPVS and ipsets only the difference is), so
that nobody else's rule is touched and a second loading of the same view changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from kptrace.kube.objects.cluster_state import read_cluster_state
from kptrace.lab import host_commands, manifests, netlink, network_policy, socket_lb, topology
from kptrace.lab.address_plan import POD_NETWORK, SERVICE_NETWORK, NodePlan, Plan
from kptrace.lab.dataplane import bridge
from kptrace.lab.dataplane.calico import rules
from kptrace.lab.dataplane.cilium import network
from kptrace.lab.dataplane.kubeproxy.load import COMMANDS, FAMILIES, LoadCommand, Mode, loads
from kptrace.lab.dataplane.kubeproxy.service_port import ProxyNode
from kptrace.lab.network_objects import AddAddress, NetworkObject, RemoveAddress
from kptrace.model import Endpoint, Service, Value


class ProxyView(Value):
    """The Services and endpoints that a node's kube-proxy knows of."""

    services: tuple[Service, ...]
    endpoints: dict[str, tuple[Endpoint, ...]]


def healthy(plan: Plan) -> ProxyView:
    cluster_state = read_cluster_state(manifests.documents(plan))
    return ProxyView(services=cluster_state.services, endpoints=cluster_state.endpoints)


def install(plan: Plan, node: NodePlan, view: ProxyView) -> None:
    """Everything on a node without rules: kube-proxy's, then the CNI's."""
    if plan.cilium:
        socket_lb.install(plan, node, _proxy_node(plan, node), _cluster(view))
        for family, _ in enumerate(FAMILIES):
            restore(plan, node, family, network.rules(node, family))
        return
    for load in _loads(plan, node, view):
        netlink.make(load.objects, node.netns)
        _run(load.command, load.text, node)
    for family, _ in enumerate(FAMILIES):
        if plan.calico:
            policies = network_policy.healthy(plan)
            _run(("ipset", "restore"), rules.ipsets(plan, node, family, policies), node)
            restore(plan, node, family, rules.rules(plan, node, family, policies))
        elif plan.network == "bridge":
            restore(plan, node, family, bridge.masquerading(plan, node, family))
        else:
            restore(plan, node, family, topology.flannel_rules(node, family))


def reload(plan: Plan, node: NodePlan, old: ProxyView, new: ProxyView) -> None:
    """From one view to another on a node that has rules."""
    if plan.cilium:
        proxy = _proxy_node(plan, node)
        socket_lb.reload(plan, node, proxy, _cluster(old), _cluster(new))
        return
    before, after = (_loads(plan, node, view, again=True) for view in (old, new))
    for was, load in zip(before, after, strict=True):
        netlink.make(_changed_addresses(was.objects, load.objects), node.netns)
        if load.command:
            _run(load.command, _changed(was, load), node)


def _run(command: tuple[str, ...], text: str, node: NodePlan) -> None:
    if text:
        host_commands.run(command, text, node.netns)


def _changed_addresses(
    was: tuple[AddAddress, ...], now: tuple[AddAddress, ...]
) -> list[NetworkObject]:
    gone = [
        RemoveAddress(device=entry.device, address=entry.address)
        for entry in was
        if entry not in now
    ]
    return [*gone, *(entry for entry in now if entry not in was)]


def _changed(was: LoadCommand, load: LoadCommand) -> str:
    """What makes of one loaded text the other."""
    if load.command[0] == "nft":
        return load.text
    if load.command[0] in INVERSE:
        return difference(was, load)
    return with_deletions(was.text, load.text)


# how a line of the program's language is taken back
INVERSE: dict[str, Callable[[list[str]], list[str]]] = {
    "ipset": lambda line: ["del", *line[1:]] if line[0] == "add" else [],
    # -A -t ADDRESS ... and -a -t ADDRESS -r SERVER ...
    "ipvsadm": lambda line: ["-D", *line[1:3]] if line[0] == "-A" else ["-d", *line[1:5]],
}


def difference(was: LoadCommand, load: LoadCommand) -> str:
    """Take back what is in the first alone, servers before their services, then add the rest."""
    before, after = was.text.splitlines(), load.text.splitlines()
    undo = INVERSE[load.command[0]]
    gone = [undo(line.split()) for line in reversed(before) if line not in set(after)]
    fresh = [line for line in after if line not in set(before)]
    return "".join(f"{line}\n" for line in (*map(" ".join, filter(None, gone)), *fresh))


def with_deletions(before: str, after: str) -> str:
    """``after``, and the chains that only ``before`` has emptied and deleted at the end."""
    gone = chains(before).keys() - chains(after).keys()
    lines: list[str] = []
    table = ""
    for line in after.splitlines():
        if line.startswith("*"):
            table = line[1:]
            lines.append(line)
            lines += sorted(f":{chain} - [0:0]" for owner, chain in gone if owner == table)
        elif line == "COMMIT":
            lines += sorted(f"-X {chain}" for owner, chain in gone if owner == table)
            lines.append(line)
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def chains(text: str) -> dict[tuple[str, str], None]:
    """(table, chain) of every chain that an iptables-restore text declares."""
    chains: dict[tuple[str, str], None] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            chains[table, line[1:].split()[0]] = None
    return chains


def restore(plan: Plan, node: NodePlan, family: int, text: str) -> None:
    """A text for iptables-restore, by the backend that this lab uses."""
    backend: Mode = "iptables" if plan.proxy == "nftables" or plan.proxy == "cilium" else plan.proxy
    host_commands.run(COMMANDS[backend, FAMILIES[family]], text, node.netns)


def _loads(
    plan: Plan, node: NodePlan, view: ProxyView, *, again: bool = False
) -> tuple[LoadCommand, ...]:
    assert plan.proxy != "cilium"  # it has no rules (socket_lb.py)
    return loads(
        plan.proxy,
        view.services,
        view.endpoints,
        _proxy_node(plan, node),
        scheduler=plan.scheduler,
        again=again,
    )


def _cluster(view: ProxyView) -> socket_lb.Cluster:
    return view.services, view.endpoints


def _proxy_node(plan: Plan, node: NodePlan) -> ProxyNode:
    return ProxyNode(
        name=node.name,
        addresses=node.addresses,
        zone=node.zone,
        cluster_cidrs=POD_NETWORK,
        service_cidrs=SERVICE_NETWORK,
        node_port_addresses=plan.local_addresses(node),
    )

"""Which rules stand on a node, and how they get there.

kube-proxy's part is a function of what a node believes of the cluster: its ``View``, which is the
API's word unless a fault says otherwise. Loading is what kube-proxy does: its own chains are
emptied and filled in one ``iptables-restore --noflush`` and those that it no longer has are deleted
(the nftables table is replaced in one transaction), so that nobody else's rule is touched and a
second loading of the same view changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kptrace.kube.documents import read_documents
from kptrace.lab import machine, manifests, topology
from kptrace.lab.plan import POD_NETWORK, SERVICE_NETWORK, NodePlan, Plan
from kptrace.lab.proxy import iptables, nftables
from kptrace.lab.proxy.port import ProxyNode
from kptrace.model import Endpoint, Service, Value
from kptrace.rules.programmed import Family

FAMILIES: tuple[Family, ...] = ("ip", "ip6")


class View(Value):
    """The Services and endpoints that a node's kube-proxy knows of."""

    services: tuple[Service, ...]
    endpoints: dict[str, tuple[Endpoint, ...]]


def healthy(plan: Plan) -> View:
    documents = read_documents(manifests.documents(plan))
    return View(services=documents.services, endpoints=documents.endpoints)


def install(plan: Plan, node: NodePlan, view: View) -> None:
    """Everything on a node without rules: kube-proxy's, then Flannel's behind them."""
    load(plan, node, view)
    for family, _ in enumerate(FAMILIES):
        restore(plan, node, family, topology.flannel_rules(node, family))


def load(plan: Plan, node: NodePlan, view: View) -> None:
    if plan.proxy == "nftables":
        text = "".join(nftables.render(*_of(plan, node, view), family) for family in FAMILIES)
        machine.run(("nft", "-f", "-"), text, node.netns)
        return
    for number, family in enumerate(FAMILIES):
        restore(plan, node, number, iptables.render(*_of(plan, node, view), family))


def reload(plan: Plan, node: NodePlan, old: View, new: View) -> None:
    """From one view to another on a node that has rules."""
    if plan.proxy == "nftables":
        load(plan, node, new)
        return
    for number, family in enumerate(FAMILIES):
        before = iptables.render(*_of(plan, node, old), family, jumps=False)
        after = iptables.render(*_of(plan, node, new), family, jumps=False)
        restore(plan, node, number, with_deletions(before, after))


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
    found: dict[tuple[str, str], None] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            found[table, line[1:].split()[0]] = None
    return found


def restore(plan: Plan, node: NodePlan, family: int, text: str) -> None:
    program = machine.iptables(plan.proxy, family, "restore")
    machine.run((program, "--noflush"), text, node.netns)


def _of(
    plan: Plan, node: NodePlan, view: View
) -> tuple[Sequence[Service], Mapping[str, Sequence[Endpoint]], ProxyNode]:
    return (
        view.services,
        view.endpoints,
        ProxyNode(
            name=node.name,
            addresses=node.addresses,
            zone=node.zone,
            cluster_cidrs=POD_NETWORK,
            service_cidrs=SERVICE_NETWORK,
        ),
    )

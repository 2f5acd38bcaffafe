"""Who translates Services on a node, and whether more than one does.

In: the node's snapshot. Out: the proxy by what it left in the kernel, and a Finding where two sets
of service rules stand beside each other: after a change of kube-proxy's mode or of the iptables
backend the old rules stay, both hang on the same hook, and the table that was loaded last wins
(nf_nat asks one after the other until a translation is set up).
"""

from __future__ import annotations

from collections.abc import Iterator

from kptrace.model import Finding, Proxy
from kptrace.rules.ruleset import Ruleset, Table
from kptrace.walk.snapshot import Snapshot

NFTABLES = "kube-proxy"
IPTABLES_CHAIN = "KUBE-SERVICES"
CILIUM_LINK = "cilium_host"
_BACKENDS = {"legacy": "iptables-legacy", "nft": "iptables-nft"}
_PROGRAMS = {"ip": "iptables", "ip6": "ip6tables"}


def proxy_of(snapshot: Snapshot) -> Proxy:
    found = translators(snapshot.ruleset)
    if snapshot.ruleset.ipvs:
        return "ipvs"
    if any(table.name == NFTABLES for table in found):
        return "nftables"
    if found:
        return "iptables"
    return "cilium" if snapshot.link(CILIUM_LINK) else "none"


def translators(ruleset: Ruleset) -> list[Table]:
    """The tables that hold rules for Services."""
    return [table for table in ruleset.tables() if _translates(ruleset, table)]


def _translates(ruleset: Ruleset, table: Table) -> bool:
    if table.name == NFTABLES:
        return table.backend == "nft"
    chain = ruleset.chain(table, IPTABLES_CHAIN) if table.name == "nat" else None
    return chain is not None and len(chain.rules) > 0


def rivals(node: str, ruleset: Ruleset) -> Iterator[Finding]:
    found = translators(ruleset)
    for family in ("ip", "ip6"):
        tables = [table for table in found if table.family == family]
        if len(tables) < 2:
            continue
        names = [_name(table) for table in tables]
        yield Finding(
            cause="two-nat-tables",
            severity="warning",
            node=node,
            object=" and ".join(names),
            summary=f"{node} has rules for Services in both {' and '.join(names)}: "
            "the table that was loaded last wins",
            evidence=tuple(map(_rules_words, tables)),
            remedy=("clear the one that is not in use, on that node:", *map(_clear, tables)),
        )


def _name(table: Table) -> str:
    if table.name == NFTABLES:
        return f"table {table.family} {NFTABLES}"
    return f"{_BACKENDS[table.backend]} {table.name}"


def _rules_words(table: Table) -> str:
    if table.name == NFTABLES:
        return f"kube-proxy in nftables mode wrote {_name(table)}"
    return f"kube-proxy in iptables mode wrote {IPTABLES_CHAIN} in {_name(table)}"


def _clear(table: Table) -> str:
    if table.name == NFTABLES:
        return f"nft delete table {table.family} {NFTABLES}"
    program = f"{_PROGRAMS[table.family]}-{table.backend}"
    return f"{program}-save | grep -v KUBE- | {program}-restore"

"""Two sets of Service rules beside each other on one node.

After a change of kube-proxy's mode or of the iptables backend the old rules stay, both hang on the
same hook, and the table that was loaded last wins (nf_nat asks one after the other until a
translation is set up).
"""

from __future__ import annotations

from collections.abc import Iterator

from kptrace.model import Finding
from kptrace.rules.model.ruleset import Ruleset, Table
from kptrace.simulate.snapshot.proxy_mode import IPTABLES_CHAIN, NFTABLES, service_tables

_BACKENDS = {"legacy": "iptables-legacy", "nft": "iptables-nft"}
_PROGRAMS = {"ip": "iptables", "ip6": "ip6tables"}


def conflicting_proxies(node: str, ruleset: Ruleset) -> Iterator[Finding]:
    candidates = service_tables(ruleset)
    for family in ("ip", "ip6"):
        tables = [table for table in candidates if table.family == family]
        if len(tables) < 2:
            continue
        names = [_name(table) for table in tables]
        yield Finding(
            cause="conflicting-nat-tables",
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

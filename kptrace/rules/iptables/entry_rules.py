"""Assume the rules by which packets get to kube-proxy's chains, if a text lacks them.

Who pastes KUBE-SERVICES and the chains behind it leaves out PREROUTING, and the input that
kube-proxy gives to iptables-restore does not hold it: kube-proxy inserts these rules apart
(proxier.go, iptablesJumpChains). They are the same on every node, so they are added where the chain
that they lead to is in the text and the built-in chain is not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from kptrace.rules.iptables.save_text import RuleLine, TableText


class EntryRule(NamedTuple):
    """A rule of a built-in chain that leads to one of kube-proxy's."""

    table: str
    chain: str
    target: str
    comment: str
    new_only: bool = False

    @property
    def text(self) -> str:
        state = "-m conntrack --ctstate NEW " if self.new_only else ""
        return f'{state}-m comment --comment "{self.comment}" -j {self.target}'


_PORTALS = "kubernetes service portals"
_EXTERNAL = "kubernetes externally-visible service portals"
_BALANCERS = "kubernetes load balancer firewall"
ENTRY_RULES = (
    EntryRule("nat", "PREROUTING", "KUBE-SERVICES", _PORTALS),
    EntryRule("nat", "OUTPUT", "KUBE-SERVICES", _PORTALS),
    EntryRule("nat", "POSTROUTING", "KUBE-POSTROUTING", "kubernetes postrouting rules"),
    EntryRule("filter", "INPUT", "KUBE-EXTERNAL-SERVICES", _EXTERNAL, True),
    EntryRule("filter", "FORWARD", "KUBE-EXTERNAL-SERVICES", _EXTERNAL, True),
    EntryRule("filter", "INPUT", "KUBE-NODEPORTS", "kubernetes health check service ports"),
    EntryRule("filter", "FORWARD", "KUBE-SERVICES", _PORTALS, True),
    EntryRule("filter", "OUTPUT", "KUBE-SERVICES", _PORTALS, True),
    EntryRule("filter", "FORWARD", "KUBE-FORWARD", "kubernetes forwarding rules"),
    EntryRule("filter", "INPUT", "KUBE-PROXY-FIREWALL", _BALANCERS, True),
    EntryRule("filter", "FORWARD", "KUBE-PROXY-FIREWALL", _BALANCERS, True),
    EntryRule("filter", "OUTPUT", "KUBE-PROXY-FIREWALL", _BALANCERS, True),
)


def add_entry_rules(tables: Iterable[TableText]) -> None:
    """Add the entry rules that the tables lack to them. A table that is whole stays as it is."""
    for table in tables:
        if table.whole:
            continue
        chains = table.declarations.keys() | {rule.chain for rule in table.rules}
        shown = {rule.chain for rule in table.rules} | table.declarations.keys()
        for entry in ENTRY_RULES:
            if entry.table == table.name and entry.target in chains and entry.chain not in shown:
                table.declare(entry.chain, "ACCEPT")
                table.rules.append(RuleLine(entry.chain, entry.text))

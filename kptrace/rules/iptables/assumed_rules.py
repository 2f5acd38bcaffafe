"""Assume rules of kube-proxy that a text lacks and that are the same on every node.

A paste of KUBE-SERVICES and the chains that follow it lacks PREROUTING, and so does the input that
kube-proxy gives to iptables-restore: kube-proxy inserts these rules separately (proxier.go,
iptablesJumpChains). They are added if the chain that they lead to is in the text and the built-in
chain is not. Added too, if a rule jumps to them and they are not in the text: the chains that mark
and masquerade, with kube-proxy's default mark, and the chain of an endpoint that the comment of the
jump names (``default/web -> 10.244.0.5:8080``).
"""

from __future__ import annotations

import re
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


_OF_CLUSTER_IP = re.compile(r"(?:! -s \S+ )?(-d \S+ .*) -j KUBE-MARK-MASQ")
_TO_ENDPOINT = re.compile(
    r'.*--comment "[^"]* -> (?P<address>[0-9.]+|\[[0-9a-fA-F:]+\]):(?P<port>\d+)"'
    r".* -j (?P<chain>KUBE-SEP-\w+)"
)
_MAX_LENGTH = 2000  # characters; the pattern above tries each comment of a rule
_JUMP = re.compile(r".*-[jg] (KUBE-(?:MARK-MASQ|POSTROUTING))")
# as kube-proxy writes them with its default iptables.masqueradeBit, 14
_MASQUERADE = {
    "KUBE-MARK-MASQ": ("-j MARK --set-xmark 0x4000/0x4000",),
    "KUBE-POSTROUTING": (
        "-m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-j MARK --set-xmark 0x4000/0x0",
        '-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE '
        "--random-fully",
    ),
}


def add_assumed_rules(tables: Iterable[TableText]) -> None:
    """Add the rules that the tables lack to them. A table that is whole stays as it is."""
    for table in tables:
        if table.whole:
            continue
        if table.name == "nat":
            table.rules += _service_rules(table)
            table.rules += _endpoint_rules(table)
            table.rules += _masquerade_rules(table)
        chains = _chains(table)
        for entry in ENTRY_RULES:
            if entry.table == table.name and entry.target in chains and entry.chain not in chains:
                table.declare(entry.chain, "ACCEPT")
                table.rules.append(RuleLine(entry.chain, entry.text))


def _chains(table: TableText) -> frozenset[str]:
    return frozenset(table.declarations) | {rule.chain for rule in table.rules}


def _service_rules(table: TableText) -> list[RuleLine]:
    """The rules of KUBE-SERVICES, if that is not shown, for the Services whose chains are.

    A Service's chain begins with a rule that masquerades clients outside the pods' range, with the
    same ClusterIP, protocol, comment and port as its rule in KUBE-SERVICES (proxier.go).
    """
    if any(rule.chain == "KUBE-SERVICES" for rule in table.rules):
        return []
    rules = []
    for rule in table.rules:
        match = _OF_CLUSTER_IP.fullmatch(rule.text)
        if match and rule.chain.startswith(("KUBE-SVC-", "KUBE-SVL-")) and "cluster IP" in match[1]:
            rules.append(RuleLine("KUBE-SERVICES", f"{match[1]} -j {rule.chain}"))
    return rules


def _endpoint_rules(table: TableText) -> list[RuleLine]:
    """The chains of endpoints that are not shown, by the comments of the rules that lead there."""
    shown = set(_chains(table))
    rules = []
    for rule in table.rules:
        short = len(rule.text) <= _MAX_LENGTH
        match = _TO_ENDPOINT.fullmatch(rule.text) if short else None
        if match is None or match["chain"] in shown:
            continue
        shown.add(match["chain"])
        address = match["address"].strip("[]")
        length = 128 if ":" in address else 32
        to = f"--to-destination {match['address']}:{match['port']}"
        rules.append(RuleLine(match["chain"], f"-s {address}/{length} -j KUBE-MARK-MASQ"))
        rules.append(RuleLine(match["chain"], f"-j DNAT {to}"))
    return rules


def _masquerade_rules(table: TableText) -> list[RuleLine]:
    """The chains that mark and masquerade, if a rule needs them and they are not shown."""
    shown = _chains(table)
    needed = {match[1] for rule in table.rules if (match := _JUMP.fullmatch(rule.text))}
    if "KUBE-MARK-MASQ" in needed and "KUBE-MARK-MASQ" not in shown:
        needed.add("KUBE-POSTROUTING")
    return [
        RuleLine(chain, text) for chain in sorted(needed - shown) for text in _MASQUERADE[chain]
    ]

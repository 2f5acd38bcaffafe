"""The chains that the kernel itself calls in iptables' tables: their hooks, priorities and types.

Sources: net/ipv4/netfilter/iptable_*.c and nf_nat_ip_priorities for iptables-legacy, the table
definitions in iptables/nft.c for iptables-nft.
"""

from __future__ import annotations

from typing import Literal

from kptrace.rules.model.ruleset import Table

Backend = Literal["legacy", "nft"]

HOOKS = {
    "PREROUTING": "prerouting",
    "INPUT": "input",
    "FORWARD": "forward",
    "OUTPUT": "output",
    "POSTROUTING": "postrouting",
}
BUILT_IN_CHAINS = tuple(HOOKS)
# table -> its chains, in iptables' order
TABLE_CHAINS = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": BUILT_IN_CHAINS,
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}
PRIORITIES = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}
_NFT_SECURITY = 150  # iptables-nft's own number for it (iptables/nft.c), behind source NAT
_SOURCE_NAT = 100  # nat in INPUT and POSTROUTING


def priority_of(table: Table, hook: str) -> int:
    """The priority of a table's chain at a hook; 0 for a table that is not iptables' own."""
    if table.name == "nat" and hook in ("input", "postrouting"):
        return _SOURCE_NAT
    if table.name == "security" and table.backend == "nft":
        return _NFT_SECURITY
    return PRIORITIES.get(table.name, 0)


def type_of(table: str, hook: str) -> str:
    """The nf_tables chain type (``filter``, ``nat``, ``route``) of a table's chain at a hook."""
    if table == "nat":
        return "nat"
    return "route" if table == "mangle" and hook == "output" else "filter"

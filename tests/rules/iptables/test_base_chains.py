"""Where the kernel calls the chains of iptables' tables."""

from __future__ import annotations

import pytest

from kptrace.rules.iptables.base_chains import Backend, priority_of, type_of
from kptrace.rules.model.ruleset import Table

# nf_nat_ip_priorities, iptable_*.c, iptables/nft.c
PLACES: list[tuple[Backend, str, str, int, str]] = [
    ("legacy", "raw", "prerouting", -300, "filter"),
    ("legacy", "mangle", "output", -150, "route"),
    ("legacy", "mangle", "forward", -150, "filter"),
    ("nft", "nat", "prerouting", -100, "nat"),
    ("nft", "nat", "output", -100, "nat"),
    ("legacy", "nat", "input", 100, "nat"),
    ("legacy", "nat", "postrouting", 100, "nat"),
    ("legacy", "filter", "forward", 0, "filter"),
    ("legacy", "security", "input", 50, "filter"),
    ("nft", "security", "input", 150, "filter"),
]


@pytest.mark.parametrize(("backend", "table", "hook", "priority", "kind"), PLACES)
def test_priority_and_type(
    backend: Backend, table: str, hook: str, priority: int, kind: str
) -> None:
    assert priority_of(Table(backend=backend, family="ip", name=table), hook) == priority
    assert type_of(table, hook) == kind

"""The packet fields that an ipset's directions mean, by the type of the set."""

from __future__ import annotations

import pytest
from support.rule_parts import f, find_set

from kptrace.rules.iptables.ipset_match import ipset_key
from kptrace.rules.iptables.options import Context
from kptrace.rules.model.expressions import Concat, Expr, UnknownExpr

CONTEXT = Context(family="ip", ipset=find_set)
KEYS: list[tuple[str, str, Expr]] = [
    ("nets", "src", f("ip saddr")),
    ("ports", "dst", f("th dport")),
    ("svc", "dst,dst", Concat(parts=(f("ip daddr"), f("meta l4proto"), f("th dport")))),
    (
        "loop",
        "dst,dst,src",
        Concat(parts=(f("ip daddr"), f("meta l4proto"), f("th dport"), f("ip saddr"))),
    ),
    ("iface", "src,dst", Concat(parts=(f("ip saddr"), f("meta oifname")))),
    ("svc", "dst", f("ip daddr")),
    ("gone", "src,dst", UnknownExpr(text="src,dst")),
]


@pytest.mark.parametrize(("name", "directions", "key"), KEYS)
def test_key(name: str, directions: str, key: Expr) -> None:
    assert ipset_key(CONTEXT, name, directions.split(",")) == key

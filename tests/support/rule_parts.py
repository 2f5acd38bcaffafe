"""Short names for the parts of rules, and a parser for one iptables rule, for tests."""

from __future__ import annotations

from kptrace.rules.iptables.parse_rule import ParsedRule, parse_rule_args
from kptrace.rules.iptables.save import split_args
from kptrace.rules.model.expressions import (
    AnonymousSet,
    BitwiseExpr,
    Comparison,
    Const,
    Expr,
    Field,
)
from kptrace.rules.model.sets import Set, SetElements

SETS = {
    "svc": ("ipv4_addr", "inet_proto", "inet_service"),
    "loop": ("ipv4_addr", "inet_proto", "inet_service", "ipv4_addr"),
    "ports": ("inet_service",),
    "nets": ("ipv4_addr",),
    "iface": ("ipv4_addr", "ifname"),
}


def find_set(name: str) -> Set | None:
    if name not in SETS:
        return None
    return Set(name=name, kind="set", type=SETS[name], members=SetElements())


def compiled(text: str, family: str = "ip") -> ParsedRule:
    chains = {"KUBE-SVC-X", "KUBE-MARK-MASQ"}
    return parse_rule_args(split_args(text), family, chains.__contains__, find_set)


def f(key: str) -> Field:
    return Field(key=key)


def c(value: str | int) -> Const:
    return Const(value=value)


def equal(key: str, value: str | int) -> Comparison:
    return Comparison(left=f(key), op="==", right=c(value))


def bits(op: str, left: Expr, right: Expr | int) -> BitwiseExpr:
    return BitwiseExpr(op=op, left=left, right=c(right) if isinstance(right, int) else right)  # type: ignore[arg-type]


def names(*values: str) -> AnonymousSet:
    return AnonymousSet(items=tuple(c(value) for value in values))

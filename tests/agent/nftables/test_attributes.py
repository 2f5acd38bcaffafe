"""Netlink attributes of nf_tables as trees of named values."""

from __future__ import annotations

from support.nft_messages import compare, expression, rule

from kptrace.agent.netlink.socket import attribute, be32, nested, text
from kptrace.agent.nftables.attributes import CHAIN, RULE, tree

ACCEPT = expression("immediate", be32(1, 0), nested(2, nested(2, be32(1, 1))))
JUMP = expression(
    "immediate", be32(1, 0), nested(2, nested(2, be32(1, -3 & 0xFFFFFFFF), text(2, "X")))
)
PROTOCOL = (expression("meta", be32(2, 16), be32(1, 1)), compare(b"\x06"))
COUNTER = expression("counter", attribute(1, bytes(8)), attribute(2, bytes(8)))


def test_a_rule() -> None:
    told = tree(rule(*PROTOCOL, COUNTER, JUMP)[4:], RULE)
    assert told == {
        "table": "nat",
        "chain": "KUBE-SERVICES",
        "handle": 5,
        "expressions": [
            {"meta": {"key": 16, "dreg": 1}},
            {"cmp": {"sreg": 1, "op": 0, "data": "06"}},
            {"counter": {"bytes": 0, "packets": 0}},
            {"immediate": {"dreg": 0, "data": {"code": -3, "chain": "X"}}},
        ],
    }


def test_a_base_chain() -> None:
    hook = nested(4, be32(1, 0), be32(2, -100 & 0xFFFFFFFF))
    told = tree(text(3, "PREROUTING") + hook + be32(5, 1) + text(7, "nat"), CHAIN)
    assert told == {
        "name": "PREROUTING",
        "hook": {"hooknum": 0, "priority": -100},
        "policy": 1,
        "type": "nat",
    }


def test_what_no_schema_knows_is_kept() -> None:
    assert tree(attribute(99, b"ab"), RULE) == {"attribute 99": "6162"}
    told = tree(nested(4, expression("new", be32(1, 7))), RULE)
    assert told == {"expressions": [{"new": {"attribute 1": "00000007"}}]}


def test_cut_bytes_end_where_they_do_not_add_up() -> None:
    whole = rule(*PROTOCOL, ACCEPT)[4:]
    for end in range(len(whole)):
        tree(whole[:end], RULE)

"""Statements of nft's text in the JSON of nft."""

from __future__ import annotations

import pytest

from kptrace.rules.nftables.text_statements import Json, rule_statements
from kptrace.rules.nftables.text_tokens import Tokens

STATE = {"ct": {"key": "state"}}
PORT = {"payload": {"protocol": "tcp", "field": "dport"}}
STATEMENTS = [
    (
        "ct state new,established",
        {"match": {"op": "in", "left": STATE, "right": ["new", "established"]}},
    ),
    ("ct state != new", {"match": {"op": "!=", "left": STATE, "right": "new"}}),
    ("tcp dport 80", {"match": {"op": "==", "left": PORT, "right": 80}}),
    ("tcp dport { 80, 90 }", {"match": {"op": "==", "left": PORT, "right": {"set": [80, 90]}}}),
    ("tcp dport vmap @m", {"vmap": {"key": PORT, "data": "@m"}}),
    ("meta mark set 0x1", {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 1}}),
    ("dnat to 10.0.0.1:80", {"dnat": {"addr": "10.0.0.1", "port": 80}}),
    ("dnat ip6 to [fd00::1]:80", {"dnat": {"family": "ip6", "addr": "fd00::1", "port": 80}}),
    ("dnat to :80", {"dnat": {"port": 80}}),
    ("masquerade fully-random", {"masquerade": {"flags": "fully-random"}}),
    ("masquerade", {"masquerade": None}),
    ("redirect to :6-8 random", {"redirect": {"port": {"range": [6, 8]}, "flags": "random"}}),
    ("reject", {"reject": {"type": "icmp", "expr": "port-unreachable"}}),
    ("reject with tcp reset", {"reject": {"type": "tcp reset"}}),
    (
        "reject with icmp type host-unreachable",
        {"reject": {"type": "icmp", "expr": "host-unreachable"}},
    ),
    ("counter packets 1 bytes 60", {"counter": {"packets": 1, "bytes": 60}}),
    ("counter", {"counter": None}),
    (
        "limit rate over 10/minute",
        {"limit": {"rate": 10, "burst": 5, "per": "minute", "inv": True}},
    ),
    ('log prefix "a b" group 5', {"log": {"prefix": "a b", "group": 5}}),
    ('ct helper set "ftp"', {"ct helper": "ftp"}),
    ("ct count over 5", {"ct count": {"val": 5, "inv": True}}),
    (
        "update @s { ip saddr timeout 3h }",
        {
            "set": {
                "op": "update",
                "elem": {
                    "elem": {
                        "val": {"payload": {"protocol": "ip", "field": "saddr"}},
                        "timeout": 10800,
                    }
                },
                "set": "@s",
            }
        },
    ),
    ("notrack", {"notrack": None}),
    ("jump c", {"jump": {"target": "c"}}),
    ("xt match recent", {"xt": {"type": "match", "name": "recent"}}),
]


@pytest.mark.parametrize(("text", "expected"), STATEMENTS, ids=[text for text, _ in STATEMENTS])
def test_statement(text: str, expected: Json) -> None:
    assert rule_statements(Tokens(text), "ip", False) == ([expected], "")


def test_a_rule_with_a_comment() -> None:
    statements, comment = rule_statements(Tokens('accept comment "why"\n'), "ip", False)
    assert (statements, comment) == ([{"accept": None}], "why")


def test_the_rest_of_a_rule_that_is_not_understood() -> None:
    statements, _ = rule_statements(Tokens("notrack frob 1 goto x\n"), "ip", False)
    assert statements == [{"notrack": None}, {"text": "frob 1"}, {"goto": {"target": "x"}}]


def test_two_blanks_are_a_comment_of_iptables() -> None:
    statements, _ = rule_statements(Tokens("notrack  accept"), "ip", True)
    assert statements[1] == {"xt": {"type": "match", "name": "comment"}}
    assert len(rule_statements(Tokens("notrack  accept"), "ip", False)[0]) == 2

"""Expressions of nft's text in the JSON of nft."""

from __future__ import annotations

import pytest

from kptrace.rules.nftables.text_expressions import (
    Json,
    concatenation,
    duration,
    elements,
    expression,
    literal,
)
from kptrace.rules.nftables.text_tokens import TextSyntaxError, Tokens

SADDR = {"payload": {"protocol": "ip", "field": "saddr"}}
MARK = {"meta": {"key": "mark"}}
EXPRESSIONS = [
    ("ip saddr", SADDR),
    ("meta mark & 0xff", {"&": [MARK, 255]}),
    ("meta mark & 0xf0 | 0x1", {"|": [{"&": [MARK, 240]}, 1]}),
    ("meta mark << 8", {"<<": [MARK, 8]}),
    ("iifname", {"meta": {"key": "iifname"}}),
    ("ct original ip saddr", {"ct": {"key": "ip saddr", "dir": "original"}}),
    (
        "ip saddr . tcp dport",
        {"concat": [SADDR, {"payload": {"protocol": "tcp", "field": "dport"}}]},
    ),
    ("fib saddr . iif oif", {"fib": {"result": "oif", "flags": ["saddr", "iif"]}}),
    ("numgen random mod 3", {"numgen": {"mode": "random", "mod": 3, "offset": 0}}),
    ("jhash ip saddr mod 2 seed 0x5", {"jhash": {"expr": SADDR, "mod": 2, "seed": 5}}),
    ("@th,16,16", {"payload": {"base": "th", "offset": 16, "len": 16}}),
    ("ip saddr map @m", {"map": {"key": SADDR, "data": "@m"}}),
    ("tcp option maxseg size", {"tcp option": {"name": "maxseg", "field": "size"}}),
    ("frag more-fragments", {"exthdr": {"name": "frag", "field": "more-fragments"}}),
    ("rt classid", {"rt": {"key": "classid"}}),
]


@pytest.mark.parametrize(("text", "expected"), EXPRESSIONS)
def test_expression(text: str, expected: Json) -> None:
    assert expression(Tokens(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", 80),
        ("0x10", 16),
        ("00000001", 1),
        ("9" * 5000, "9" * 5000),
        ("10.0.0.0/8", {"prefix": {"addr": "10.0.0.0", "len": 8}}),
        ("fd00::/8", {"prefix": {"addr": "fd00::", "len": 8}}),
        ("80-90", {"range": [80, 90]}),
        ("10.0.0.1-10.0.0.9", {"range": ["10.0.0.1", "10.0.0.9"]}),
        ("fe80::1-fe80::5", {"range": ["fe80::1", "fe80::5"]}),
        ("echo-request", "echo-request"),
        ("ipv6-icmp", "ipv6-icmp"),
        ("1:2", "1:2"),
    ],
)
def test_literal(text: str, expected: Json) -> None:
    assert literal(text) == expected


def test_elements_with_what_stands_behind_them() -> None:
    text = (
        '{ 10.0.0.1 . tcp . 80 comment "web" : goto X, * : drop,\n 1.1.1.1 timeout 1h expires 5s }'
    )
    key = {"concat": ["10.0.0.1", "tcp", 80]}
    assert elements(Tokens(text)) == [
        [{"elem": {"val": key, "comment": "web"}}, {"goto": {"target": "X"}}],
        ["*", {"drop": None}],
        {"elem": {"val": "1.1.1.1", "timeout": 3600, "expires": 5}},
    ]
    assert elements(Tokens("{ }")) == []


def test_times() -> None:
    assert (duration("3h"), duration("1d2h"), duration("59m59s996ms")) == (10800, 93600, 3599)
    for text in ("", "x", "5"):
        with pytest.raises(ValueError):
            duration(text)


def test_an_expression_that_is_missing() -> None:
    for text in ("", "{", "ip saddr . "):
        with pytest.raises(TextSyntaxError):
            concatenation(Tokens(text))

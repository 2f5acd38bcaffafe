"""Why a rule matched, in English."""

from __future__ import annotations

import pytest
from support.rule_parts import compiled

from kptrace.rules.describe.match import chance_text, explain_match

REASONS = [
    ("-s 10.244.0.0/16", "the source is in 10.244.0.0/16"),
    ("! -s 10.244.0.0/16", "the source is outside 10.244.0.0/16"),
    (
        "-d 10.96.0.1/32 -p tcp -m tcp --dport 443",
        "the destination is 10.96.0.1 and tcp port is 443",
    ),
    ("-p udp", "the protocol is udp"),
    ("-m conntrack --ctstate NEW,RELATED", "the connection is new or related"),
    ("-m conntrack ! --ctstate INVALID", "the connection is not invalid"),
    ("-m addrtype --dst-type LOCAL", "the destination is this node"),
    ("-m addrtype ! --src-type LOCAL", "the source is not this node"),
    ("-m mark --mark 0x4000/0x4000", "the mark has 0x4000"),
    ("-m mark ! --mark 0x4000/0x4000", "the mark lacks 0x4000"),
    ("-i cali+ ! -o eth0", "the way in is cali* and the way out is not eth0"),
    ("-m limit --limit 5/min", "the rate is within 5/min"),
    ("-m statistic --mode nth --every 3 --packet 0", "it is one in 3"),
    ("-m u32 --u32 x", "perhaps -m u32 --u32 x"),
    ("-m multiport --dports 80,443", "the port is in 80, 443"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "reason"), REASONS, ids=[text for text, _ in REASONS])
def test_reason(text: str, reason: str) -> None:
    assert explain_match(compiled(text).body) == reason


def test_a_chance() -> None:
    """iptables keeps 31 bits of a probability."""
    assert chance_text(0.33333333349) == "1 in 3 chance"
    assert chance_text(0.5) == "1 in 2 chance"
    assert chance_text(0.3) == "30% chance"
    assert chance_text(0.0) == "0% chance"

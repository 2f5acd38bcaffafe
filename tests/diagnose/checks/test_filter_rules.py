"""What the check ``filter_rules`` concludes from the kernel's reports.

The reports are those that real runs show for the fault; that the kernel really sends them is the
kernel tier's to prove.
"""

from __future__ import annotations

from typing import Any

import pytest
from support.diagnose_cases import CARRIER, DNATED, FILTER, SYN, A, B, only, rules

from kptrace.diagnose.checks import (
    filter_rules,
)
from kptrace.model import (
    Flow,
    Packet,
)


@pytest.mark.parametrize("source", ["nft", "legacy"])
def test_a_dropping_policy(probe: Any, source: str) -> None:
    hits = probe.hits(
        A, SYN, ("filter", "FORWARD", 1, "jump"), ("filter", "FORWARD", 0, "drop"), backend=source
    )
    case = probe(3, told=hits, files=rules(A, FILTER, source), entry=None)
    found = only(filter_rules.diagnose(case))
    assert (found.cause, found.node) == ("forward-policy-drop", "a")
    assert found.object == "filter FORWARD policy"


@pytest.mark.parametrize("source", ["nft", "legacy"])
def test_a_dropping_rule(probe: Any, source: str) -> None:
    hits = probe.hits(
        A, SYN, ("filter", "FORWARD", 1, "jump"), ("filter", "FORWARD", 2, "drop"), backend=source
    )
    found = only(filter_rules.diagnose(probe(3, told=hits, files=rules(A, FILTER, source))))
    assert (found.cause, found.object) == ("rule-drop", "filter FORWARD 2")
    assert "-d 10.9.9.9/32 -j DROP" in found.summary


def test_the_tunnel_is_blocked_where_the_carrier_met_the_rule(probe: Any) -> None:
    outer = Packet(flow=CARRIER)
    hits = probe.hits(B, outer, ("filter", "INPUT", 2, "drop"))
    found = only(filter_rules.diagnose(probe(6, told=hits, files=rules(B, FILTER))))
    assert (found.cause, found.node) == ("tunnel-port-blocked", "b")
    assert found.object == "filter INPUT 2"
    assert any("8472" in line for line in (*found.remedy, *found.evidence))


def test_another_tunnel_packet_is_not_the_carrier(probe: Any) -> None:
    other = Packet(flow=Flow(protocol="udp", src="1.1.1.1", sport=1, dst="2.2.2.2", dport=8472))
    hits = probe.hits(B, other, ("filter", "INPUT", 2, "drop"))
    assert not tuple(filter_rules.diagnose(probe(6, told=hits, files=rules(B, FILTER))))


def test_without_a_rule_trace_the_drop_report_says_less(probe: Any) -> None:
    drop = probe.drop("a", "NETFILTER_DROP", SYN, "cni0")
    found = only(filter_rules.diagnose(probe(3, told=[drop])))
    assert (found.cause, found.node) == ("rule-drop", "a")
    assert any("no rule trace" in line for line in found.evidence)


def test_a_later_packet_of_the_connection_is_not_the_probe(probe: Any) -> None:
    ack = Packet(flow=DNATED, flags="A", seq=0x4000_0001)
    hits = probe.hits(A, ack, ("filter", "FORWARD", 2, "drop"))
    assert not tuple(filter_rules.diagnose(probe(10, told=hits, files=rules(A, FILTER))))

"""Small words, each by itself."""

from __future__ import annotations

import pytest

from kptrace.model import Flow, Netns, Packet, RuleRef, Source, Target
from kptrace.render.phrases import (
    offset_words,
    packet_words,
    place_words,
    pod_words,
    rule_deed,
    rule_place,
    source_words,
    target_words,
)


def rule(text: str, chain: str = "KUBE-SEP-X", number: int = 2) -> RuleRef:
    return RuleRef(backend="nft", family="ip", table="nat", chain=chain, number=number, text=text)


@pytest.mark.parametrize(
    ("microseconds", "words"),
    [
        (None, ""),
        (0.0, "0"),
        (12.4, "+12 us"),
        (999.4, "+999 us"),
        (1240.0, "+1.24 ms"),
        (3_020_000.0, "+3.02 s"),
        (-3.0, "-3 us"),
    ],
)
def test_offsets(microseconds: float | None, words: str) -> None:
    assert offset_words(microseconds) == words


@pytest.mark.parametrize(
    ("text", "deed"),
    [
        ("-A KUBE-SEP-X -p tcp -m tcp -j DNAT --to-destination 1.2.3.4:80",
         "DNAT --to-destination 1.2.3.4:80"),
        ('-A KUBE-SEP-X -m comment --comment "a -j DROP" -g KUBE-MARK', "KUBE-MARK"),
        (r'-A KUBE-SEP-X -m comment --comment "a \" -j DROP" -j LOG --log-prefix "x -j y"',
         'LOG --log-prefix "x -j y"'),
        ("-A KUBE-SEP-X -m comment --comment only-counted", "-m comment --comment only-counted"),
        ("meta l4proto tcp dnat ip to 1.2.3.4:80", "meta l4proto tcp dnat ip to 1.2.3.4:80"),
        ("", ""),
    ],
)  # fmt: skip
def test_what_a_rule_does_in_its_own_words(text: str, deed: str) -> None:
    assert rule_deed(rule(text)) == deed


def test_places_of_rules() -> None:
    assert rule_place(rule("", "FORWARD", 3)) == "FORWARD 3"
    assert rule_place(rule("", "FORWARD", 0)) == "FORWARD policy"


def test_pods_are_called_as_they_can_be_typed() -> None:
    assert pod_words("shop/web-1", "shop") == "pod/web-1"
    assert pod_words("shop/web-1", "other") == "pod/shop/web-1"
    assert place_words("node-a", "host", "shop") == "node-a"
    assert place_words("node-a", "shop/web-1", "shop") == "pod/web-1 on node-a"


def test_targets() -> None:
    def target(**fields: str) -> str:
        return target_words(Target(text="as typed", name="web", namespace="shop", **fields))  # type: ignore[arg-type]

    assert target(kind="service") == "svc/web (shop)"
    assert target(kind="service", port="http") == "svc/web:http (shop)"
    assert target(kind="pod", port="53", protocol="udp") == "pod/web:53/udp (shop)"
    assert target(kind="address") == "as typed"


def test_sources() -> None:
    node, pod = Netns(node="node-a"), Netns(node="node-a", pod="shop/client")
    assert source_words(Source(kind="node", netns=node), "shop") == "node-a"
    assert source_words(Source(kind="pod", netns=pod), "shop") == "pod/client on node-a"
    assert source_words(Source(kind="outside", netns=node, address="192.0.2.7"), "") == "192.0.2.7"


@pytest.mark.parametrize(
    ("flags", "protocol", "kind"), [("S", "tcp", "SYN"), ("RA", "tcp", "RST"), ("", "udp", "UDP")]
)
def test_packets(flags: str, protocol: str, kind: str) -> None:
    flow = Flow(protocol=protocol, src="fd00::1", dst="fd00::2", sport=1, dport=2)
    outer = Flow(protocol="udp", src="172.30.0.11", dst="172.30.0.12", sport=9, dport=8472)
    packet = Packet(flow=outer, inner=Packet(flow=flow, flags=flags))
    assert packet_words(packet) == f"[fd00::1]:1 > [fd00::2]:2 {kind}"

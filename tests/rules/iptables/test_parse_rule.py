"""A rule's options in order, in both families, and those that nobody prints."""

from __future__ import annotations

import pytest
from support.rule_parts import c, compiled, equal, f

from kptrace.rules.iptables.save import split_args
from kptrace.rules.model.expressions import (
    Comparison,
    Dnat,
    Part,
    Prefix,
    Range,
    Reject,
    UnknownStatement,
    Verdict,
)

IPV6: list[tuple[str, tuple[Part, ...]]] = [
    ("-s fd00::1/128", (equal("ip6 saddr", "fd00::1"),)),
    (
        "! -d fd00::/48",
        (Comparison(left=f("ip6 daddr"), op="!=", right=Prefix(address="fd00::", length=48)),),
    ),
    (
        "-p ipv6-icmp -m icmp6 --icmpv6-type 135",
        (equal("meta l4proto", "icmpv6"), equal("icmpv6 type", 135)),
    ),
    ("-m hl --hl-eq 255", (equal("ip6 hoplimit", 255),)),
    ("-j REJECT --reject-with icmp6-port-unreachable", (Reject(reply="icmpv6 port-unreachable"),)),
    ("-j REJECT --reject-with icmp6-adm-prohibited", (Reject(reply="icmpv6 admin-prohibited"),)),
    ("-j DNAT --to-destination [fd00::1]:80", (Dnat(addr=c("fd00::1"), port=c(80)),)),
    (
        "-j DNAT --to-destination fd00::1-fd00::5",
        (Dnat(addr=Range(low="fd00::1", high="fd00::5")),),
    ),
    (
        "-j DNAT --to-destination [fd00::1-fd00::5]:80-90",
        (Dnat(addr=Range(low="fd00::1", high="fd00::5"), port=Range(low=80, high=90)),),
    ),
]


@pytest.mark.parametrize(("text", "expected"), IPV6, ids=[text for text, _ in IPV6])
def test_ipv6(text: str, expected: tuple[Part, ...]) -> None:
    assert compiled(text, family="ip6").body == expected


def test_parts_keep_the_order_of_the_words() -> None:
    rule = compiled(
        '! -s 10.244.0.0/16 -d 10.96.1.33/32 -p tcp -m comment --comment "default/web cluster IP" '
        "-m tcp --dport 80 -j KUBE-MARK-MASQ"
    )
    assert rule.comment == "default/web cluster IP"
    assert rule.body == (
        Comparison(left=f("ip saddr"), op="!=", right=Prefix(address="10.244.0.0", length=16)),
        equal("ip daddr", "10.96.1.33"),
        equal("meta l4proto", "tcp"),
        equal("tcp dport", 80),
        Verdict(kind="jump", chain="KUBE-MARK-MASQ"),
    )


def test_several_comments_and_escapes() -> None:
    text = r'-m comment --comment "cali:a-b_c" -m comment --comment "say \"x\" \\ y" -j DROP'
    assert compiled(text).comment == r'cali:a-b_c say "x" \ y'


@pytest.mark.parametrize("text", ["-m", "-j", "-s 10.0.0.0/8 !", "-p tcp -m"])
def test_words_that_end_early(text: str) -> None:
    with pytest.raises(ValueError):
        compiled(text)


@pytest.mark.parametrize("text", ['"open', 'a"b', '"x"y', '-m comment --comment "x'])
def test_quotes_that_do_not_close(text: str) -> None:
    with pytest.raises(ValueError):
        split_args(text)


def test_core_options_belong_to_the_rule_wherever_they_stand() -> None:
    """kube-proxy writes ``-m tcp -p tcp -d ADDRESS --dport PORT``; a save prints another order."""
    expected = (
        equal("meta l4proto", "tcp"),
        equal("ip daddr", "172.30.0.41"),
        equal("tcp dport", 80),
    )
    assert set(compiled("-m tcp -p tcp -d 172.30.0.41 --dport 80").body) == set(expected)
    assert set(compiled("-j ACCEPT -p tcp -d 172.30.0.41 -m tcp --dport 80").body) > set(expected)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("-p tcp --dport 80 -j ACCEPT", "-p tcp -m tcp --dport 80 -j ACCEPT"),
        ("-p udp --destination-port 53", "-p udp -m udp --dport 53"),
        ("--protocol tcp --syn", "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN"),
        ("-s ! 10.0.0.0/8 -j DROP", "! -s 10.0.0.0/8 -j DROP"),
        ("--source 10.0.0.1 --jump ACCEPT", "-s 10.0.0.1/32 -j ACCEPT"),
        ("-j REJECT", "-j REJECT --reject-with icmp-port-unreachable"),
        ("-j MARK --or-mark 0x4000", "-j MARK --set-xmark 0x4000/0x4000"),
        ("-j MARK --and-mark 0xffffbfff", "-j MARK --set-xmark 0x0/0x4000"),
        ("-j MARK --xor-mark 0x4000", "-j MARK --set-xmark 0x4000/0x0"),
        ("-j MARK --set-mark 0x1/0x3", "-j MARK --set-xmark 0x1/0x3"),
        ("-j MARK --set-mark 1", "-j MARK --set-xmark 0x1/0xffffffff"),
        ("-j CONNMARK --set-mark 1", "-j CONNMARK --set-xmark 0x1/0xffffffff"),
        ("-j DNAT --to 10.0.0.1:80", "-j DNAT --to-destination 10.0.0.1:80"),
        ("-m set --set svc dst,dst", "-m set --match-set svc dst,dst"),
        ("-c 1 60 -j ACCEPT", "-j ACCEPT"),
    ],
)
def test_what_iptables_takes_and_prints_otherwise(text: str, printed: str) -> None:
    assert compiled(text).body == compiled(printed).body


@pytest.mark.parametrize("text", ["-d 10.x.x.3/32", "-j DNAT --to-destination x.x.3.6:9376"])
def test_what_is_no_address_stays_open(text: str) -> None:
    assert any(isinstance(part, UnknownStatement) for part in compiled(text).body)

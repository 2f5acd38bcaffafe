"""What a text lacks."""

from __future__ import annotations

import pytest
from support.pasted_rules import NAT, source_of

from kptrace.rules.iptables.save_text import (
    RuleLine,
    TableText,
    is_chain_name,
    save_text,
    target_of,
)
from kptrace.rules.model.expressions import Verdict


def test_a_chain_that_is_not_in_the_text_is_jumped_to_all_the_same() -> None:
    source = source_of("-A KUBE-SVC-AAAAAAAAAAAAAAAA -j KUBE-SEP-BBBBBBBBBBBBBBBB\n")
    assert source.excerpt is not None
    assert source.excerpt.absent == {"nat": frozenset({"KUBE-SEP-BBBBBBBBBBBBBBBB"})}
    assert source.chain(NAT, "KUBE-SEP-BBBBBBBBBBBBBBBB") is None
    chain = source.chain(NAT, "KUBE-SVC-AAAAAAAAAAAAAAAA")
    assert chain is not None
    assert chain.rules[0].body == (Verdict(kind="jump", chain="KUBE-SEP-BBBBBBBBBBBBBBBB"),)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("-d 10.0.0.1/32 -j KUBE-SVC-X", "KUBE-SVC-X"),
        ("-s 10.0.0.0/8 -g MINE", "MINE"),
        ("-j DNAT --to-destination 10.0.0.1:80", "DNAT"),
        ('-m comment --comment "a -j b" -j DROP', "DROP"),
        ('-m comment --comment "a -j b"', ""),
        ("-p tcp", ""),
        ("", ""),
    ],
)
def test_the_target_of_a_rule(text: str, target: str) -> None:
    assert target_of(text) == target


def test_which_targets_are_chains() -> None:
    assert is_chain_name("KUBE-SEP-X")
    assert not any(map(is_chain_name, ("ACCEPT", "DNAT", "TCPMSS", "NETMAP", "SYNPROXY")))


def test_tables_are_written_as_iptables_save_sorts_them() -> None:
    table = TableText("nat")
    table.rules = [
        RuleLine("Z", "-j A", line=3),
        RuleLine("OUTPUT", "-j Z", "1:60", line=4),
        RuleLine("A", "-j ACCEPT", line=5),
    ]
    saved = save_text([table])
    assert saved.text == (
        "*nat\n:OUTPUT ACCEPT [0:0]\n:A - [0:0]\n:Z - [0:0]\n"
        "[1:60] -A OUTPUT -j Z\n-A A -j ACCEPT\n-A Z -j A\nCOMMIT\n"
    )
    assert saved.lines == (0, 0, 0, 0, 4, 5, 3, 0)

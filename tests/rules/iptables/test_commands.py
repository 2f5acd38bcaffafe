"""Rules as iptables commands: single lines, restore input, scripts, lines left out."""

from __future__ import annotations

import pytest
from support.pasted_rules import FILTER, NAT, SERVICE, source_of, texts

from kptrace.model.errors import ParseError
from kptrace.rules.model.expressions import UnknownStatement


@pytest.mark.parametrize(
    "prefix", ["", "12:", "iptables-save.txt:", "./node/save.txt:12:", "12-", "[4:240] "]
)
def test_lines_as_grep_prints_them(prefix: str) -> None:
    text = "".join(f"{prefix}{line}\n" for line in SERVICE.splitlines())
    assert texts(source_of(text)) == texts(source_of(SERVICE))


@pytest.mark.parametrize("mark", ["...", "…", "# ...", "[...]", "<snip>", "(more rules)"])
def test_lines_that_were_left_out_leave_a_chain_open(mark: str) -> None:
    first, second = SERVICE.splitlines()[1:3]
    source = source_of(
        f"*nat\n:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]\n{first}\n{mark}\n{second}\nCOMMIT\n"
    )
    assert source.excerpt is not None
    assert "nat" not in source.excerpt.whole
    chain = source.chain(NAT, "KUBE-SVC-AAAAAAAAAAAAAAAA")
    assert chain is not None
    assert chain.rules[1].body == (UnknownStatement(text="..."),)
    assert len(chain.rules) == 3


def test_the_input_of_iptables_restore() -> None:
    """As kube-proxy gives it: its own chains only, and those that it deletes."""
    text = f"""\
*filter
:KUBE-FORWARD - [0:0]
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SEP-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SEP-GONE - [0:0]
:KUBE-MARK-MASQ - [0:0]
{SERVICE}-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-X KUBE-SEP-GONE
COMMIT
"""
    source = source_of(text)
    assert source.excerpt is not None
    assert source.excerpt.whole == frozenset()
    assert source.chain(NAT, "KUBE-SEP-GONE") is None
    mark = source.chain(NAT, "KUBE-MARK-MASQ")
    saved = source_of("-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n")
    expected = saved.chain(NAT, "KUBE-MARK-MASQ")
    assert mark is not None
    assert expected is not None
    assert mark.rules[0].body == expected.rules[0].body
    forward = [chain for chain in source.base_chains(FILTER) if chain.name == "FORWARD"]
    assert "-j KUBE-FORWARD" in forward[0].rules[0].text


def test_a_script() -> None:
    source = source_of(
        "#!/bin/sh\n"
        "sudo iptables -t nat -A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE\n"
        "iptables -P FORWARD DROP\n"
        "iptables -w 5 -A FORWARD -j ACCEPT\n"
        "iptables -I FORWARD 1 -p tcp --dport 22 -j DROP\n"
        "iptables -I FORWARD 1 -p tcp --dport 23 -j DROP\n"
        "iptables -D FORWARD -p tcp --dport 23 -j DROP\n"
    )
    assert texts(source) == {
        ("nat", "POSTROUTING"): ["-s 10.0.0.0/8 -j MASQUERADE"],
        ("filter", "FORWARD"): ["-p tcp --dport 22 -j DROP", "-j ACCEPT"],
    }
    assert [chain.policy for chain in source.base_chains(FILTER)] == ["drop"]


def test_a_line_that_is_no_rule_is_named() -> None:
    with pytest.raises(ParseError, match="pasted:2: 'and here is the rest' is no iptables rule"):
        source_of("-A FORWARD -j ACCEPT\nand here is the rest\n")


def test_an_error_names_the_line_of_the_original() -> None:
    source = source_of('\n\n-A FORWARD -j ACCEPT\n-A FORWARD -m comment --comment "x -j DROP\n')
    chain = source.chain(FILTER, "FORWARD")
    assert chain is not None
    with pytest.raises(ParseError, match="pasted:4: a quote that does not close"):
        list(chain.rules)

"""A big part of a save tells what its index tells, chain by chain, and refuses the same faults."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from kptrace.errors import BadDump
from kptrace.rules import iptables
from kptrace.rules.iptables import IptablesSave

GROUPED = """\
*nat
:PREROUTING ACCEPT [1:2]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SVC-AAAAAAAAAAAAAAAB - [0:0]
:LONG - [0:0]
:LONGER - [0:0]
-A PREROUTING -j KUBE-SVC-AAAAAAAAAAAAAAAA
-A PREROUTING
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-SVC-AAAAAAAAAAAAAAAA -j KUBE-MARK-MASQ
-A KUBE-SVC-AAAAAAAAAAAAAAAA -j LONG
-A LONGER -j ACCEPT
-A LONG -j DROP
COMMIT
"""
SCATTERED = GROUPED.replace("COMMIT", "-A PREROUTING -j LONG\nCOMMIT")
COMMENTED = GROUPED.replace("-A LONGER", "# by hand\n\n-A LONGER")
COUNTED = re.sub(r"^-A", "[7:420] -A", GROUPED, flags=re.MULTILINE)
MIXED = GROUPED.replace("-A LONG -j", "[1:1] -A LONG -j")


def told(text: str, big: bool, monkeypatch: pytest.MonkeyPatch) -> object:
    """All that a save says, or where it says that it is broken."""
    monkeypatch.setattr(iptables, "BIG", -1 if big else 1 << 30)
    names = sorted({*re.findall(r"^:(\S+)", text, re.MULTILINE), "NOT-THERE"})
    try:
        save = IptablesSave(text, "x", "legacy", "ip")
        return {
            table: (
                [chain.name for chain in save.base_chains(table)],
                {
                    name: [
                        (rule.number, rule.text, rule.packets, rule.line) for rule in chain.rules
                    ]
                    for name in names
                    if (chain := save.chain(table, name))
                },
                list(save.chain_names(table)),
            )
            for table in save.tables()
        }
    except BadDump as error:
        return error.line


@pytest.mark.parametrize("text", [GROUPED, SCATTERED, COMMENTED, COUNTED, MIXED])
def test_big_and_small_tell_the_same(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small = told(text, False, monkeypatch)
    assert isinstance(small, dict)
    assert told(text, True, monkeypatch) == small


def test_real_saves(cases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in sorted(cases.glob("*/*/ip*tables-save.txt")):
        text = path.read_text()
        assert told(text, True, monkeypatch) == told(text, False, monkeypatch)


def test_mangled_texts_are_refused_alike_or_read_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines dropped, doubled, cut or swapped: big and small agree on what is left."""
    chance = random.Random(1)
    for _ in range(400):
        lines = chance.choice([GROUPED, COUNTED, SCATTERED]).splitlines(keepends=True)
        at, other = chance.randrange(len(lines)), chance.randrange(len(lines))
        match chance.randrange(4):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[other])
            case 2:
                lines[at] = lines[at][: chance.randrange(len(lines[at]))]
            case _:
                lines[at], lines[other] = lines[other], lines[at]
        text = "".join(lines)
        small, big = told(text, False, monkeypatch), told(text, True, monkeypatch)
        assert big == small or _undeclared(text), text


def _undeclared(text: str) -> bool:
    """A rule of a chain that is not declared: only who reads all of them sees it."""
    named = re.findall(r"^(?:\[\d+:\d+\] )?-A (\S+)", text, re.MULTILINE)
    return not set(named) <= set(re.findall(r"^:(\S+)", text, re.MULTILINE))


@pytest.mark.parametrize("rule", ["-A F-0 -j ACCEPT", "[0:0] -A F-0 -j ACCEPT"])
def test_rules_without_any_chain_are_not_passed_over(rule: str) -> None:
    """Found by fuzzing: nobody asks for the rules of a chain that is nowhere named."""
    source = IptablesSave(f"*raw\n{rule}\nCOMMIT\n", "iptables-save.txt", "nft", "ip")
    with pytest.raises(BadDump, match=r"line 2|:2"):
        source.chain_names(source.tables()[0])

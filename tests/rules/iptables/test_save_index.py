"""The index of a save tells what a reader tells that goes over the text line by line."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from kptrace.model.errors import ParseError
from kptrace.rules.iptables import save_index
from kptrace.rules.iptables.save import IptablesSave

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
TEXTS = [GROUPED, SCATTERED, COMMENTED, COUNTED, MIXED]

Told = dict[str, dict[str, list[tuple[int, str, str]]]]


def pages(text: str, lines: int) -> tuple[str, ...]:
    """In pages of so many lines."""
    whole = (text if text.endswith("\n") else f"{text}\n").splitlines(keepends=True)
    return tuple("".join(whole[start : start + lines]) for start in range(0, len(whole), lines))


def indexed(text: str | tuple[str, ...]) -> Told:
    """All rules that a save tells: number, words, packets."""
    save = IptablesSave(text, "x", "legacy", "ip")
    return {
        table.name: {
            name: [
                (rule.number, rule.text, "" if rule.packets is None else str(rule.packets))
                for rule in chain.rules
            ]
            for name in save.chain_names(table)
            if (chain := save.chain(table, name))
        }
        for table in save.tables()
    }


def by_line(text: str) -> Told | None:
    """The same by the grammar, a line at a time; None: the text breaks it."""
    actual: Told = {}
    table: dict[str, list[tuple[int, str, str]]] | None = None
    rules = False
    for line in text.splitlines():
        rule = re.fullmatch(r"(?:\[(\d+):\d+\] )?-A (\S+)(?: (.*))?", line)
        chain = re.fullmatch(r":(\S+) \S+(?: \[\d+:\d+\])?", line)
        if line.startswith("#") or not line.strip():
            continue
        if table is None:
            if not line.startswith("*") or line[1:] in actual:
                return None
            table, rules = actual.setdefault(line[1:], {}), False
        elif line == "COMMIT":
            table = None
        elif chain and not rules and chain[1] not in table:
            table[chain[1]] = []
        elif rule and rule[2] in table:
            rules = True
            numbered = table[rule[2]]
            numbered.append((len(numbered) + 1, rule[3] or "", rule[1] or ""))
        else:
            return None
    return actual if table is None else None


@pytest.mark.parametrize("many", [0, 2000])
@pytest.mark.parametrize("lines", [1, 2, 3, 100])
@pytest.mark.parametrize("text", TEXTS)
def test_the_index_tells_what_the_lines_tell(
    text: str, lines: int, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(save_index, "MANY", many)
    expected = by_line(text)
    assert expected is not None
    assert indexed(pages(text, lines)) == expected


def test_real_saves(cases: Path) -> None:
    for path in sorted(cases.glob("*/*/ip*tables-save.txt")):
        text = path.read_text()
        assert indexed(text) == by_line(text)
        assert indexed(pages(text, 7)) == by_line(text)


@pytest.mark.parametrize("in_order", [True, False])
def test_a_chain_is_found_wherever_it_stands_among_many(in_order: bool) -> None:
    """Chains of one to many rules: pages begin before, within and behind them."""
    chance = random.Random(2)
    names = [f"C-{number}" for number in range(300)]
    declared = "".join(f":{name} - [0:0]\n" for name in sorted(names))
    chance.shuffle(names)
    args = ["", " -j RETURN", ' -m comment --comment "-A C-7 -j DROP" -j RETURN']
    rules = "".join(
        f"-A {name}{chance.choice(args)}\n"
        for name in (sorted(names) if in_order else names)
        for _ in range(chance.choice([0, 1, 2, 3, 60]))
    )
    text = f"*nat\n{declared}{rules}COMMIT\n"
    expected = by_line(text)
    assert indexed(text) == expected
    assert indexed(pages(text, 8)) == expected


def test_mangled_texts_are_refused_or_read_as_their_lines_say() -> None:
    """Lines dropped, doubled, cut or swapped."""
    chance = random.Random(1)
    refused = 0
    for _ in range(600):
        lines = chance.choice(TEXTS).splitlines(keepends=True)
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
        actual = [_or_line(text), _or_line(pages(text, chance.randrange(1, 6)))]
        assert actual[0] == actual[1], text
        if isinstance(actual[0], int):
            assert actual[0] > 0
            refused += 1
        else:
            assert actual[0] == by_line(text), text
    assert refused


def _or_line(text: str | tuple[str, ...]) -> Told | int:
    """What is told, or the line in which it is broken."""
    try:
        return indexed(text)
    except ParseError as error:
        return error.line


def test_a_rule_of_no_chain_is_found_though_nobody_asks() -> None:
    text = GROUPED.replace("-A LONG -j DROP", "-A NOWHERE -j DROP")
    with pytest.raises(ParseError, match="NOWHERE") as caught:
        IptablesSave(text, "x", "legacy", "ip")
    assert caught.value.line == 14


@pytest.mark.parametrize("rule", ["-A F-0 -j ACCEPT", "[0:0] -A F-0 -j ACCEPT"])
def test_rules_without_any_chain_are_not_passed_over(rule: str) -> None:
    """Found by fuzzing: nobody asks for the rules of a chain that is nowhere named."""
    with pytest.raises(ParseError, match=r"line 2|:2"):
        IptablesSave(f"*raw\n{rule}\nCOMMIT\n", "iptables-save.txt", "nft", "ip")

"""What the differential test found once stays right: its cases replayed, without a kernel.

Each case holds the rules as a kernel gave them back, one packet and what that kernel did with it.
"""

from __future__ import annotations

import pytest
from differential import cases, chance, shrink, verdicts


@pytest.mark.parametrize("name", cases.names())
def test_the_walk_says_what_the_kernel_did(name: str) -> None:
    case = cases.read(name)
    ways = verdicts.ways(case.sent, case.world())
    told = "\n".join(f"{way}\n{verdicts.differences(way, case.expected)}" for way in ways)
    assert verdicts.judge(ways, case.expected) == "agreed", f"{case.expected}\n{told}"


def test_there_are_cases() -> None:
    assert cases.names()


def test_rules_are_shrunk_to_those_that_matter() -> None:
    lines = [f"rule {number}" for number in range(40)]
    rules = {"nft": "\n".join(lines), "ipset": "a\nb\n"}

    def disagrees(fewer: dict[str, str]) -> bool:
        return "rule 7\n" in fewer.get("nft", "") and "rule 31\n" in fewer["nft"]

    assert shrink.shrink(rules, disagrees) == {"nft": "rule 7\nrule 31\n"}


def test_an_empty_table_is_left_out_whole() -> None:
    text = "*nat\nCOMMIT\n*filter\n-A INPUT -j DROP\nCOMMIT\n"

    def loads(fewer: dict[str, str]) -> bool:
        text = fewer.get("legacy", "")
        return text.count("*") == text.count("COMMIT") and "INPUT" in text

    small = "*filter\n-A INPUT -j DROP\nCOMMIT\n"
    assert shrink.shrink({"legacy": text}, loads) == {"legacy": small}


@pytest.mark.parametrize(
    ("counts", "fits"),
    [((150, 150), True), ((180, 120), True), ((240, 60), False), ((300, 0), False)],
)
def test_only_what_cannot_be_chance_is_a_misfit(counts: tuple[int, ...], fits: bool) -> None:
    """Of 300 tosses of a coin, 150 +- 9 come up heads."""
    assert (chance.misfits((0.5, 0.5), counts) == []) is fits


def test_what_never_happens_must_not() -> None:
    assert chance.misfits((1.0, 0.0), (300, 0)) == []
    assert chance.misfits((1.0, 0.0), (290, 10)) != []

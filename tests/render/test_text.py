"""The report as a person reads it. The golden files were read, one by one, before they were kept;
``pytest --update-golden`` writes them anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kptrace.model import Outcome, Trace
from kptrace.render.sanitize import cells
from kptrace.render.text import text

Check = Callable[[Path, str], None]

GOLDEN = Path(__file__).parent / "golden"

FORMS: dict[str, dict[str, Any]] = {
    "80": {},
    "60": {"width": 60},
    "wide": {"wide": True},
}

ANSWERS = {
    Outcome.DELIVERED: "DELIVERED",
    Outcome.REFUSED: "REFUSED",
    Outcome.DROPPED: "DROPPED",
    Outcome.NO_ENDPOINTS: "NO ENDPOINTS",
    Outcome.NOT_PROGRAMMED: "NOT PROGRAMMED",
    Outcome.UNRESOLVED: "UNRESOLVED",
    Outcome.INCONCLUSIVE: "INCONCLUSIVE",
}


@pytest.mark.parametrize("form", FORMS)
def test_golden(sample: tuple[str, Trace], form: str, golden: Check) -> None:
    name, trace = sample
    golden(GOLDEN / f"{name}.{form}.txt", text(trace, **FORMS[form]))


@pytest.mark.parametrize("name", ["delivered-vxlan", "dropped-tunnel-port"])
def test_golden_in_colour(samples: dict[str, Trace], name: str, golden: Check) -> None:
    golden(GOLDEN / f"{name}.colour.txt", text(samples[name], colour=True))


@pytest.mark.parametrize("width", [40, 60, 61, 79, 80, 100, 200])
@pytest.mark.parametrize("wide", [False, True])
def test_every_line_fits(sample: tuple[str, Trace], width: int, wide: bool) -> None:
    for line in text(sample[1], width=width, wide=wide).splitlines():
        assert cells(line) <= width


def test_the_answer_stands_in_the_first_line(sample: tuple[str, Trace]) -> None:
    _, trace = sample
    for width in (60, 80):
        assert ANSWERS[trace.outcome] in text(trace, width=width).splitlines()[0]


def test_nothing_is_told_by_colour_alone(sample: tuple[str, Trace]) -> None:
    plain, coloured = text(sample[1]), text(sample[1], colour=True)
    assert plain != coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


def test_no_control_character_gets_through(samples: dict[str, Trace]) -> None:
    for wide in (False, True):
        shown = text(samples["hostile"], wide=wide)
        assert all(line.isprintable() for line in shown.split("\n"))
        assert "\nFAKE" not in shown
    coloured = text(samples["hostile"], colour=True)
    assert set(re.findall(r"\x1b.", coloured)) == {"\x1b["}
    assert all(line.isprintable() for line in re.sub(r"\x1b\[[0-9;]*m", "", coloured).split("\n"))


def bare(words: str) -> str:
    return re.sub(r"[\s\\]+", "", words)


def test_every_rule_is_in_the_wide_form(samples: dict[str, Trace]) -> None:
    del samples["hostile"]  # its rules are escaped
    for trace in samples.values():
        shown = bare(text(trace, wide=True))
        for hop in trace.hops:
            for rule in (*hop.preceding_rules, *((hop.rule,) if hop.rule else ())):
                assert bare(rule.text.removeprefix(f"-A {rule.chain} ")) in shown
                assert bare(rule.chain) in shown


def test_every_finding_is_told(samples: dict[str, Trace]) -> None:
    del samples["hostile"]  # its findings are escaped
    for trace in samples.values():
        shown = bare(text(trace))
        for finding in trace.findings:
            for words in (finding.summary, finding.cause, *finding.remedy):
                assert bare(words) in shown

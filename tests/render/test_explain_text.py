"""Explanations as a person reads them. The golden files were read, one by one, before they were
kept; ``pytest --update-golden`` writes them anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from explanations import SAMPLES

from kptrace.model import Explanation
from kptrace.render.explain import explain
from kptrace.render.sanitize import cells

Check = Callable[[Path, str], None]

GOLDEN = Path(__file__).parent / "golden" / "explain"
FORMS: dict[str, dict[str, Any]] = {
    "60": {"width": 60},
    "wide": {"wide": True},
    "colour": {"colour": True},
}


@pytest.fixture(params=SAMPLES)
def explanation(request: pytest.FixtureRequest) -> Explanation:
    return SAMPLES[request.param]()


@pytest.mark.parametrize("name", SAMPLES)
def test_golden(name: str, golden: Check) -> None:
    golden(GOLDEN / f"{name}.txt", explain(SAMPLES[name]()))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["np-local.iptables", "lb.nftables", "damaged.iptables"])
def test_other_forms(name: str, form: str, golden: Check) -> None:
    golden(GOLDEN / f"{name}.{form}.txt", explain(SAMPLES[name](), **FORMS[form]))


@pytest.mark.parametrize("wide", [False, True])
def test_every_line_fits(explanation: Explanation, wide: bool) -> None:
    for width in (40, 60, 80, 100):
        for line in explain(explanation, width=width, wide=wide).splitlines():
            assert cells(line) <= width


def test_nothing_is_told_by_colour_alone(explanation: Explanation) -> None:
    plain = explain(explanation)
    coloured = explain(explanation, colour=True)
    assert plain != coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


def test_no_control_character_gets_through() -> None:
    for wide in (False, True):
        shown = explain(SAMPLES["hostile.iptables"](), wide=wide)
        assert all(line.isprintable() for line in shown.split("\n"))


def test_every_backend_and_every_rule_is_in_the_wide_form(explanation: Explanation) -> None:
    shown = re.sub(r"\s+", "", explain(explanation, wide=True))
    for port in explanation.ports:
        for entry in port.entries:
            assert all(f"{one.address}" in shown for one in entry.backends)
            for rule in entry.rules:
                if rule.text.isprintable():
                    assert re.sub(r"\s+", "", rule.text) in shown


def test_every_finding_is_told(explanation: Explanation) -> None:
    shown = re.sub(r"[\s\\]+", "", explain(explanation))
    for finding in explanation.findings:
        assert re.sub(r"\s+", "", finding.summary) in shown
        assert finding.cause in shown

"""The catalogue on paper."""

from __future__ import annotations

import re

import pytest

from kptrace.diagnose.catalogue.causes import CAUSES
from kptrace.render.causes import cause_list, cause_page


def test_one_line_for_each() -> None:
    lines = cause_list(CAUSES.values()).splitlines()
    assert [line.split()[0] for line in lines] == list(CAUSES)
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize("id", CAUSES)
def test_all_that_is_known_of_one(id: str) -> None:
    page = cause_page(CAUSES[id], width=60)
    told = re.sub(r"\s+", "", page)
    for words in (id, CAUSES[id].title, CAUSES[id].meaning, CAUSES[id].impact, CAUSES[id].fix):
        assert re.sub(r"\s+", "", words) in told
    assert all(len(line) <= 60 for line in page.splitlines())


def test_an_empty_list() -> None:
    assert cause_list([]) == ""

"""Splitting what ``ip -batch`` prints, and the table of files."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kptrace.crew import FILES
from kptrace.node.dump import PROGRAMS, Missing, _documents
from kptrace.rules.wanted import is_wanted

json_values = st.recursive(
    st.text() | st.integers() | st.none(), lambda inner: st.lists(inner, max_size=3)
)


@given(
    st.lists(st.lists(json_values, max_size=3), max_size=5), st.sampled_from(["", "\n", " \n\n"])
)
def test_documents_one_behind_the_other(values: list[object], between: str) -> None:
    text = between.join(json.dumps(v) for v in values)
    assert [json.loads(one) for one in _documents(text)] == values


@pytest.mark.parametrize("text", ["[", "[] Cannot open network namespace", "[]x[]"])
def test_what_is_not_json_is_missing_not_guessed(text: str) -> None:
    with pytest.raises(Missing):
        _documents(text)


def test_tools_that_create_by_looking_are_asked_only_where_something_is_listed() -> None:
    for name, program in PROGRAMS.items():
        if "legacy" in name or "ipvs" in name:
            assert program.if_listed


def test_everything_that_a_trace_asks_for_is_known() -> None:
    from kptrace.node.dump import _BATCHES

    known = {*PROGRAMS, "sysctl.txt", "resolv.conf", *(n for b in _BATCHES.values() for n in b)}
    assert {file for file in FILES if not is_wanted(file)} <= known

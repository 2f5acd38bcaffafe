"""Splitting what ``ip -batch`` prints, and the table of files."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kptrace.agent.state import files
from kptrace.agent.state.files import PROGRAMS, FileUnavailable, _documents
from kptrace.rules.live.queries import is_query
from kptrace.trace.agent_session import FILES

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
    with pytest.raises(FileUnavailable):
        _documents(text)


def test_tools_that_create_by_looking_are_asked_only_where_something_is_listed() -> None:
    for name, program in PROGRAMS.items():
        if "legacy" in name or "ipvs" in name:
            assert program.if_listed


def test_everything_that_a_trace_asks_for_is_known() -> None:
    from kptrace.agent.state.files import _BATCHES, READERS

    known = {*PROGRAMS, *READERS}
    known |= {name for batch in _BATCHES.values() for name in batch}
    assert {file for file in FILES if not is_query(file)} <= known


@pytest.mark.parametrize("torn", [0, 2, 1000])
def test_a_listing_that_was_torn_is_made_again(tmp_path: Path, torn: int) -> None:
    count = tmp_path / "count"
    script = (
        f'echo >> {count}; [ $(wc -l < {count}) -gt {torn} ] || echo "Dump was interrupted '
        f'and may be inconsistent." >&2; wc -l < {count}'
    )
    words = ("sh", "-c", script)
    files.begin()  # in this process another agent may have left
    if torn < 1000:
        assert int(files._output(words)) == torn + 1
        return
    with pytest.raises(FileUnavailable, match="changes faster than it can be listed"):
        files._output(words)


def test_a_program_that_just_started_is_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have run for a while before the thread that started it goes on."""
    runs, known = threading.Event(), threading.Event()
    killed = []

    class Slow:
        returncode = -9

        def __init__(self, *_: Any, **__: Any) -> None:
            runs.set()
            assert not known.wait(0.05), "the agent left, and the program ran on"

        def __enter__(self) -> Slow:
            return self

        def __exit__(self, *_: object) -> None: ...

        def communicate(self, *_: object) -> tuple[bytes, bytes]:
            known.wait()
            return b"", b""

        def kill(self) -> None:
            killed.append(self)

        def wait(self) -> None: ...

    monkeypatch.setattr(subprocess, "Popen", Slow)
    monkeypatch.setattr(files, "_abandoned", False)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            files._output(("slow",))
        except FileUnavailable as missing:
            failed.append(missing)

    thread = threading.Thread(target=work)
    thread.start()
    runs.wait()
    files.abandon()
    before = list(killed)
    known.set()
    thread.join()
    assert before
    with pytest.raises(FileUnavailable, match="leaving"):
        files._output(("another",))

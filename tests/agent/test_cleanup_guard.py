"""What the guard finds left to undo when its pipe ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from kptrace.agent.cleanup_guard import Undo, Undone, left

FIRST = Undo(1, "", "/proc/sys/net/netfilter/nf_log/2", "NONE")
SECOND = Undo(2, "", "/proc/sys/net/netfilter/nf_log/10", "NONE")


def _line(word: Undo | Undone) -> bytes:
    return msgspec.json.encode(word) + b"\n"


def test_nothing_was_changed() -> None:
    assert left([]) == []


def test_the_latest_change_is_undone_first() -> None:
    assert left([_line(FIRST), _line(SECOND)]) == [SECOND, FIRST]


def test_what_was_undone_is_not_undone_again() -> None:
    assert left([_line(FIRST), _line(SECOND), _line(Undone(1))]) == [SECOND]
    assert left([_line(FIRST), _line(Undone(1))]) == []


def test_a_line_cut_by_the_writers_death_is_skipped() -> None:
    assert left([_line(FIRST), _line(SECOND)[:20]]) == [FIRST]
    assert left([b"\xff\n", b"{}\n", _line(FIRST)]) == [FIRST]


def test_a_namespace_that_is_gone_is_no_error(tmp_path: Path) -> None:
    """It took with it what was to be undone; the guard leaves quietly."""
    gone = Undo(1, str(tmp_path / "gone"), str(tmp_path / "file"), "text")
    run = subprocess.run(
        [sys.executable, "-m", "kptrace.agent.cleanup_guard"],
        input=_line(gone),
        capture_output=True,
        timeout=20,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")

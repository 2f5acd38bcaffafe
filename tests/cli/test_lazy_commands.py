"""Each command that is listed is there, and only the one that was asked for is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kptrace.cli import SHORT
from kptrace.cli.lazy_commands import LazyCommands


@pytest.mark.parametrize("name", SHORT)
def test_each_command_is_there(name: str) -> None:
    made = LazyCommands()[name]
    assert made.help
    assert made is not LazyCommands()[name]


def test_no_other_is() -> None:
    rooms = LazyCommands()
    assert rooms.get("sideways") is None
    assert list(rooms) == list(SHORT)
    assert rooms["causes"] is rooms["causes"]


def imported(*args: str) -> set[str]:
    code = (
        "import sys, kptrace.cli.app\n"
        f"kptrace.cli.app._run({list(args)!r})\n"
        "print(*(m for m in sys.modules if m.startswith(('kptrace.cli.', 'kptrace.lab'))),"
        " file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_only_what_is_asked_for_is_imported() -> None:
    always = imported("--help")
    assert not any(f"kptrace.cli.{name}" in always for name in SHORT)
    assert imported("causes") - always == {"kptrace.cli.causes"}

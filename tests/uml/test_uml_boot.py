"""The harness itself: what a guest cannot tell must not be lost, and no guest outlives its pytest.

These run on the host; each boots a guest of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from uml.boot import HERE, MARKER, Guest, Run

ROOT = HERE.parents[1]
ONE = "tests/uml/guest/test_uml_kernel.py::test_it_is_another_kernel"
OWNER = """
import sys, time
from uml.boot import Guest
guest = Guest("echo it runs; sleep 1000")
while "it runs" not in guest.console.read_text(errors="replace"):
    time.sleep(0.1)
print(guest.directory, flush=True)
time.sleep(1000)
"""


@pytest.fixture
def guests() -> Iterator[list[Guest]]:
    made: list[Guest] = []
    yield made
    for guest in made:
        guest.close()


def processes(word: str) -> list[str]:
    """Those whose command line holds the word; a dead one that nobody has reaped has none."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def test_the_exit_code_is_what_the_script_says(guests: list[Guest]) -> None:
    guests.append(Guest("(exit 7)\n"))
    assert guests[0].exit_code() == 7
    assert f"{MARKER} 7" in guests[0].words()
    assert processes(str(guests[0].directory)) == []


def test_without_an_exit_marker_there_is_no_exit_code(guests: list[Guest]) -> None:
    """The first process dies, the kernel panics; a process that ended is no success."""
    guests.append(Guest("echo the last words\nexit 0\n"))
    assert guests[0].exit_code() is None
    assert "the last words" in guests[0].words()
    assert "panic" in guests[0].words()


def test_a_guest_that_hangs_is_ended_and_its_last_words_are_shown(guests: list[Guest]) -> None:
    run = Run([ONE], seconds=5, boot_seconds=0, script="echo about to hang\nsleep 1000\n")
    guests.append(run)
    while "about to hang" not in run.words():
        assert not run.ended
        time.sleep(0.1)
    assert run.wait_for(ONE) == []
    assert run.lost == ONE
    assert run.ended
    assert "about to hang" in run.words()


def test_a_test_in_the_guest_is_reported_in_all_its_phases(guests: list[Guest]) -> None:
    run = Run([ONE])
    guests.append(run)
    told = run.wait_for(ONE)
    assert [data["when"] for data in told] == ["setup", "call", "teardown"]
    assert not run.failed
    assert run.exit_code() == 0


def test_no_process_is_left_when_its_owner_is_killed() -> None:
    path = os.pathsep.join(filter(None, (str(ROOT / "tests"), os.environ.get("PYTHONPATH"))))
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert owner.stdout is not None
    directory = owner.stdout.readline().strip()
    assert processes(directory)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 60
    while processes(directory) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes(directory) == []


def test_what_a_guest_writes_stays_in_it(guests: list[Guest]) -> None:
    """All but its own directory: the host's files are a read-only layer below."""
    mark = HERE / f"written-{os.getpid()}"
    guests.append(Guest(f"echo x >{mark} && test -s {mark}\n"))
    assert guests[0].exit_code() == 0
    assert not mark.exists()

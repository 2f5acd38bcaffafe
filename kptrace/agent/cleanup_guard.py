"""Undoes what the kernel would not, when the agent is gone: even after SIGKILL.

In: lines on a pipe, each a thing to undo or word that it is undone already. Out: nothing. The
end of the pipe (the agent left, however) makes it undo what is left, in reverse order, and
leave.

Almost all that an agent arms hangs on its file descriptors and ends with them. A sysctl does
not. So before it is changed, its old value goes into the pipe: what was written there stays
readable after the writer's death, so no moment is left uncovered. The guard is started when the
first thing needs it, in a session of its own, and is not reached by a signal to the agent's
process group.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from kptrace.agent import python_child
from kptrace.agent.netns import run_in_netns

if TYPE_CHECKING:
    import subprocess


class Undo(msgspec.Struct, frozen=True, tag=True):
    """Write ``text`` to ``path``, as seen in a namespace."""

    id: int
    netns: str
    path: str
    text: str


class GuardRequest(msgspec.Struct, frozen=True, tag=True):
    """Run a program in a namespace, with this text on its stdin."""

    id: int
    netns: str
    argv: tuple[str, ...]
    text: str


class Undone(msgspec.Struct, frozen=True, tag=True):
    id: int


_decode = msgspec.json.Decoder(Undo | GuardRequest | Undone).decode


class Guard:
    """The agent's end."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._kept: dict[int, Undo | GuardRequest] = {}
        self._last_id = 0

    def change(self, netns: str, path: str, text: str) -> int:
        """Write ``text``; what stood there comes back with ``undo``, or when we are gone."""
        self._last_id += 1
        old = run_in_netns(netns, Path(path).read_text).strip()
        undo = Undo(self._last_id, netns, path, old)
        self._tell(undo)
        self._kept[undo.id] = undo
        run_in_netns(netns, partial(Path(path).write_text, text))
        return undo.id

    def order(self, netns: str, argv: tuple[str, ...], text: str) -> int:
        """A program to be run by ``undo``, or when we are gone: before what it undoes is done."""
        self._last_id += 1
        order = GuardRequest(self._last_id, netns, argv, text)
        self._tell(order)
        self._kept[order.id] = order
        return order.id

    def undo(self, id: int) -> None:
        _undo(self._kept.pop(id))
        with suppress(OSError):  # if the guard is dead, there is nobody to tell
            self._tell(Undone(id))

    def _tell(self, word: Undo | GuardRequest | Undone) -> None:
        pipe = self._pipe()
        pipe.write(msgspec.json.encode(word) + b"\n")
        pipe.flush()

    def _pipe(self) -> IO[bytes]:
        if self._process is None:
            import subprocess  # seldom needed, and slow to import

            self._process = subprocess.Popen(
                python_child.command("kptrace.agent.cleanup_guard"),
                env=python_child.environ(),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        return self._process.stdin

    def close(self) -> None:
        if self._process is not None:
            with suppress(OSError):
                self._pipe().close()
            self._process.wait()


def left(lines: Iterable[bytes]) -> list[Undo | GuardRequest]:
    """What is still to be undone at the end of the pipe, the latest first."""
    open_: dict[int, Undo | GuardRequest] = {}
    for line in lines:
        with suppress(msgspec.DecodeError):  # the writer may have died in mid-line
            word = _decode(line)
            if isinstance(word, Undone):
                open_.pop(word.id, None)
            else:
                open_[word.id] = word
    return list(reversed(open_.values()))


def _undo(undo: Undo | GuardRequest) -> None:
    with suppress(OSError):  # the namespace may be gone, and with it what was to be undone
        if isinstance(undo, GuardRequest):
            run_within(undo.netns, undo.argv, undo.text)
            return
        run_in_netns(undo.netns, partial(Path(undo.path).write_text, undo.text))


def run_within(netns: str, argv: tuple[str, ...], text: str) -> str:
    """Why the program failed; empty when it did not."""
    import subprocess

    run = partial(subprocess.run, argv, input=text, capture_output=True, text=True, timeout=60)
    try:
        ended: subprocess.CompletedProcess[str] = run_in_netns(netns, run)
    except FileNotFoundError:
        return f"{argv[0]} is not installed"
    return ended.stderr.strip() if ended.returncode else ""


def main() -> None:
    for undo in left(sys.stdin.buffer):
        _undo(undo)


if __name__ == "__main__":
    main()

"""The client's end of an agent that runs as a child of this process.

In: the node's name and the doors to its places. Out: an ``Agent`` (protocol.py): requests go in,
replies come out in order, and a dead or dumb agent is an AgentFailed with what it said last.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import IO

from kptrace.errors import AgentFailed
from kptrace.node import ahead
from kptrace.protocol import (
    UNREADABLE,
    Done,
    Door,
    Enter,
    Oops,
    Ready,
    Reply,
    Request,
    decode_reply,
    encode,
)

_ENTER = 1  # the id of our own request; callers begin above it
_START = 10.0  # seconds for the agent to come up
_LEAVE = 3.0
_MAX_LINE = 256 << 20
_LAST_WORDS = 20


class LocalAgent:
    """``with LocalAgent("node-a", doors) as agent: ...``"""

    def __init__(self, node: str, doors: tuple[Door, ...]) -> None:
        self.node = node
        self.log: list[Reply] = []
        self._doors = doors
        self._said: dict[int, int] = {}
        self._news = threading.Condition()
        self._entered = False
        self._broken = ""
        self._stderr: deque[str] = deque(maxlen=_LAST_WORDS)

    def __enter__(self) -> LocalAgent:
        self._process = ahead.take()
        self._threads = [self._reader(self._read_replies), self._reader(self._read_stderr)]
        try:
            self.send(Enter(id=_ENTER, doors=self._doors))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> int | None:
        """Its exit code, negative for a signal; None while it lives."""
        return self._process.poll()

    def send(self, request: Request) -> None:
        with self._news:
            self._said[request.id] = len(self.log)
            if self._broken:
                raise self._dead()
        try:
            stdin = _pipe(self._process.stdin)
            stdin.write(encode(request) + b"\n")
            stdin.flush()
        except (OSError, ValueError):
            raise self._dead() from None

    def wait(self, id: int, timeout: float) -> bool:
        # Several agents start at once: the first wait is for this one's start too.
        if not self._entered:
            self._entered = True
            if not self._await(_ENTER, _START):
                raise AgentFailed(f"the agent on {self.node} did not start in {_START:g} s")
        return self._await(id, timeout)

    def _await(self, id: int, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        at = self._said.get(id, 0)
        while True:
            with self._news:
                while at >= len(self.log):
                    left = deadline - time.monotonic()
                    if self._broken:
                        raise self._dead()
                    if left <= 0:
                        return False
                    self._news.wait(left)
                reply = self.log[at]
            at += 1
            if isinstance(reply, Oops) and reply.id in (id, 0):
                raise AgentFailed(f"agent on {self.node}: {reply.message}", reply.hint)
            if isinstance(reply, Done | Ready) and reply.id == id:
                return True

    def close(self) -> None:
        """The end of its input is the agent's order to disarm and leave."""
        process = self._process
        with suppress(OSError):  # it may have died before us
            _pipe(process.stdin).close()
        try:
            process.wait(_LEAVE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in (process.stdout, process.stderr):
            _pipe(pipe).close()

    # --- inside -------------------------------------------------------------------------------

    def _dead(self) -> AgentFailed:
        last_line = next((line for line in reversed(self._stderr) if line), "")
        words = last_line or self._broken or "it said nothing"
        return AgentFailed(
            f"the agent on {self.node} died: {words}",
            "run as root; if it is, this is a bug: please report the message",
        )

    def _reader(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name=f"agent {self.node}", daemon=True)
        thread.start()
        return thread

    def _read_replies(self) -> None:
        why = "its output ended"
        for line in iter(lambda: _pipe(self._process.stdout).readline(_MAX_LINE), b""):
            try:
                reply = decode_reply(line)
            except UNREADABLE as error:
                why = f"it answered nonsense: {error}"
                break
            with self._news:
                self.log.append(reply)
                self._news.notify_all()
        with self._news:
            self._broken = why
            self._news.notify_all()

    def _read_stderr(self) -> None:
        for line in _pipe(self._process.stderr):
            self._stderr.append(line.decode(errors="replace").strip())


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # all three were asked for
    return pipe

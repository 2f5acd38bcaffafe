"""The client's end of a conversation with one agent, whatever carries its lines.

In: the agent's lines as they arrive (``heard``) and the news that no more will come (``over``).
Out: an ``Agent`` (protocol.py): requests go in, replies come out in order, and a dead or dumb agent
is an AgentFailed with what it said last. A transport adds how a line is written, and how it ends.

Between who hears and who waits there is a list and a bell, and no lock of Python's: an interrupt
(Ctrl-C) may come between taking such a lock and the block that would give it back, and then who
hears would stand there for ever, and with it the end of the program.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque

from kptrace.agent_client.wakeup_pipe import WakeupPipe
from kptrace.model.errors import AgentError, ObservationError
from kptrace.protocol import (
    UNREADABLE,
    CaptureStarted,
    Done,
    ErrorReply,
    NetnsHandle,
    OpenNamespaces,
    Reply,
    Request,
    decode_reply,
    encode,
)

ENTER = 1  # the id of our own request; callers begin above it
MAX_LINE = 256 << 20
_LAST_WORDS = 20
_REASON = 3.0  # seconds; longer than the API takes to tell what became of a pod


class AgentConnection(ABC):
    start_seconds = 10.0
    hint = "this is a bug: please report the message"
    rights = ""  # how it could have more

    def __init__(self, node: str, handles: tuple[NetnsHandle, ...]) -> None:
        self.node = node
        self.log: list[Reply] = []
        self.last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._handles = handles
        self._said: dict[int, int] = {}
        self._bell = WakeupPipe()
        self._entered = False
        self._over: ObservationError | str = ""

    @abstractmethod
    def _write(self, line: bytes) -> None:
        """OSError or ValueError: it is gone."""

    @abstractmethod
    def close(self) -> None:
        """End of input; wait until the agent has disarmed and left."""

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what the caller says -----------------------------------------------------------------

    def send(self, request: Request) -> None:
        self._said[request.id] = len(self.log)
        if self._over:
            raise self._failure()
        try:
            self._write(encode(request) + b"\n")
        except (OSError, ValueError):
            self._await_reason()
            raise self._failure() from None

    def _await_reason(self) -> None:
        """Who reads from it learns why it is gone, perhaps a little later than who writes to it."""
        deadline = time.monotonic() + _REASON
        while not self._over and (left := deadline - time.monotonic()) > 0:
            self._bell.wait(left)

    def wait(self, id: int, timeout: float) -> bool:
        # Several agents start at once: the first wait is for this one's start too.
        self.wait_until_entered()
        return self._await(id, timeout)

    def wait_until_entered(self) -> None:
        if not self._entered:
            self._entered = True
            if not self._await(ENTER, self.start_seconds):
                raise AgentError(
                    f"the agent on {self.node} did not start in {self.start_seconds:g} s"
                )

    def _enter(self) -> OpenNamespaces:
        return OpenNamespaces(id=ENTER, namespaces=self._handles, rights=self.rights)

    def _await(self, id: int, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        at = self._said.get(id, 0)
        while True:
            over = self._over  # before the log: the last reply came before the end
            if at >= len(self.log):
                left = deadline - time.monotonic()
                if over:
                    raise self._failure()
                if left <= 0:
                    return False
                self._bell.wait(left)
                continue
            reply = self.log[at]
            at += 1
            if isinstance(reply, ErrorReply) and reply.id in (id, 0):
                raise AgentError(f"agent on {self.node}: {reply.message}", reply.hint)
            if isinstance(reply, Done | CaptureStarted) and reply.id == id:
                return True

    def _failure(self) -> ObservationError:
        """Said when it is asked for: its last words may come after the end of its output."""
        if isinstance(self._over, ObservationError):
            return self._over
        last_line = next((line for line in reversed(self.last_words) if line), "")
        text = last_line or self._over or "it said nothing"
        return AgentError(f"the agent on {self.node} died: {text}", self.hint)

    # --- what the transport hears -------------------------------------------------------------

    def on_line(self, line: bytes) -> bool:
        """False: it was nonsense, and nothing more is wanted from there."""
        try:
            reply = decode_reply(line)
        except UNREADABLE as error:
            self.over(f"it answered nonsense: {error}")
            return False
        self.log.append(reply)
        self._bell.ring()
        return True

    def over(self, why: ObservationError | str) -> None:
        """No more will come. The first reason is the one that counts."""
        self._over = self._over or why
        self._bell.ring()

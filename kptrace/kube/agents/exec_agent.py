"""An agent in a container of the cluster, reached through the API server's exec stream.

In: the container (container.py), and the handles of its namespaces. Out: an ``Agent``. Nothing
listens on a port: requests are the program's stdin, replies its stdout.

The pod is tried as soon as it is made: whether its container runs is known earliest by starting
something in it, about a second before the kubelet's report of it reaches the API.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress

import msgspec

from kptrace.agent_client.connection import MAX_LINE, AgentConnection
from kptrace.kube.agents import bootstrap
from kptrace.kube.agents.container import OTHER_IMAGE, AgentContainer
from kptrace.kube.client.client import ApiError, Status
from kptrace.kube.client.exec_stream import STATUS, STDERR, STDOUT, ExecStream, ending
from kptrace.model import ProgressCallback
from kptrace.model.errors import (
    AgentError,
    ClusterUnreachableError,
    KptraceError,
    ObservationError,
    UnsupportedError,
)
from kptrace.protocol import NetnsHandle, encode

START_SECONDS = 60.0  # a pod has to be started, its image perhaps pulled
_AGAIN = 0.1
_LEAVE = 3.0
_AFTERMATH = 1.5  # until the API tells what became of a pod whose stream has ended


class ExecAgentClient(AgentConnection):
    """``begin`` starts it and returns; ``wait_until_entered`` waits, or says why it cannot be."""

    start_seconds = START_SECONDS + 10.0

    def __init__(
        self,
        node: str,
        handles: tuple[NetnsHandle, ...],
        container: AgentContainer,
        image: str,
        progress: ProgressCallback,
    ) -> None:
        super().__init__(node, handles)
        self.rights = container.rights
        self._container, self._image, self._tell = container, image, progress
        self._leaving = threading.Event()
        self._channel: ExecStream | None = None
        self._thread = threading.Thread(target=self._live, name=f"agent {node}", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """The end of its input is the agent's order to disarm; then its pod is not needed."""
        self._leaving.set()
        try:
            if self._channel:
                self._channel.end()
            if self._thread.ident is not None:
                self._thread.join(_LEAVE)
            if self._channel:
                self._channel.close()
            if self._thread.ident is not None:
                self._thread.join()
        finally:
            self._container.remove()

    # --- inside: one thread -------------------------------------------------------------------

    def _live(self) -> None:
        try:
            self._container.create()
            with_word = self._started()
            if with_word:
                self._converse(*with_word)
        except KptraceError as error:
            self.over(error if isinstance(error, ObservationError) else str(error))
        except OSError as error:
            self.over(f"its exec stream was cut: {error}")

    def _started(self) -> tuple[ExecStream, _Lines] | None:
        """The stream with its first line heard; None: we leave."""
        deadline = time.monotonic() + START_SECONDS
        while not self._leaving.is_set():
            waits_for = self._container.look()
            self._tell(f"starting an agent on {self.node}" + (f": {waits_for}" * bool(waits_for)))
            channel = self._container.exec(bootstrap.command())
            self._channel, lines = channel, _Lines(channel, self.last_words)
            word = next(lines, None)
            if word is not None:
                self._be_at_home(channel, word)
                return channel, lines
            channel.close()
            self._check(channel, lines)
            if time.monotonic() > deadline:
                raise AgentError(
                    f"the agent's pod {self._container.name} did not start on {self.node} in "
                    f"{START_SECONDS:g} s: {waits_for or lines.last_word}",
                    f"kubectl describe pod -n {self._container.name.replace('/', ' ')}  # events",
                )
            self._leaving.wait(_AGAIN)
        return None

    def _check(self, channel: ExecStream, lines: _Lines) -> None:
        """Not yet there is no fault; but what will not change is."""
        if channel.refused and channel.refused[0] in (401, 403):
            raise ApiError(channel.refused[0], _status(channel.refused[1]))
        said = ending(lines.status).message if lines.status else ""
        if "executable file not found" in said or "no such file or directory" in said:
            raise UnsupportedError(f"the image {self._image} has no python3", OTHER_IMAGE)
        if lines.status and ending(lines.status).exit_code:
            text = self.last_words[-1] if self.last_words else said
            raise AgentError(f"the agent did not start on {self.node}: {text}", OTHER_IMAGE)

    def _be_at_home(self, channel: ExecStream, line: bytes) -> None:
        try:
            word = msgspec.json.decode(line, type=bootstrap.RemotePythonInfo)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise AgentError(f"the agent on {self.node} answered nonsense: {error}") from None
        if not word.same:
            self._tell(f"sending the agent to {self.node}")
            channel.write(bootstrap.payload(word, self._image))

    def _converse(self, channel: ExecStream, lines: _Lines) -> None:
        channel.write(encode(self._enter()) + b"\n")
        for line in lines:
            if not self.on_line(line):
                channel.close()
                return
        if not self._leaving.is_set():
            self.over(self._cause_of_death(lines))

    def _cause_of_death(self, lines: _Lines) -> ObservationError | str:
        """The pod's own state tells more than a stream that has ended."""
        until = time.monotonic() + _AFTERMATH
        unreachable: ClusterUnreachableError | None = None
        while time.monotonic() < until and not self._leaving.is_set():
            try:
                self._container.look()
                unreachable = None
            except ClusterUnreachableError as error:
                unreachable = error  # what cut the stream may have cut this, too
            except ObservationError as error:
                return error
            if lines.status:
                break
            self._leaving.wait(_AGAIN)
        if lines.status:
            return ending(lines.status).message or "it ended"
        return unreachable or AgentError(
            f"the exec stream to the agent on {self.node} was cut",
            "between here and the node something ends long connections; try again",
        )

    def _write(self, line: bytes) -> None:
        if self._channel is None:
            raise ValueError("not yet there")
        self._channel.write(line)


class _Lines:
    """The lines of stdout; what came on the other streams is kept."""

    def __init__(self, channel: ExecStream, errors: deque[str]) -> None:
        self._frames = channel.frames()
        self._ready: deque[bytes] = deque()
        self._rest: list[bytes] = []
        self._length = 0
        self._errors = errors
        self.status = b""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> bytes:
        while not self._ready:
            self._take(*next(self._frames))
        return self._ready.popleft()

    @property
    def last_word(self) -> str:
        return ending(self.status).message if self.status else "no word"

    def _take(self, stream: int, data: bytes) -> None:
        if stream == STATUS:
            self.status += data
        elif stream == STDERR:
            self._errors += [line for line in data.decode(errors="replace").splitlines() if line]
        elif stream == STDOUT:
            *whole, rest = data.split(b"\n")
            for line in whole:
                self._ready.append(b"".join((*self._rest, line)))
                self._rest, self._length = [], 0
            self._rest.append(rest)
            self._length += len(rest)
            if self._length > MAX_LINE:
                raise OSError("a line without end")


def _status(body: bytes) -> Status:
    with suppress(msgspec.DecodeError, UnicodeError):
        return msgspec.json.decode(body, type=Status)
    return Status(message=body.decode(errors="replace"))

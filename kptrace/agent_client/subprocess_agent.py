"""An agent that runs as a child of this process, and our end of the conversation with it."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from kptrace.agent import python_child
from kptrace.agent_client.connection import MAX_LINE, AgentConnection
from kptrace.model.errors import ObservationError

_LEAVE = 10.0  # seconds; it ends programs and disarms, on a node that may be busy


class SubprocessAgent(AgentConnection):
    """An agent as a child process: ``with SubprocessAgent("node-a", handles) as agent: ...``"""

    hint = "run as root; if it is, this is a bug: please report the message"

    def __enter__(self) -> SubprocessAgent:
        try:
            # A session of its own: Ctrl-C reaches us first, and we end the agent in good order.
            self._process = subprocess.Popen(
                python_child.command("kptrace.agent.server"),
                env=python_child.environ(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise ObservationError(f"no agent can be started on {self.node}: {error}") from None
        self._threads = [self._reader(self._read_replies), self._reader(self._read_stderr)]
        try:
            self.send(self._enter())
        except BaseException:
            self.close()
            raise
        return self

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> int | None:
        """Its exit code, negative for a signal; None while it lives."""
        return self._process.poll()

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

    def _write(self, line: bytes) -> None:
        stdin = _pipe(self._process.stdin)
        stdin.write(line)
        stdin.flush()

    def _reader(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name=f"agent {self.node}", daemon=True)
        thread.start()
        return thread

    def _read_replies(self) -> None:
        for line in iter(lambda: _pipe(self._process.stdout).readline(MAX_LINE), b""):
            if not self.on_line(line):
                return
        self.over("its output ended")

    def _read_stderr(self) -> None:
        for line in _pipe(self._process.stderr):
            self.last_words.append(line.decode(errors="replace").strip())


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # all three were asked for
    return pipe

"""An agent in a thread of this process, and our end of the conversation with it: to look only.

A process of its own would first have to start and to import what we have already, which takes
longer than looking does. What an agent arms ends with its process, so where anything is armed
an agent has one (subprocess_agent.py).
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from kptrace.agent.server import AgentServer
from kptrace.agent_client.connection import AgentConnection
from kptrace.model.errors import ObservationError
from kptrace.protocol import NetnsHandle

if TYPE_CHECKING:
    from kptrace.agent.nftables.prefetch import Prefetcher

_NONE = -1
_LEAVE = 10.0  # seconds; it ends the programs that it runs


class ThreadAgent(AgentConnection):
    """An agent as a thread: ``with ThreadAgent("node-a", handles) as agent: ...``"""

    hint = "run as root; if it is, this is a bug: please report the message"

    def __init__(
        self, node: str, handles: tuple[NetnsHandle, ...], ahead: Prefetcher | None = None
    ) -> None:
        """``ahead``: what this process has begun to read where it stands."""
        super().__init__(node, handles)
        self._ahead = ahead
        self._theirs, self._ours = os.pipe()
        self._thread = threading.Thread(target=self._run, name=f"agent {node}", daemon=True)

    def __enter__(self) -> ThreadAgent:
        try:
            self._thread.start()
        except RuntimeError as error:
            raise ObservationError(f"no agent can be started on {self.node}: {error}") from None
        self.send(self._enter())
        return self

    def close(self) -> None:
        file, self._ours = self._ours, _NONE
        if file != _NONE:
            os.close(file)
        self._thread.join(_LEAVE)

    # --- inside -------------------------------------------------------------------------------

    def _write(self, line: bytes) -> None:
        while line:
            line = line[os.write(self._ours, line) :]

    def _run(self) -> None:
        try:
            AgentServer(self._theirs, self._hear, self._ahead).run()
            self.over("it has left")
        except Exception as error:
            self.over(f"{type(error).__name__}: {error}")
        finally:
            os.close(self._theirs)

    def _hear(self, lines: bytes) -> None:
        for line in lines.splitlines():
            self.on_line(line)

"""The process of an agent, started ahead: while the client still imports what it needs itself.

An agent takes as long to come up as a client does. One that is not taken ends by itself when its
stdin is closed, which is when we end.
"""

from __future__ import annotations

import subprocess

from kptrace.node import child

_begun: list[subprocess.Popen[bytes]] = []


def begin() -> None:
    _begun.append(_start())


def take() -> subprocess.Popen[bytes]:
    """One that is on its way, else a new one."""
    return _begun.pop() if _begun else _start()


def _start() -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches us first, and we end the agent in good order.
    return subprocess.Popen(
        child.command("kptrace.node.agent"),
        env=child.environ(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )

"""A bell that one thread rings and another hears, through a pipe.

To wait at it takes no lock of Python's, which an interrupt (Ctrl-C) could leave taken. A queue's
``get`` with a timeout would not do either: SimpleQueue waits for ever if the time is up between
its first try and its wait (CPython 3.11, _queuemodule.c: what is left is then negative, which the
lock takes for "no limit").
"""

from __future__ import annotations

import os
import select
import weakref
from contextlib import suppress


class WakeupPipe:
    def __init__(self) -> None:
        self._heard, self._rung = os.pipe()
        for end in (self._heard, self._rung):
            os.set_blocking(end, False)
        weakref.finalize(self, _close, self._heard, self._rung)

    def ring(self) -> None:
        with suppress(BlockingIOError):  # full: it was rung often enough
            os.write(self._rung, b"\0")

    def wait(self, seconds: float) -> None:
        """Until it rings, or rang since the last wait; at most so long."""
        waiting = select.poll()
        waiting.register(self._heard, select.POLLIN)
        if waiting.poll(max(0.0, seconds) * 1000):
            with suppress(BlockingIOError):
                os.read(self._heard, 1 << 16)


def _close(*ends: int) -> None:
    for end in ends:
        os.close(end)

"""One thread that does many things at once: sources that are read when they have something, and
tasks.

A task is a generator. Where it must wait it yields a Wait and is sent True when the file is
ready or False when the deadline has passed. So a connection reads as the story that it is, and a
hundred of them do not hold up an order to stop.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Generator
from typing import NamedTuple, Protocol

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class Wait(NamedTuple):
    file: HasFileno
    events: int
    deadline: float  # time.monotonic()


Task = Generator[Wait, bool, None]


class Loop:
    def __init__(self) -> None:
        self._selector = selectors.PollSelector()  # unlike epoll, takes a file as stdin
        self._waiting: dict[Task, Wait] = {}
        self._running = True

    def watch(self, file: HasFileno, ready: Callable[[], None]) -> None:
        self._selector.register(file, READ, ready)

    def unwatch(self, file: HasFileno) -> None:
        self._selector.unregister(file)

    def start(self, task: Task) -> None:
        self._wait_for(task, lambda: next(task))

    def end(self, task: Task) -> None:
        """The task goes on as if each of its deadlines had passed."""
        while task in self._waiting:
            self._resume(task, False)

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        while self._running:
            for key, _ in self._selector.select(self._next_timeout()):
                key.data()
            now = time.monotonic()
            for task in [t for t, wait in self._waiting.items() if wait.deadline <= now]:
                self._resume(task, False)

    def _next_timeout(self) -> float | None:
        if not self._waiting:
            return None
        return max(0.0, min(w.deadline for w in self._waiting.values()) - time.monotonic())

    def _ready(self, task: Task, wait: Wait) -> None:
        if self._waiting.get(task) is wait:  # else something before it in this round ended it
            self._resume(task, True)

    def _resume(self, task: Task, ready: bool) -> None:
        self._forget(task)
        self._wait_for(task, lambda: task.send(ready))

    def _wait_for(self, task: Task, step: Callable[[], Wait]) -> None:
        try:
            wait = step()
        except StopIteration:
            return
        self._waiting[task] = wait
        self._selector.register(wait.file, wait.events, lambda: self._ready(task, wait))

    def _forget(self, task: Task) -> None:
        self._selector.unregister(self._waiting.pop(task).file)

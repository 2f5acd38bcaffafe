"""The loop: sources, tasks that wait, deadlines, and being told to stop."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from kptrace.agent.loop import READ, Loop, Task, Wait


class Pipe:
    def __init__(self) -> None:
        self.end, self._start = os.pipe()

    def fileno(self) -> int:
        return self.end

    def put(self, data: bytes = b"x") -> None:
        os.write(self._start, data)

    def close(self) -> None:
        os.close(self.end)
        os.close(self._start)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


NEVER, PAST = time.monotonic() + 1e6, 0.0


def test_a_source_is_read_when_it_has_something(pipe: Pipe) -> None:
    loop = Loop()
    read: list[bytes] = []

    def ready() -> None:
        read.append(os.read(pipe.fileno(), 10))
        loop.stop()

    loop.watch(pipe, ready)
    pipe.put(b"news")
    loop.run()
    assert read == [b"news"]


def _story(pipe: Pipe, deadline: float, told: list[object], loop: Loop, waits: int = 1) -> Task:
    for _ in range(waits):
        told.append((yield Wait(pipe, READ, deadline)))
    loop.stop()


def test_a_task_goes_on_when_its_file_is_ready(pipe: Pipe) -> None:
    loop, told = Loop(), list[object]()
    pipe.put()
    loop.start(_story(pipe, NEVER, told, loop, waits=2))
    loop.run()
    assert told == [True, True]


def test_a_task_goes_on_when_its_deadline_has_passed(pipe: Pipe) -> None:
    loop, told = Loop(), list[object]()
    loop.start(_story(pipe, PAST, told, loop))
    loop.run()
    assert told == [False]


def test_a_task_that_is_ended_finishes_its_story(pipe: Pipe) -> None:
    loop, told = Loop(), list[object]()
    task = _story(pipe, NEVER, told, loop, waits=3)
    loop.start(task)
    loop.end(task)
    assert told == [False, False, False]
    loop.end(task)  # a second time is nothing


def test_what_one_callback_ends_the_same_round_does_not_wake(pipe: Pipe) -> None:
    loop, told, other = Loop(), list[object](), Pipe()
    task = _story(pipe, NEVER, told, loop)
    loop.watch(other, lambda: loop.end(task))
    loop.start(task)
    pipe.put()
    other.put()
    loop.run()
    assert len(told) == 1
    other.close()

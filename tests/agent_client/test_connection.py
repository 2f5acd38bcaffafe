"""The client's end: replies in order, waits that end, and interrupts that leave nothing locked."""

from __future__ import annotations

import gc
import random
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from kptrace.agent_client.connection import AgentConnection
from kptrace.model import Netns
from kptrace.model.errors import AgentError
from kptrace.protocol import Done, ErrorReply, GetConntrack, encode


class Dumb(AgentConnection):
    """Nobody is there but who calls ``heard``."""

    def _write(self, line: bytes) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def talk() -> Dumb:
    made = Dumb("node-a", ())
    made.on_line(encode(Done(id=1)))  # it has entered
    return made


def asked(id: int) -> GetConntrack:
    return GetConntrack(id=id, netns=Netns(node="node-a"), flows=())


def test_a_wait_ends_with_its_own_done(talk: Dumb) -> None:
    talk.send(asked(5))
    talk.send(asked(6))
    talk.on_line(encode(Done(id=6)))
    assert talk.wait(6, 1)
    assert not talk.wait(5, 0.01)
    talk.on_line(encode(Done(id=5)))
    assert talk.wait(5, 1)


def test_a_wait_is_woken_by_another_thread(talk: Dumb) -> None:
    talk.send(asked(5))
    teller = threading.Timer(0.05, lambda: talk.on_line(encode(Done(id=5))))
    teller.start()
    assert talk.wait(5, 60)
    teller.join()


def test_the_end_is_told_after_the_last_reply(talk: Dumb) -> None:
    talk.send(asked(5))
    talk.on_line(encode(Done(id=5)))
    talk.over("its output ended")
    assert talk.wait(5, 1)
    with pytest.raises(AgentError, match="its output ended"):
        talk.wait(6, 60)


def test_who_writes_to_one_that_is_gone_is_told_why(talk: Dumb) -> None:
    """The pipe breaks before the reader has heard of it."""

    def broken(_: bytes) -> None:
        teller.start()
        raise BrokenPipeError("gone")

    teller = threading.Timer(0.05, lambda: talk.over("its pod was evicted"))
    talk._write = broken  # type: ignore[method-assign]
    with pytest.raises(AgentError, match="its pod was evicted"):
        talk.send(asked(5))
    teller.join()


def test_an_oops_is_a_failure(talk: Dumb) -> None:
    talk.send(asked(5))
    talk.on_line(encode(ErrorReply(id=5, message="no such door", hint="send Enter")))
    with pytest.raises(AgentError, match="no such door"):
        talk.wait(5, 1)


class Interrupted(BaseException):
    """As KeyboardInterrupt, of which pytest has an opinion of its own."""


def interrupted(talk: Dumb, id: int, after: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, after)
    while True:
        talk.wait(id, 1e-5)


@pytest.fixture
def alarm() -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    gc.disable()  # what is raised in a callback of the collector (hypothesis has one) is lost
    yield
    gc.enable()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_an_interrupt_at_any_moment_leaves_who_hears_free(talk: Dumb, alarm: None) -> None:
    """Whenever it comes, another thread can still say something, and a later wait hears it."""
    chance = random.Random(7)
    for id in range(10, 400):
        talk.send(asked(id))
        with pytest.raises(Interrupted):
            interrupted(talk, id, chance.uniform(1e-6, 2e-4))
        teller = threading.Thread(target=talk.on_line, args=(encode(Done(id=id)),), daemon=True)
        teller.start()
        teller.join(30)
        assert not teller.is_alive()
        assert talk.wait(id, 30)

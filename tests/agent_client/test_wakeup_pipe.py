"""The bell: heard once however often it was rung, and no wait is longer than it may be."""

from __future__ import annotations

import os
import threading
import time

from kptrace.agent_client.wakeup_pipe import WakeupPipe


def test_a_ring_before_the_wait_is_heard() -> None:
    bell = WakeupPipe()
    for _ in range(100_000):  # more than a pipe holds
        bell.ring()
    began = time.monotonic()
    bell.wait(60)
    bell.wait(0.01)
    assert time.monotonic() - began < 60


def test_a_ring_in_another_thread_is_heard() -> None:
    bell = WakeupPipe()
    threading.Timer(0.01, bell.ring).start()
    bell.wait(60)


def test_no_wait_is_too_short() -> None:
    bell = WakeupPipe()
    for seconds in (0.0, -1.0, 1e-9, 1e-5):
        bell.wait(seconds)


def test_nothing_stays_open() -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(10):
        WakeupPipe().ring()
    assert len(os.listdir("/proc/self/fd")) == len(before)

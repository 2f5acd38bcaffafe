"""Stamps are on when they are said to be, even right after the last who wanted them went."""

from __future__ import annotations

import socket
import time
from struct import unpack

import pytest

from kptrace.agent.capture.rx_timestamps import RxTimestamping

pytestmark = pytest.mark.kernel


def test_what_passes_after_settling_is_stamped_as_it_passes() -> None:
    for _ in range(200):  # switching them off and on again races with a work queue
        stamps = RxTimestamping()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            sock.setsockopt(socket.SOL_SOCKET, 35, 1)
            assert stamps.settle()
            sock.sendto(b"x", sock.getsockname())
            sent = time.time_ns()
            _, ((_, _, value),), _, _ = sock.recvmsg(1, 64)
        seconds, nanoseconds = unpack("qq", value)
        assert seconds * 1_000_000_000 + nanoseconds <= sent
        stamps.close()

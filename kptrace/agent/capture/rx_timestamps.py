"""Time stamps on packets, on for certain.

In: nothing. Out: from ``settle`` on, every packet that a tap is given has the time at which it
passed.

The kernel stamps packets only while some socket wants it. The first one that does has it switched
on in the background (net/core/dev.c, net_enable_timestamp: a work queue patches the code), and
what passes before that is stamped when it is read, which may be later than the stamp of a tap
further on. So one socket wants stamps for as long as we live, and a datagram to ourselves shows
that they are on: then its stamp is not later than the end of its sending.
"""

from __future__ import annotations

import os
import socket
import time
from struct import unpack

_SO_TIMESTAMPNS = 35
_PATIENCE_NS = 500_000_000


class RxTimestamping:
    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.settimeout(_PATIENCE_NS / 1e9)
        self._socket.bind(("127.0.0.1", 0))

    def settle(self) -> bool:
        """Wait until stamps are on; false where that cannot be seen (``lo`` is down)."""
        until = time.monotonic_ns() + _PATIENCE_NS
        try:
            while not self._on():
                if time.monotonic_ns() > until:
                    return False
                os.sched_yield()
        except OSError:
            return False
        return True

    def _on(self) -> bool:
        self._socket.sendto(b"", self._socket.getsockname())
        sent = time.time_ns()
        _, notes, _, _ = self._socket.recvmsg(1, 64)
        return any(
            _nanoseconds(value) <= sent
            for level, kind, value in notes
            if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS)
        )

    def close(self) -> None:
        self._socket.close()


def _nanoseconds(value: bytes) -> int:
    seconds, nanoseconds = unpack("qq", value[:16])
    return int(seconds * 1_000_000_000 + nanoseconds)

"""Many datagrams by one call: how long dumps of netlink are received.

In: a socket. Out: what is waiting there, a datagram each.

The kernel makes a part of a dump, of at most 32 KiB, whenever the last one was received
(netlink_recvmsg in net/netlink/af_netlink.c), so recvmmsg(2) alone brings about many parts. For all
of them Python's lock is given up once. Part by part it would have to be won back each time, and who
imports meanwhile holds it for 5 ms: of a dump of 60 ms that makes 130.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Iterator

_PARTS = 16
_LARGEST = 1 << 15
_libc = ctypes.CDLL(None, use_errno=True)


class _Room(ctypes.Structure):
    """struct iovec"""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr"""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("rooms", ctypes.c_void_p),
        ("room_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Datagram(ctypes.Structure):
    """struct mmsghdr"""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


class MultiReceiver:
    """Room for one call at a time, used again by the next. Each takes twice as many as the one
    before: who has soon heard enough spares the kernel the rest.
    """

    def __init__(self) -> None:
        self._most = 1
        self._bytes = bytearray(_PARTS * _LARGEST)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._bytes))
        self._rooms = (_Room * _PARTS)(
            *(_Room(start + part * _LARGEST, _LARGEST) for part in range(_PARTS))
        )
        first, size = ctypes.addressof(self._rooms), ctypes.sizeof(_Room)
        self._datagrams = (_Datagram * _PARTS)(
            *(_Datagram(_Header(None, 0, first + part * size, 1)) for part in range(_PARTS))
        )

    def receive(self, sock: socket.socket) -> Iterator[bytes]:
        """At least one datagram; waits for it as long as the socket does. Raises OSError."""
        count = self._call(sock, self._most)
        self._most = min(2 * self._most, _PARTS)
        for part, datagram in enumerate(self._datagrams[:count]):
            if datagram.header.flags & socket.MSG_TRUNC:
                raise OSError(errno.EMSGSIZE, "a part of a dump is longer than its room")
            start = part * _LARGEST
            yield bytes(memoryview(self._bytes)[start : start + datagram.length])

    def _call(self, sock: socket.socket, most: int) -> int:
        while True:
            count: int = _libc.recvmmsg(
                sock.fileno(), self._datagrams, most, socket.MSG_DONTWAIT, None
            )
            if count > 0:
                return count
            number = ctypes.get_errno()
            if number == errno.EAGAIN:
                sock.recv(1, socket.MSG_PEEK)
            elif number != errno.EINTR:
                raise OSError(number, os.strerror(number))

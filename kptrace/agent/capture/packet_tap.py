"""The packet tap: one AF_PACKET socket a namespace, filtered before it hears anything.

In: a place with its namespace, and a classic BPF program. Out: frames from the IP header on, with
the interface, the direction, the kernel's time stamp; and how many were lost.

One socket hears all interfaces, those too that come later. One for each would do as well, but the
kernel waits for a grace period whenever one is closed (packet_release, synchronize_net): seconds
on a node with many pods. The socket is made without a protocol, given its filter, then bound: so
no unfiltered frame ever gets in. Never promiscuous: it duplicates packets on bridges. One stamp is
shared by all interfaces that a received skb passes (a veth and its bridge): frames come in the
order of their crossings, and are told in it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
from collections.abc import Iterator
from struct import pack, unpack, unpack_from
from typing import NamedTuple

from kptrace.model import Netns
from kptrace.packet.headers import network_offset

BUFFER = 16 << 20
_SO_ATTACH_FILTER, _SO_TIMESTAMPNS, _SO_RCVBUFFORCE = 26, 35, 33
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_ETH_P_ALL = 3
_SIOCGIFINDEX = 0x8933
_OTHERHOST, _OUTGOING = 3, 4
_LINK_HEADERS = frozenset({1, 772})  # ARPHRD_ETHER, ARPHRD_LOOPBACK; tunnels have none
_TRUNCATION = 1024
_libc = ctypes.CDLL(None, use_errno=True)


class Frame(NamedTuple):
    """data: from the IP header on."""

    place: Netns
    interface: str
    ifindex: int
    time_ns: int
    outgoing: bool
    other_host: bool
    dst_mac: str
    data: bytes


class Tap:
    layer = "capture"

    def __init__(self, netns: Netns, program: bytes) -> None:
        """On every interface of this namespace. To be called inside it."""
        self.place = netns
        self._indexes = {name: index for index, name in socket.if_nameindex()}
        self._lost = 0
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_PACKET, kind, 0)
        try:
            self._prepare(program)
        except OSError:
            self._socket.close()
            raise

    def _prepare(self, program: bytes) -> None:
        code = ctypes.create_string_buffer(program, len(program))
        filtered = pack("@HP", len(program) // 8, ctypes.addressof(code))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filtered)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER)
        address = pack("=HHiHBB8s", 17, socket.htons(_ETH_P_ALL), 0, 0, 0, 0, b"")
        if _libc.bind(self._socket.fileno(), address, len(address)) < 0:
            number = ctypes.get_errno()
            raise OSError(number, "bind to all interfaces")

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> Iterator[Frame]:
        """All that is queued."""
        while True:
            try:
                data, notes, _, address = self._socket.recvmsg(_TRUNCATION, 64)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.EINTR:
                    continue
                return
            yield self._frame(data, notes, address)

    def _frame(
        self, data: bytes, notes: list[tuple[int, int, bytes]], address: tuple[str, int, int, int]
    ) -> Frame:
        has_link_header = address[3] in _LINK_HEADERS
        start = network_offset(data) if has_link_header else 0
        mac = data[:6].hex(":") if has_link_header else ""
        name, kind = address[0], address[2]
        return Frame(
            place=self.place,
            interface=name,
            ifindex=self._index(name),
            time_ns=_stamp(notes),
            outgoing=kind == _OUTGOING,
            other_host=kind == _OTHERHOST,
            dst_mac=mac,
            data=data[start:],
        )

    def _index(self, name: str) -> int:
        """0 where the interface is gone. The socket is asked: it knows its own namespace."""
        if name not in self._indexes:
            try:
                answer = fcntl.ioctl(self._socket, _SIOCGIFINDEX, pack("16s24x", name.encode()))
            except OSError:
                return 0
            self._indexes[name] = unpack_from("=i", answer, 16)[0]
        return self._indexes[name]

    def lost(self) -> int:
        """How many frames this tap could not take, ever. (The kernel's own count starts anew.)"""
        counts = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self._lost += unpack("=II", counts)[1]
        return self._lost

    def close(self) -> None:
        self._socket.close()


def _stamp(notes: list[tuple[int, int, bytes]]) -> int:
    for level, kind, value in notes:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = unpack("qq", value[:16])
            return int(seconds * 1_000_000_000 + nanoseconds)
    return 0

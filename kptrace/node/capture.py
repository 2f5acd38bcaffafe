"""Packet taps: one AF_PACKET socket per interface, filtered before it hears anything.

In: a place with its namespace, and a classic BPF program. Out: frames from the IP header on, with
the interface, the direction, the kernel's time stamp; and how many were lost.

A socket is made without a protocol, given its filter, then bound: so no unfiltered frame ever
gets in. Never promiscuous: it duplicates packets on bridges. Interfaces that are down are left
out: none of their packets crosses them, and binding would report ENETDOWN. One stamp is shared
by all taps that a received skb passes (a veth and its bridge): order by cause, not by time
alone.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
from collections.abc import Iterator
from struct import pack, unpack, unpack_from
from typing import NamedTuple

from kptrace.model import Place
from kptrace.wire.headers import network_offset

BUFFER = 4 << 20
_SO_ATTACH_FILTER, _SO_TIMESTAMPNS, _SO_RCVBUFFORCE = 26, 35, 33
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_ETH_P_ALL = 3
_SIOCGIFFLAGS = 0x8913
_IFF_UP = 1
_OTHERHOST, _OUTGOING = 3, 4
_LINK_HEADERS = frozenset({1, 772})  # ARPHRD_ETHER, ARPHRD_LOOPBACK; tunnels have none
_TRUNCATION = 1024
_libc = ctypes.CDLL(None, use_errno=True)


class Frame(NamedTuple):
    """data: from the IP header on."""

    tap: Tap
    time_ns: int
    outgoing: bool
    other_host: bool
    dst_mac: str
    data: bytes


class Tap:
    layer = "capture"

    def __init__(self, place: Place, ifindex: int, interface: str, program: bytes) -> None:
        """To be called inside the namespace."""
        self.place, self.ifindex, self.interface = place, ifindex, interface
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
        address = pack("=HHiHBB8s", 17, socket.htons(_ETH_P_ALL), self.ifindex, 0, 0, 0, b"")
        if _libc.bind(self._socket.fileno(), address, len(address)) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"bind to {self.interface}")

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
                if error.errno in (errno.ENETDOWN, errno.EINTR):
                    continue  # reported once; the socket hears again when the link is up
                return
            yield self._frame(data, notes, address)

    def _frame(
        self, data: bytes, notes: list[tuple[int, int, bytes]], address: tuple[str, int, int, int]
    ) -> Frame:
        has_link_header = address[3] in _LINK_HEADERS
        start = network_offset(data) if has_link_header else 0
        mac = data[:6].hex(":") if has_link_header else ""
        kind = address[2]
        return Frame(self, _stamp(notes), kind == _OUTGOING, kind == _OTHERHOST, mac, data[start:])

    def lost(self) -> int:
        """How many frames this tap could not take, ever. (The kernel's own count starts anew.)"""
        counts = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self._lost += unpack("=II", counts)[1]
        return self._lost

    def close(self) -> None:
        self._socket.close()


def tap_all(place: Place, program: bytes) -> list[Tap]:
    """A tap on every interface of this namespace that is up. To be called inside it."""
    taps: list[Tap] = []
    try:
        for ifindex, name in socket.if_nameindex():
            if _is_up(name):
                taps.append(Tap(place, ifindex, name, program))
    except OSError:
        for tap in taps:
            tap.close()
        raise
    return taps


def _is_up(name: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, pack("16sH22x", name.encode(), 0))
        except OSError:
            return False  # gone since it was listed
    return bool(unpack_from("=H", answer, 16)[0] & _IFF_UP)


def _stamp(notes: list[tuple[int, int, bytes]]) -> int:
    for level, kind, value in notes:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = unpack("qq", value[:16])
            return int(seconds * 1_000_000_000 + nanoseconds)
    return 0

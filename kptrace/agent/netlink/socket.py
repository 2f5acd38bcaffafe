"""Netlink messages and attributes, and a socket to ask with: what the netfilter readers need.

In and out: bytes. Reading never raises on cut or hostile bytes; it ends where they do not add up.

nlmsghdr is length, type, flags, sequence, port; an attribute is length, type, value, padded to 4.
Netfilter puts a ``nfgenmsg`` (family, version, resource id) between them, and its messages that
change something stand in a batch, which the kernel applies as a whole or not at all.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from struct import pack, unpack_from
from typing import NamedTuple

from kptrace.agent.netlink.recvmmsg import MultiReceiver

NETLINK_NETFILTER = 12
SOL_NETLINK = 270
ADD_MEMBERSHIP = 1
SO_RCVBUFFORCE = 33

REQUEST, ACK, EXCL, DUMP, CREATE, APPEND = 1, 4, 0x200, 0x300, 0x400, 0x800
ERROR, DONE = 2, 3
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NESTED = 0x8000
_TYPE_MASK = 0x3FFF
_HEADER = 16
_RECEIVE = 1 << 18
_LAST = _HEADER + 4  # a DONE with its error number


class Message(NamedTuple):
    type: int
    flags: int
    sequence: int
    body: bytes


# --- bytes ------------------------------------------------------------------------------------


def attribute(kind: int, value: bytes) -> bytes:
    size = len(value) + 4
    return pack("=HH", size, kind) + value + bytes(-size % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def be32(kind: int, value: int) -> bytes:
    return attribute(kind, pack("!I", value & 0xFFFFFFFF))


def message(kind: int, flags: int, body: bytes, sequence: int = 0) -> bytes:
    return pack("=IHHII", _HEADER + len(body), kind, flags, sequence, 0) + body


def netfilter(family: int, *attributes: bytes, resource: int = 0) -> bytes:
    """A body with its ``nfgenmsg``."""
    return pack("!BBH", family, 0, resource) + b"".join(attributes)


def batch(subsystem: int, messages: Iterable[bytes]) -> bytes:
    edge = netfilter(0, resource=subsystem)
    return b"".join((message(BATCH_BEGIN, REQUEST, edge), *messages, message(BATCH_END, 1, edge)))


def messages(data: bytes) -> Iterator[Message]:
    at = 0
    while at + _HEADER <= len(data):
        size, kind, flags, sequence = unpack_from("=IHHI", data, at)
        if size < _HEADER or at + size > len(data):
            return
        yield Message(kind, flags, sequence, data[at + _HEADER : at + size])
        at += size + -size % 4


def attribute_list(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        size, kind = unpack_from("=HH", data, at)
        if size < 4 or at + size > len(data):
            return
        yield kind & _TYPE_MASK, data[at + 4 : at + size]
        at += size + -size % 4


def attributes(data: bytes) -> dict[int, bytes]:
    return dict(attribute_list(data))


def number(value: bytes | None) -> int:
    """A big-endian number of any width, 0 where there is none."""
    return int.from_bytes(value or b"", "big")


def string(value: bytes | None) -> str:
    return (value or b"").split(b"\0")[0].decode(errors="replace")


# --- sockets ----------------------------------------------------------------------------------


def listen(group: int = 0, buffer: int = 4 << 20) -> socket.socket:
    """A socket for what the kernel sends of its own accord. To be made inside the namespace."""
    sock = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
    )
    try:
        sock.bind((0, 0))
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, buffer)
        if group:
            sock.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, group)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


class NetlinkSocket:
    """A socket to ask with, mostly netfilter's, one question at a time."""

    def __init__(self, protocol: int = NETLINK_NETFILTER) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self.socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        self.socket.bind((0, 0))
        self.socket.settimeout(5)
        self._sequence = 0

    def ask(self, kind: int, body: bytes, flags: int = 0) -> list[Message]:
        """The answers up to the final one. OSError with the kernel's number if it refuses."""
        return list(self.listen(kind, body, flags))

    def listen(self, kind: int, body: bytes, flags: int = 0) -> Iterator[Message]:
        """The answers as they come; to be heard to the end, or the socket be closed."""
        self._sequence += 1
        asked = flags | REQUEST | (0 if flags & DUMP == DUMP else ACK)
        self.socket.send(message(kind, asked, body, self._sequence))
        while True:
            for answer in messages(self.socket.recv(_RECEIVE)):
                if answer.sequence != self._sequence:
                    continue
                if answer.type not in (ERROR, DONE):
                    yield answer
                    continue
                _refused(answer)
                return

    def chunks(self, kind: int, body: bytes) -> Iterator[bytes]:
        """The answers to a dump as they are received, many messages in each; to be heard to the
        end. For who looks for something rare: taking each message apart costs more than it all.
        """
        self._sequence += 1
        self.socket.send(message(kind, DUMP | REQUEST, body, self._sequence))
        intake = MultiReceiver()
        while True:
            for data in intake.receive(self.socket):
                first = next(messages(data), None)
                if first is None or first.sequence != self._sequence:
                    continue
                for end in messages(data[-_LAST:]) if first.type != ERROR else (first,):
                    if end.type in (DONE, ERROR) and end.sequence == self._sequence:
                        _refused(end)
                        yield data
                        return
                yield data

    def apply(self, subsystem: int, changes: list[bytes]) -> None:
        """All of these changes or none. Each must ask for an acknowledgement."""
        self.socket.send(batch(subsystem, changes))
        left = len(changes)
        while left:
            for answer in messages(self.socket.recv(_RECEIVE)):
                if answer.type == ERROR:
                    _refused(answer)
                    left -= 1

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> NetlinkSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _refused(answer: Message) -> None:
    code = unpack_from("=i", answer.body)[0] if len(answer.body) >= 4 else 0
    if code < 0:
        raise OSError(-code, os.strerror(-code))

"""One DNS question from a place, in wire format both ways, timed.

In: an Ask, and a socket that stands in the place's namespace. Out: the Answer: the message as it
came, or why there is none. What the message says is for others to read.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Generator

from kptrace.agent.loop import READ, WRITE, Task, Wait
from kptrace.model.family import Family
from kptrace.protocol import DnsQuery, DnsResponse

_MAX_MESSAGE = 65535
_CLOSED = frozenset({errno.ECONNREFUSED, errno.ECONNRESET})


def open_socket(ask: DnsQuery) -> socket.socket:
    """To be called inside the namespace."""
    family = Family.of(ask.server).socket_family
    socket.inet_pton(family, ask.server)  # connect() would look a name up
    kind = socket.SOCK_STREAM if ask.transport == "tcp" else socket.SOCK_DGRAM
    return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


def put(ask: DnsQuery, sock: socket.socket, answer: Callable[[DnsResponse], None]) -> Task:
    """A task (agent/loop.py) that gives one Answer."""
    began = time.monotonic()
    message, error = b"", "TIMEOUT"
    exchange = _by_tcp if ask.transport == "tcp" else _by_udp
    try:
        message = yield from exchange(ask, sock, began + ask.timeout)
    except TimeoutError:
        pass
    except OSError as refused:
        error = "CLOSED" if refused.errno in _CLOSED else "UNREACHABLE"
    finally:
        sock.close()
    answer(
        DnsResponse(
            id=ask.id,
            netns=ask.netns,
            server=ask.server,
            transport=ask.transport,
            elapsed_us=int((time.monotonic() - began) * 1e6),
            message=message,
            error="" if message else error,
        )
    )


def _by_udp(ask: DnsQuery, sock: socket.socket, deadline: float) -> Generator[Wait, bool, bytes]:
    sock.connect((ask.server, ask.port))
    sock.send(ask.query)
    while True:
        yield from _until(sock, READ, deadline)
        message = sock.recv(_MAX_MESSAGE)
        if message[:2] == ask.query[:2]:  # else a late answer to nobody's question
            return message


def _by_tcp(ask: DnsQuery, sock: socket.socket, deadline: float) -> Generator[Wait, bool, bytes]:
    refused = sock.connect_ex((ask.server, ask.port))
    if refused not in (0, errno.EINPROGRESS):
        raise OSError(refused, "connect")
    yield from _until(sock, WRITE, deadline)
    refused = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if refused:
        raise OSError(refused, "connect")
    sock.send(len(ask.query).to_bytes(2, "big") + ask.query)
    head = yield from _exactly(sock, 2, deadline)
    return (yield from _exactly(sock, int.from_bytes(head, "big"), deadline))


def _exactly(sock: socket.socket, size: int, deadline: float) -> Generator[Wait, bool, bytes]:
    data = b""
    while len(data) < size:
        yield from _until(sock, READ, deadline)
        part = sock.recv(size - len(data))
        if not part:
            raise ConnectionResetError(errno.ECONNRESET, "closed before the answer")
        data += part
    return data


def _until(sock: socket.socket, events: int, deadline: float) -> Generator[Wait, bool, None]:
    if not (yield Wait(sock, events, deadline)):
        raise TimeoutError

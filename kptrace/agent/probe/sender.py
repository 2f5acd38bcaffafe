"""Sends probes and tells what came of it.

In: a Probe, and a socket that stands in the right namespace. Out: Returned, as the sender felt
it.

TCP: a real connection by an ordinary socket, whose initial sequence number is the cookie.
TCP_REPAIR (CAP_NET_ADMIN) lets us write it before connect(); the kernel then makes the true
handshake, so there is no stray RST, and conntrack, firewalls and the backend see what they see
of any client. Nothing is sent over it, and our FIN says so at once; a server that speaks first is
heard out for a moment. UDP: one datagram from a connected socket, so ICMP errors come back as
errors.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Literal

from kptrace.agent.loop import READ, WRITE, Task, Wait
from kptrace.model import Flow, Probe, ProbeResult

HEAR_OUT = 0.2  # seconds for a server to say what it has to say, and to end
DATA = 256
_TCP_REPAIR, _TCP_REPAIR_QUEUE, _TCP_QUEUE_SEQ = 19, 20, 21
_SEND_QUEUE, _REPAIR_OFF_NO_WINDOW_PROBE = 2, -1
_REFUSED = frozenset({errno.ECONNREFUSED, errno.ECONNRESET})
_UNREACHABLE = frozenset(
    {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPROTO, errno.EHOSTDOWN}
)
_Kind = Literal["connected", "replied", "refused", "unreachable", "timeout", "sent", "failed"]
_Result = Callable[[ProbeResult], None]


def open_socket(probe: Probe) -> socket.socket:
    """Ready to connect: bound, with its TTL and first sequence number. Inside the namespace."""
    flow = probe.flow
    family = flow.family.socket_family
    kind = socket.SOCK_STREAM if flow.protocol == "tcp" else socket.SOCK_DGRAM
    socket.inet_pton(family, flow.dst)  # connect() would look a name up
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if flow.src or flow.sport:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((flow.src, flow.sport))
        if probe.ttl:
            _set_ttl(sock, probe.ttl)
        if flow.protocol == "tcp":
            with suppress(PermissionError):  # an ordinary connection then, which no tap knows again
                _set_sequence(sock, probe.probe_id)
    except OSError:
        sock.close()
        raise
    return sock


def can_mark() -> bool:
    """Whether a connection of ours can carry the cookie: that takes CAP_NET_ADMIN."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
            _set_sequence(sock, 1)
    except PermissionError:
        return False
    return True


def _set_ttl(sock: socket.socket, ttl: int) -> None:
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, ttl)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)


def _set_sequence(sock: socket.socket, probe_id: int) -> None:
    signed = probe_id - (1 << 32) if probe_id >> 31 else probe_id
    for option, value in (
        (_TCP_REPAIR, 1),
        (_TCP_REPAIR_QUEUE, _SEND_QUEUE),
        (_TCP_QUEUE_SEQ, signed),
        (_TCP_REPAIR, _REPAIR_OFF_NO_WINDOW_PROBE),
    ):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def send(probe: Probe, sock: socket.socket, timeout: float, result: _Result) -> Task:
    """A task (agent/loop.py) that gives its result once, also when it is ended early."""
    run = _connect if probe.flow.protocol == "tcp" else _exchange
    simulation = _ProbeAttempt(probe, result)
    try:
        yield from run(simulation, sock, time.monotonic() + timeout)
    except OSError as error:
        simulation.failed(error)
    finally:
        sock.close()


def fail(probe: Probe, error: OSError, timeout: float, result: _Result) -> Task:
    """The task of a probe whose socket could not be made."""
    _ProbeAttempt(probe, result).failed(error)
    yield from ()


class _ProbeAttempt:
    """One probe's sending: when it began, and the one Returned that comes of it."""

    def __init__(self, probe: Probe, result: _Result) -> None:
        self.probe, self.flow, self._result = probe, probe.flow, result
        self.sent_ns = self._started = self.elapsed_us = 0

    def begin(self) -> None:
        self.sent_ns, self._started = time.time_ns(), time.monotonic_ns()

    def answered(self) -> None:
        self.elapsed_us = (time.monotonic_ns() - self._started) // 1000

    def note_flow(self, sock: socket.socket) -> None:
        """The flow as the kernel made it: it chose what we left open."""
        src, sport = sock.getsockname()[:2]
        flow = self.probe.flow
        self.flow = Flow(
            protocol=flow.protocol, src=src, dst=flow.dst, sport=sport, dport=flow.dport
        )

    def tell(self, result: _Kind, error: str = "", data: bytes = b"") -> None:
        self._result(
            ProbeResult(
                probe_id=self.probe.probe_id,
                flow=self.flow,
                result=result,
                sent_ns=self.sent_ns,
                elapsed_us=self.elapsed_us,
                error=error,
                data=data,
            )
        )

    def failed(self, error: OSError) -> None:
        if self._started and not self.elapsed_us:
            self.answered()
        name = errno.errorcode.get(error.errno or 0, str(error))
        if error.errno in _REFUSED:
            self.tell("refused", name)
        elif error.errno in _UNREACHABLE:
            self.tell("unreachable", name)
        elif error.errno == errno.ETIMEDOUT:
            self.tell("timeout", name)
        else:
            self.tell("failed", name)


def _connect(simulation: _ProbeAttempt, sock: socket.socket, deadline: float) -> Task:
    flow = simulation.probe.flow
    simulation.begin()
    refused = sock.connect_ex((flow.dst, flow.dport))
    simulation.note_flow(sock)
    if refused not in (0, errno.EINPROGRESS):
        raise OSError(refused, "connect")
    ready = yield Wait(sock, WRITE, deadline)
    simulation.answered()
    if not ready:
        simulation.tell("timeout")
        return
    refused = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if refused:
        raise OSError(refused, "connect")
    data = yield from _drain_server_greeting(sock)
    simulation.tell("connected", data=data)


def _drain_server_greeting(sock: socket.socket) -> Generator[Wait, bool, bytes]:
    """A clean end, and what a server that speaks first says.

    That we say nothing it knows at once, so most end at once, too. close() with unread data would
    send RST, so what comes is read until the server closes.
    """
    data = b""
    until = time.monotonic() + HEAR_OUT
    try:
        sock.shutdown(socket.SHUT_WR)
        while (yield Wait(sock, READ, until)):
            more = sock.recv(1 << 16)
            if not more:
                break
            data = data or more[:DATA]
    except OSError:
        pass  # it was connected; that the server then reset it changes nothing
    return data


def _exchange(simulation: _ProbeAttempt, sock: socket.socket, deadline: float) -> Task:
    probe = simulation.probe
    simulation.begin()
    sock.connect((probe.flow.dst, probe.flow.dport))
    simulation.note_flow(sock)
    sock.send(probe.payload)
    ready = yield Wait(sock, READ, deadline)
    simulation.answered()
    if not ready:
        simulation.tell("timeout")
        return
    simulation.tell("replied", data=sock.recv(DATA))

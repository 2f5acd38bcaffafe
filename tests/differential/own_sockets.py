"""The router's own sockets: those that send, those that wait, and the sender of an answer.

All are to be made inside the router's namespace.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from struct import pack

from differential.packets import Sent, icmp, payload
from differential.plan import OPEN_PORTS

from kptrace.agent.probe import sender
from kptrace.model import Probe

_SO_MARK = 36
_IP_PKTINFO, _IPV6_RECVPKTINFO = 8, 49


def send_own(sent: Sent, cookie: int) -> socket.socket:
    """Send it from a socket of the router's; the socket."""
    flow = sent.flow
    if sent.protocol == "tcp":
        sock = sender.open_socket(Probe(probe_id=cookie, flow=flow, ttl=sent.ttl))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
        sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, sent.mark)
        sock.connect_ex((flow.dst, flow.dport))
        return sock
    family = socket.AF_INET6 if sent.ipv6 else socket.AF_INET
    echo = sent.protocol.startswith("icmp")
    number = (socket.IPPROTO_ICMPV6 if sent.ipv6 else socket.IPPROTO_ICMP) if echo else 0
    sock = socket.socket(family, socket.SOCK_RAW if echo else socket.SOCK_DGRAM, number)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, sent.mark)
        if sent.ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, sent.ttl)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, sent.ttl)
        sock.bind((flow.src, 0 if echo else flow.sport))
        data = payload(cookie, sent.size)
        if echo:
            data = icmp(flow, 128 if sent.ipv6 else 8, sent.sport, data)
        with suppress(OSError):  # a rule refused it, or no route leads there
            sock.sendto(data, (flow.dst, 0 if echo else flow.dport))
    except OSError:
        sock.close()
        raise
    return sock


_ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}


def listen() -> list[socket.socket]:
    listening = []
    for family in _ANY:
        for port in OPEN_PORTS:
            sock = _bound(family, socket.SOCK_STREAM, port)
            sock.listen(4)
            listening.append(sock)
    return listening


def receive() -> list[socket.socket]:
    datagrams = []
    for family in _ANY:
        for port in OPEN_PORTS:
            sock = _bound(family, socket.SOCK_DGRAM, port)
            if family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
            datagrams.append(sock)
    return datagrams


def _bound(family: int, kind: int, port: int) -> socket.socket:
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((_ANY[family], port))
    return sock


def source_of(level: int, data: bytes) -> bytes:
    """The packet info of an answer from the address that was spoken to, by whatever interface."""
    if level == socket.IPPROTO_IP:
        return pack("i", 0) + data[8:12] + bytes(4)
    return data[:16] + pack("i", 0)

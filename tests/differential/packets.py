"""A packet of the test: what is asked of both judges, and its bytes on the wire.

In: a Sent. Out: the frame that an end sends, the answer of whoever got it, and the model's Packet
for the walk. A cookie marks it: the sequence number of TCP, else the first payload bytes.
"""

from __future__ import annotations

import socket
from struct import pack

from differential.plan import BRIDGED, ENDS, ROUTER, End

from kptrace.model import Flow, Packet, Value
from kptrace.packet.probe_id import MAGIC

_NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58}
_FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32}
_SYN_OPTIONS = 20  # what Linux' own SYN holds beyond 20 bytes


class Sent(Value):
    """start: an end's name, or ``router``. For ICMP ``sport`` is the echo's id."""

    start: str
    protocol: str
    src: str
    dst: str
    sport: int = 0
    dport: int = 0
    mark: int = 0
    ttl: int = 64
    flags: str = ""
    size: int = 8

    @property
    def ipv6(self) -> bool:
        return ":" in self.dst

    @property
    def own(self) -> bool:
        return self.start == ROUTER

    @property
    def flow(self) -> Flow:
        ports = self.protocol in ("tcp", "udp")
        return Flow(
            protocol=self.protocol,
            src=self.src,
            dst=self.dst,
            sport=self.sport if ports else 0,
            dport=self.dport if ports else 0,
        )

    @property
    def length(self) -> int:
        header = 40 if self.ipv6 else 20
        if self.protocol == "tcp":
            return header + 20 + (_SYN_OPTIONS if self.own else 0)
        return header + 8 + self.size

    def packet(self) -> Packet:
        """As the walk is asked."""
        return Packet(
            flow=self.flow,
            ttl=self.ttl,
            length=self.length,
            flags=self.flags or ("S" if self.protocol == "tcp" else ""),
            mark=self.mark,
            icmp=_echo(self.ipv6, request=True) if self.protocol.startswith("icmp") else None,
        )


def _echo(ipv6: bool, request: bool) -> tuple[int, int]:
    return (128 if request else 129, 0) if ipv6 else (8 if request else 0, 0)


def payload(cookie: int, size: int) -> bytes:
    return (MAGIC + pack("!I", cookie)).ljust(size, b".")


def frame(sent: Sent, cookie: int) -> bytes:
    """What the end sends to the router."""
    end = ENDS[sent.start]
    transport = _transport(sent, cookie)
    return ethernet(_hop(end, sent.dst), end.mac, ip(sent.flow, sent.ttl, transport))


def _hop(end: End, dst: str) -> str:
    """The link address that the end sends to for this destination; empty: its own stack takes it.

    Its link is all of one network, of which the router bridges only that of the pods.
    """
    if dst in end.own:
        return ""
    bridged = (other for other in ENDS.values() if end.port in BRIDGED and other.port in BRIDGED)
    return next((other.mac for other in bridged if dst in other.own), end.router_mac)


def _transport(sent: Sent, cookie: int) -> bytes:
    if sent.protocol == "tcp":
        return tcp(sent.flow, cookie, 0, sent.flags or "S")
    if sent.protocol == "udp":
        return udp(sent.flow, payload(cookie, sent.size))
    kind, _ = _echo(sent.ipv6, request=True)
    return icmp(sent.flow, kind, sent.sport, payload(cookie, sent.size))


def answer(name: str, got: bytes, cookie: int) -> bytes | None:
    """The frame with which this end answers; None where its answer stays with it."""
    data = got[14:]
    ipv6 = data[0] >> 4 == 6
    at = 40 if ipv6 else (data[0] & 15) * 4
    number = data[6] if ipv6 else data[9]
    kind = socket.AF_INET6 if ipv6 else socket.AF_INET
    raw = (data[8:24], data[24:40]) if ipv6 else (data[12:16], data[16:20])
    src, dst = (socket.inet_ntop(kind, one) for one in raw)
    body = data[at:]
    protocol = {value: key for key, value in _NUMBERS.items()}.get(number, "")
    sport, dport = int.from_bytes(body[:2], "big"), int.from_bytes(body[2:4], "big")
    ports = {"sport": dport, "dport": sport} if protocol in ("tcp", "udp") else {}
    back = Flow(protocol=protocol, src=dst, dst=src, **ports)
    if protocol == "tcp":
        transport = tcp(back, 7, cookie + 1, "SA")
    elif protocol == "udp":
        transport = udp(back, body[8:])
    elif protocol in ("icmp", "icmpv6"):
        transport = icmp(
            back, _echo(ipv6, request=False)[0], int.from_bytes(body[4:6], "big"), body[8:]
        )
    else:
        return None
    hop = _hop(ENDS[name], src)
    # a kernel's own answer to an echo has the TOS of the question (icmp_reply)
    tos = (data[0] & 15) << 4 | data[1] >> 4 if ipv6 else data[1]
    made = ip(back, 64, transport, tos if protocol.startswith("icmp") else 0)
    return ethernet(hop, ENDS[name].mac, made) if hop else None


# --- headers ----------------------------------------------------------------------------------


def ethernet(to: str, source: str, packet: bytes) -> bytes:
    kind = 0x86DD if packet[0] >> 4 == 6 else 0x0800
    return _mac(to) + _mac(source) + pack("!H", kind) + packet


def arp(asker_mac: str, target_mac: str, asker: str, target: str) -> bytes:
    """A question for an address, to its owner alone."""
    addresses = (socket.inet_aton(asker), socket.inet_aton(target))
    body = _mac(asker_mac) + addresses[0] + bytes(6) + addresses[1]
    head = _mac(target_mac) + _mac(asker_mac) + pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1)
    return head + body


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def ip(flow: Flow, ttl: int, transport: bytes, tos: int = 0) -> bytes:
    number = _NUMBERS[flow.protocol]
    addresses = _packed(flow)
    if flow.ipv6:
        first = 6 << 28 | tos << 20
        return pack("!IHBB", first, len(transport), number, ttl) + addresses + transport
    head = pack("!BBHHHBBH", 0x45, tos, 20 + len(transport), 1, 0x4000, ttl, number, 0) + addresses
    return head[:10] + pack("!H", _checksum(head)) + head[12:] + transport


def tcp(flow: Flow, seq: int, ack: int, flags: str) -> bytes:
    bits = sum(_FLAGS[letter] for letter in flags)
    ports = (flow.sport, flow.dport)
    words = pack("!HHIIBBHHH", *ports, seq, ack & 0xFFFFFFFF, 5 << 4, bits, 64000, 0, 0)
    return _summed(flow, words, 16)


def udp(flow: Flow, data: bytes) -> bytes:
    return _summed(flow, pack("!HHHH", flow.sport, flow.dport, 8 + len(data), 0) + data, 6)


def icmp(flow: Flow, kind: int, identity: int, data: bytes) -> bytes:
    words = pack("!BBHHH", kind, 0, 0, identity, 1) + data
    if flow.ipv6:
        return _summed(flow, words, 2)
    return words[:2] + pack("!H", _checksum(words)) + words[4:]


def _summed(flow: Flow, words: bytes, at: int) -> bytes:
    pseudo = _packed(flow) + pack("!II", len(words), _NUMBERS[flow.protocol])
    total = _checksum(pseudo + words) or 0xFFFF
    return words[:at] + pack("!H", total) + words[at + 2 :]


def _packed(flow: Flow) -> bytes:
    family = socket.AF_INET6 if flow.ipv6 else socket.AF_INET
    return socket.inet_pton(family, flow.src) + socket.inet_pton(family, flow.dst)


def _checksum(data: bytes) -> int:
    padded = data + b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(padded[i : i + 2], "big") for i in range(0, len(padded), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF

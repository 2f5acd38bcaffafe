"""Bytes from the IP header on -> model.Packet, with what it carries and what it quotes.

In: whatever the kernel handed out (a captured frame without its link layer, the 60 bytes of an
nft trace event, a dropped skb's first bytes), perhaps cut short, perhaps hostile.
Out: a Packet as complete as the bytes allow, or None where there is not even an IP header.
Never an exception: every read is checked against the end of the bytes.

A tunnel is recognised by its destination port (VXLAN 4789, and 8472 as Flannel and Calico use it
on Linux; Geneve 6081) or its protocol number (4, 41; GRE 47); inside VXLAN and Geneve stands an
Ethernet frame, inside GRE that or an IP packet (RFC 2784, 2890). An ICMP error quotes the packet
it complains about: RFC 792 promises 8 bytes beyond its IP header (ports and TCP sequence number),
Linux sends up to 576 in all.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from struct import unpack_from
from typing import Literal, NamedTuple

import msgspec

from kptrace.model import Flow, Packet, Tunnel

PROTOCOLS = {
    1: "icmp",
    4: "ipip",
    6: "tcp",
    17: "udp",
    41: "ipv6",
    47: "gre",
    58: "icmpv6",
    132: "sctp",
}
VXLAN_PORTS = frozenset({4789, 8472})
GENEVE_PORT = 6081
GRE_CHECKSUM, GRE_KEY, GRE_SEQUENCE, GRE_VERSION = 0x8000, 0x2000, 0x1000, 0x0007
GRE_FIELDS = (GRE_CHECKSUM, GRE_KEY, GRE_SEQUENCE)
TRANSPARENT_ETHERNET = 0x6558
ICMP_ERRORS = frozenset({3, 4, 5, 11, 12})
ICMPV6_ERRORS = frozenset({1, 2, 3, 4})

_FLAG_LETTERS = ((0x01, "F"), (0x02, "S"), (0x04, "R"), (0x08, "P"), (0x10, "A"), (0x20, "U"))
_TCP_FLAGS = tuple("".join(c for bit, c in _FLAG_LETTERS if n & bit) for n in range(64))
_V6_EXTENSIONS = frozenset({0, 43, 60})
_V6_FRAGMENT = 44
_V6_AUTHENTICATION = 51
_ETHERTYPES = frozenset({0x0800, 0x86DD})
_MAX_DEPTH = 4  # tunnels in tunnels in quotes; deeper is nobody's traffic


class Dissection(NamedTuple):
    """core: the packet that a cookie would be in (innermost, or what the innermost one quotes)."""

    packet: Packet
    core: Packet
    payload: bytes


class _Ip(NamedTuple):
    protocol: int
    src: str
    dst: str
    ttl: int
    ip_id: int | None
    length: int
    transport: int
    first: bool  # false for a later fragment, which has no transport header


def decode(data: bytes) -> Packet | None:
    dissection = dissect(data)
    return dissection.packet if dissection else None


def dissect(data: bytes) -> Dissection | None:
    return _dissect(data, 0)


def ipv4(four: bytes) -> str:
    return "%d.%d.%d.%d" % (four[0], four[1], four[2], four[3])  # noqa: UP031 - four times faster


def ipv6(sixteen: bytes) -> str:
    return str(IPv6Address(sixteen))


def _dissect(data: bytes, depth: int) -> Dissection | None:
    ip = _ip_header(data)
    if ip is None:
        return None
    name = PROTOCOLS.get(ip.protocol, str(ip.protocol))
    body = data[ip.transport : ip.length] if ip.length else data[ip.transport :]
    read = _TRANSPORTS.get(ip.protocol)
    if read is None or not ip.first:
        return _leaf(_packet(ip, Flow(protocol=name, src=ip.src, dst=ip.dst)), b"")
    return read(ip, name, body, depth)


def _leaf(packet: Packet, payload: bytes) -> Dissection:
    return Dissection(packet, packet, payload)


def _packet(ip: _Ip, flow: Flow) -> Packet:
    return Packet(flow=flow, ttl=ip.ttl, ip_id=ip.ip_id, length=ip.length)


# --- the network layer ------------------------------------------------------------------------


def _ip_header(data: bytes) -> _Ip | None:
    version = data[0] >> 4 if data else 0
    if version == 4 and len(data) >= 20:
        return _ipv4_header(data)
    if version == 6 and len(data) >= 40:
        return _ipv6_header(data)
    return None


def _ipv4_header(data: bytes) -> _Ip | None:
    size = (data[0] & 0xF) * 4
    if size < 20:
        return None
    length, ip_id, fragment, ttl, protocol = unpack_from("!HHHBB", data, 2)
    first = not fragment & 0x1FFF
    src, dst = ipv4(data[12:16]), ipv4(data[16:20])
    return _Ip(protocol, src, dst, ttl, ip_id, length, size, first)


def _ipv6_header(data: bytes) -> _Ip:
    payload, protocol, ttl = unpack_from("!HBB", data, 4)
    protocol, transport, first = _skip_extensions(data, protocol)
    length = payload + 40 if payload else 0  # 0: a jumbogram or a GSO packet, length unknown
    src, dst = ipv6(data[8:24]), ipv6(data[24:40])
    return _Ip(protocol, src, dst, ttl, None, length, transport, first)


def _skip_extensions(data: bytes, protocol: int) -> tuple[int, int, bool]:
    at, first = 40, True
    while at + 8 <= len(data) and first:
        if protocol in _V6_EXTENSIONS:
            size = (data[at + 1] + 1) * 8
        elif protocol == _V6_AUTHENTICATION:
            size = (data[at + 1] + 2) * 4
        elif protocol == _V6_FRAGMENT:
            size, first = 8, not int.from_bytes(data[at + 2 : at + 4], "big") & 0xFFF8
        else:
            break
        protocol, at = data[at], at + size
    return protocol, at, first


# --- the transport layer ----------------------------------------------------------------------


def _tcp(ip: _Ip, name: str, body: bytes, depth: int) -> Dissection:
    if len(body) < 4:
        return _leaf(_packet(ip, Flow(protocol=name, src=ip.src, dst=ip.dst)), b"")
    sport, dport = unpack_from("!HH", body)
    packet = _packet(ip, Flow(protocol=name, src=ip.src, dst=ip.dst, sport=sport, dport=dport))
    if len(body) < 14:  # a quote may end after the sequence number
        seq = int.from_bytes(body[4:8], "big") if len(body) >= 8 else None
        return _leaf(msgspec.structs.replace(packet, seq=seq), b"")
    seq, ack, offset, flags = unpack_from("!IIBB", body, 4)
    packet = msgspec.structs.replace(packet, seq=seq, ack=ack, flags=_TCP_FLAGS[flags & 63])
    return _leaf(packet, body[(offset >> 4) * 4 :])


def _udp(ip: _Ip, name: str, body: bytes, depth: int) -> Dissection:
    if len(body) < 4:
        return _leaf(_packet(ip, Flow(protocol=name, src=ip.src, dst=ip.dst)), b"")
    sport, dport = unpack_from("!HH", body)
    packet = _packet(ip, Flow(protocol=name, src=ip.src, dst=ip.dst, sport=sport, dport=dport))
    payload = body[8:]
    carried = _carried(dport, payload, depth)
    return _carrying(packet, *carried) if carried else _leaf(packet, payload)


def _ports(ip: _Ip, name: str, body: bytes, depth: int) -> Dissection:
    sport, dport = unpack_from("!HH", body) if len(body) >= 4 else (0, 0)
    flow = Flow(protocol=name, src=ip.src, dst=ip.dst, sport=sport, dport=dport)
    return _leaf(_packet(ip, flow), b"")


def _icmp(ip: _Ip, name: str, body: bytes, depth: int) -> Dissection:
    packet = _packet(ip, Flow(protocol=name, src=ip.src, dst=ip.dst))
    if len(body) < 2:
        return _leaf(packet, b"")
    packet = msgspec.structs.replace(packet, icmp=(body[0], body[1]))
    errors = ICMP_ERRORS if ip.protocol == 1 else ICMPV6_ERRORS
    about = _dissect(body[8:], depth + 1) if body[0] in errors and depth < _MAX_DEPTH else None
    if about is None:
        return _leaf(packet, b"")
    return Dissection(
        msgspec.structs.replace(packet, quoted=about.packet), about.core, about.payload
    )


def _ip_in_ip(ip: _Ip, name: str, body: bytes, depth: int) -> Dissection:
    packet = _packet(ip, Flow(protocol=name, src=ip.src, dst=ip.dst))
    inner = _dissect(body, depth + 1) if depth < _MAX_DEPTH else None
    return _carrying(packet, Tunnel(kind="ipip"), inner) if inner else _leaf(packet, b"")


def _gre(ip: _Ip, name: str, body: bytes, depth: int) -> Dissection:
    """Version 0: flags and what it carries; then checksum, key and sequence number as flagged."""
    packet = _packet(ip, Flow(protocol=name, src=ip.src, dst=ip.dst))
    flags, carries = unpack_from("!HH", body) if len(body) >= 4 else (0, 0)
    at = 4 + sum(4 for bit in GRE_FIELDS if flags & bit)
    key_at = 8 if flags & GRE_CHECKSUM else 4
    keyed = flags & GRE_KEY and len(body) >= key_at + 4
    key = int.from_bytes(body[key_at : key_at + 4], "big") if keyed else None
    start = at + network_offset(body[at:]) if carries == TRANSPARENT_ETHERNET else at
    known = carries in (*_ETHERTYPES, TRANSPARENT_ETHERNET) and not flags & GRE_VERSION
    inner = _dissect(body[start:], depth + 1) if known and depth < _MAX_DEPTH else None
    return _carrying(packet, Tunnel(kind="gre", vni=key), inner) if inner else _leaf(packet, b"")


def _carrying(packet: Packet, tunnel: Tunnel, inner: Dissection) -> Dissection:
    outer = msgspec.structs.replace(packet, tunnel=tunnel, inner=inner.packet)
    return Dissection(outer, inner.core, inner.payload)


def _carried(dport: int, payload: bytes, depth: int) -> tuple[Tunnel, Dissection] | None:
    """What a UDP datagram to a tunnel's port carries: VXLAN RFC 7348, Geneve RFC 8926."""
    if depth >= _MAX_DEPTH or len(payload) < 8:
        return None
    kind: Literal["vxlan", "geneve"]
    if dport in VXLAN_PORTS and payload[0] & 0x08:
        kind, size = "vxlan", 8
    elif dport == GENEVE_PORT and payload[0] >> 6 == 0 and payload[2:4] == b"\x65\x58":
        kind, size = "geneve", 8 + (payload[0] & 0x3F) * 4
    else:
        return None
    frame = payload[size:]
    start = network_offset(frame)
    inner = _dissect(frame[start:], depth + 1) if start else None
    vni = int.from_bytes(payload[4:7], "big")
    return (Tunnel(kind=kind, vni=vni), inner) if inner else None


def network_offset(frame: bytes) -> int:
    """Where the IP header of an Ethernet frame starts, VLAN tags skipped; 0: it is not IP."""
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8") and at < 20:
        at += 4
    ethertype = int.from_bytes(frame[at : at + 2], "big")
    return at + 2 if ethertype in _ETHERTYPES else 0


_TRANSPORTS = {
    1: _icmp,
    4: _ip_in_ip,
    6: _tcp,
    17: _udp,
    41: _ip_in_ip,
    47: _gre,
    58: _icmp,
    132: _ports,
}

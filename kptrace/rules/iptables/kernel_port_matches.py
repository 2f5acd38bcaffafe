"""The bytes of iptables' matches of ports and protocols -> the options that iptables-save prints.

As ``kernel_matches.py``, whose table has these too.
"""

from __future__ import annotations

from functools import partial

from kptrace.rules.byte_reader import ByteReader
from kptrace.rules.iptables.options import Unknown
from kptrace.rules.iptables.save_format import (
    IpsetName,
    Reader,
    Words,
    option,
    port_words,
    span,
    tcp_flag_words,
)


def _udp(blob: ByteReader, _: IpsetName) -> Words:
    inverted = blob.u8(8)
    return [
        *port_words("--sport", blob.u16(0), blob.u16(2), inverted & 1),
        *port_words("--dport", blob.u16(4), blob.u16(6), inverted & 2),
    ]


def _tcp(blob: ByteReader, _: IpsetName) -> Words:
    kind, mask, wanted, inverted = (blob.u8(at) for at in range(8, 12))
    words = [
        *port_words("--sport", blob.u16(0), blob.u16(2), inverted & 1),
        *port_words("--dport", blob.u16(4), blob.u16(6), inverted & 2),
    ]
    if kind or inverted & 8:
        words += option(inverted & 8, "--tcp-option", str(kind))
    return words + tcp_flag_words(mask, wanted, inverted & 4)


def _sctp(blob: ByteReader, _: IpsetName) -> Words:
    given, inverted = blob.u32(284), blob.u32(288)
    if given & 4:
        raise Unknown("--chunk-types")
    return _both_ports(blob, given, inverted)


def _dccp(blob: ByteReader, _: IpsetName) -> Words:
    given, inverted = blob.u16(8), blob.u16(10)
    if given & ~3:
        raise Unknown("--dccp-types")
    return _both_ports(blob, given, inverted)


def _both_ports(blob: ByteReader, given: int, inverted: int) -> Words:
    """Destination ports stand first in the structure, source ports in the text."""
    words: Words = []
    for bit, name, at in ((1, "--sport", 4), (2, "--dport", 0)):
        if given & bit:
            words += option(inverted & bit, name, span(blob.u16(at), blob.u16(at + 2)))
    return words


def _multiport(blob: ByteReader, _: IpsetName) -> Words:
    side, count = blob.u8(0), blob.u8(1)
    ports: Words = []
    turn = iter(range(count))
    for index in turn:
        port = str(blob.u16(2 + 2 * index))
        if blob.u8(32 + index):
            port += f":{blob.u16(2 + 2 * next(turn, 99))}"
        ports.append(port)
    names = ("--sports", "--dports", "--ports")
    if side >= len(names) or count > 15:
        raise Unknown("multiport")
    return option(blob.u8(47), names[side], ",".join(ports))


def _icmp(name: str, any_type: int, blob: ByteReader, _: IpsetName) -> Words:
    kind, low, high, inverted = (blob.u8(at) for at in range(4))
    text = "any" if kind == any_type else str(kind)
    if (low, high) != (0, 0xFF) and kind != any_type:
        text += f"/{low}"
    return option(inverted & 1, name, text)


def _esp(blob: ByteReader, _: IpsetName) -> Words:
    low, high, inverted = blob.u32(0), blob.u32(4), blob.u8(8)
    whole = (low, high) == (0, 0xFFFFFFFF)
    return [] if whole and not inverted else option(inverted & 1, "--espspi", span(low, high))


def _tcpmss(blob: ByteReader, _: IpsetName) -> Words:
    return option(blob.u8(4), "--mss", span(blob.u16(0), blob.u16(2)))


PORT_MATCHES: dict[tuple[str, int], Reader] = {
    ("dccp", 0): _dccp,
    ("esp", 0): _esp,
    ("icmp", 0): partial(_icmp, "--icmp-type", 0xFF),
    ("icmp6", 0): partial(_icmp, "--icmpv6-type", -1),
    ("multiport", 1): _multiport,
    ("sctp", 0): _sctp,
    ("tcp", 0): _tcp,
    ("tcpmss", 0): _tcpmss,
    ("udp", 0): _udp,
    ("udplite", 0): _udp,
}

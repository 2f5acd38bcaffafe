"""Sightings -> a pcapng file: one interface per capture point, the hop as a comment.

In: Sightings and, for each, a line of words. Out: the bytes of a file.

Traps that shape it: libpcap refuses a file whose interfaces differ in link type or snapshot
length, so all are Ethernet (the frames start at the IP header; the link header before it is
ours, with the destination address where it is known) and all have one length. Times are
nanoseconds (tsresol 9). The same packet seen at ten places looks like nine retransmissions to a
protocol analyser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from struct import pack

from kptrace.model import Place, Sighting

SNAPLEN = 262144
_ETHERNET = 1
_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_COMMENT, _USERAPPL, _IF_NAME, _IF_DESCRIPTION, _IF_TSRESOL, _EPB_FLAGS = 1, 4, 2, 3, 9, 2
_DIRECTIONS = {"in": 1, "out": 2}


def write(
    sightings: Iterable[Sighting], comment: Callable[[Sighting], str] = lambda _: ""
) -> bytes:
    """The whole file, packets in the order given."""
    points: dict[tuple[Place, str], int] = {}
    interfaces: list[bytes] = []
    packets: list[bytes] = []
    for sighting in sightings:
        point = (sighting.place, sighting.interface)
        if point not in points:
            points[point] = len(points)
            interfaces.append(_interface(sighting))
        packets.append(_packet(points[point], sighting, comment(sighting)))
    return b"".join((_section(), *interfaces, *packets))


def _section() -> bytes:
    body = pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
    return _block(_SECTION, body + _options((_USERAPPL, b"kptrace")))


def _interface(sighting: Sighting) -> bytes:
    place = sighting.place
    name = f"{place.node}/{sighting.interface}"
    words = f"{sighting.interface} (index {sighting.ifindex}) of {place.netns} on {place.node}"
    if place.pod:
        name = f"{place.node}/{place.pod}/{sighting.interface}"
    options = _options(
        (_IF_NAME, _text(name)), (_IF_DESCRIPTION, _text(words)), (_IF_TSRESOL, b"\x09")
    )
    return _block(_INTERFACE, pack("<HHI", _ETHERNET, 0, SNAPLEN) + options)


def _packet(interface: int, sighting: Sighting, words: str) -> bytes:
    frame = (_link_header(sighting) + sighting.frame)[:SNAPLEN]
    length = max(len(frame), 14 + sighting.packet.length)
    high, low = sighting.time_ns >> 32 & 0xFFFFFFFF, sighting.time_ns & 0xFFFFFFFF
    flags = pack("<I", _DIRECTIONS[sighting.direction])
    options = [(_EPB_FLAGS, flags)]
    if words:
        options.insert(0, (_COMMENT, _text(words)))
    head = pack("<IIIII", interface, high, low, len(frame), length)
    return _block(_PACKET, head + _padded(frame) + _options(*options))


def _link_header(sighting: Sighting) -> bytes:
    try:
        destination = bytes.fromhex(sighting.dst_mac.replace(":", ""))
    except ValueError:
        destination = b""
    ethertype = b"\x86\xdd" if sighting.frame[:1] >= b"\x60" else b"\x08\x00"
    return destination[:6].ljust(6, b"\0") + bytes(6) + ethertype


def _block(kind: int, body: bytes) -> bytes:
    size = len(body) + 12
    return pack("<II", kind, size) + body + pack("<I", size)


def _options(*options: tuple[int, bytes]) -> bytes:
    kept = ((code, value[:0xFFFF]) for code, value in options)
    return b"".join(pack("<HH", c, len(v)) + _padded(v) for c, v in kept) + bytes(4)


def _text(words: str) -> bytes:
    return words.encode(errors="replace")


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)

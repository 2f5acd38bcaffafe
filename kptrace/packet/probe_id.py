"""The cookie: 32 bits by which a probe and all that answers it are known again anywhere.

In: the probes of a run and the bytes of packets. Out: payloads to send, and whose packet this is.

Where it stands, so that it survives DNAT, SNAT, forwarding and encapsulation:

    TCP     the sequence number of the SYN. We send no data, so all that follows has
            seq or ack within a few of it: SYN c, SYN-ACK ack c+1, RST ack c+1, FIN c+1, ...
    UDP     payload ``kpt1`` + 4 bytes
    DNS     (UDP to port 53) a real query for ``xxxxxxxx.kptrace.invalid``: the cookie in hex is
            the first label. An answer repeats the question, so it carries it too; .invalid is
            never delegated (RFC 6761), so nobody is asked about it in earnest.
    ICMP    errors quote any of these

The cookies of one run stand 16 apart in one aligned block, so that "one of ours" is a single
masked compare in a packet filter, in an nft rule and in a BPF program alike.

A UDP server need not echo. But every probe has a 5-tuple of its own, so after the probe was seen
once at a place (by its cookie), packets of the same flow the other way round are its answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from kptrace.model import Flow, Packet, Probe
from kptrace.packet.headers import Dissection

WINDOW = 16
MAGIC = b"kpt1"
DNS_PORT = 53
_DNS_NAME = b"\x07kptrace\x07invalid\x00"
_DNS_LABEL = slice(13, 21)
_DNS_HEADER = 12
_U32 = 0xFFFFFFFF


class ProbeIdBlock(NamedTuple):
    """``value & mask == base``: it is one of ours, or nearly (who asks decides exactly)."""

    base: int
    mask: int


def probe_ids(first: int, count: int) -> tuple[int, ...]:
    """``count`` cookies in one aligned block. ``first``: 32 random bits, the caller's."""
    size = WINDOW << max(count - 1, 0).bit_length()
    base = first & _U32 & ~(size - 1)
    return tuple(base + WINDOW * n for n in range(count))


def preflight_id_of(probe_id: int) -> int:
    """The id of the preflight probe (trace/preflight.py) sent before this one on its 5-tuple.

    It stands in another block, so that no packet of the one is taken for one of the other.
    """
    return probe_id ^ 1 << 31


def blocks(numbers: Iterable[int]) -> tuple[ProbeIdBlock, ...]:
    """Blocks that hold these cookies with their windows: one if they came from ``probe_ids``."""
    known = sorted(set(numbers))
    if not known:
        return ()
    span = (known[0] ^ min(known[-1] + WINDOW - 1, _U32)) | (WINDOW - 1)
    size = 1 << span.bit_length()
    if size <= 4 * WINDOW * len(known):
        return (ProbeIdBlock(known[0] & ~(size - 1), _U32 & ~(size - 1)),)
    low = _U32 & ~(WINDOW - 1)
    bases = {c & low for c in known} | {(c + WINDOW - 1) & low for c in known}
    return tuple(ProbeIdBlock(base, low) for base in sorted(bases))


def payload(probe_id: int, port: int) -> bytes:
    """What a UDP probe to this port holds."""
    if port == DNS_PORT:
        return _dns_query(probe_id)
    return MAGIC + probe_id.to_bytes(4, "big") + b" kptrace probe\n"


def label(probe_id: int) -> bytes:
    return b"%08x" % probe_id


def text_mask(mask: int) -> bytes:
    """A block's mask for ``label``: a hex digit that is not wholly fixed may be any."""
    return bytes(0xFF if mask >> shift & 0xF == 0xF else 0 for shift in range(28, -4, -4))


def _dns_query(probe_id: int) -> bytes:
    number = (probe_id // WINDOW & 0xFFFF).to_bytes(2, "big")
    header = number + bytes.fromhex("0100 0001 0000 0000 0000")  # RD, one question
    return header + b"\x08" + label(probe_id) + _DNS_NAME + bytes.fromhex("0001 0001")  # A IN


def carried(data: bytes) -> int | None:
    """The cookie that a UDP payload names, whoever's it is."""
    if data[:4] == MAGIC and len(data) >= 8:
        return int.from_bytes(data[4:8], "big")
    if data[12:13] == b"\x08" and data[21:].lower().startswith(_DNS_NAME):
        try:
            return int(data[_DNS_LABEL], 16)
        except ValueError:
            return None
    return None


class ProbeMatcher:
    """Tells whose packet it is. Learns the flow of every UDP probe it recognises."""

    def __init__(self, probes: Iterable[Probe]) -> None:
        requested = tuple(probes)
        self._probe_ids = frozenset(p.probe_id for p in requested)
        self._windows = {(c + n) & _U32: c for c in self._probe_ids for n in range(WINDOW)}
        self._flows: dict[Flow, int] = {}
        self._headers = {
            _dns_query(p.probe_id)[:_DNS_HEADER]: p.probe_id
            for p in requested
            if p.flow.protocol == "udp" and p.flow.dport == DNS_PORT
        }
        for probe in requested:
            if probe.flow.protocol == "udp" and probe.flow.sport:
                self._learn(probe.flow, probe.probe_id)

    def recognise(self, seen: Dissection) -> int | None:
        protocol = seen.core.flow.protocol
        if protocol == "tcp":
            return self._conversation(seen.core)
        if protocol == "udp":
            return self._datagram(seen)
        return None

    def _conversation(self, packet: Packet) -> int | None:
        number = None if packet.seq is None else self._windows.get(packet.seq)
        if number is None and packet.ack is not None and "A" in packet.flags:
            return self._windows.get(packet.ack)
        return number

    def _datagram(self, seen: Dissection) -> int | None:
        probe_id = carried(seen.payload)
        if probe_id is None:
            # nft's trace shows 20 bytes from the UDP header on: of a DNS message its header alone
            probe_id = self._headers.get(seen.payload)
        if probe_id is None or probe_id not in self._probe_ids:
            return self._flows.get(seen.core.flow)
        self._learn(seen.core.flow, probe_id)
        return probe_id

    def _learn(self, flow: Flow, probe_id: int) -> None:
        self._flows[flow] = self._flows[flow.reverse] = probe_id

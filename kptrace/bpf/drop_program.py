"""The eBPF program that hears of every skb the kernel drops and reports ours.

In: field offsets of the running kernel (btf.py), file descriptors of its maps, the cookies.
Out: the bytes of a RAW_TRACEPOINT program for ``kfree_skb(skb, location, reason)``, and how
to read what it reports.

It copies the first bytes from the network header on, looks for a cookie in them, and only then
reports: who drops thousands of other packets a second does not hear of us, nor we of them. The
cookie stands on an even offset (all headers are even), the text of a DNS query's label on an odd
one. The bytes end at the skb's tail: what is behind may be an older packet's.

The namespace is that of the device, or of the socket where there is no device yet (output hook).
The function that dropped it is named by the kernel itself (bpf_snprintf with ``%pB``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from struct import calcsize, pack, unpack_from
from typing import NamedTuple

from kptrace.bpf.btf import Btf
from kptrace.packet.probe_id import ProbeIdBlock, label, text_mask

STRUCTS = ("sk_buff", "net_device", "net", "ns_common", "sock", "sock_common", "skb_drop_reason")
FORMAT = b"%pB\0"

# The record: fixed fields, then the device's name, the function's name, the packet's bytes.
_FIELDS = "=QIIIIiI"
_TIME, _REASON, _IFINDEX, _DEVICE_NS, _SOCKET_NS, _LINEAR = 0, 8, 12, 16, 20, 24
_NAME, _NAME_SIZE = 32, 16
_SYMBOL, _SYMBOL_SIZE = 48, 80
_DATA, _DATA_SIZE = 128, 256
RECORD = _DATA + _DATA_SIZE
_SCRATCH = RECORD  # three words to read pointers into
LOST = RECORD + 24  # a count: reports that did not fit into the ring
VALUE = RECORD + 32
_FIRST_WORD, _FIRST_TEXT, _LAST = 24, 41, 200  # where a cookie can stand behind the IP header

_LOOKUP, _KTIME, _PROBE_READ, _RING_OUTPUT, _SNPRINTF = 1, 5, 113, 130, 165
_MAP_FD, _MAP_VALUE = 1, 2
_R0, _R1, _R2, _R3, _R4, _R5, _CTX, _SKB, _PTR, _REC, _STACK = range(11)


class Maps(NamedTuple):
    """File descriptors."""

    ring: int
    record: int
    format: int


class Report(NamedTuple):
    time: int  # CLOCK_MONOTONIC ns
    reason: int
    ifindex: int
    device_ns: int
    socket_ns: int
    device: str
    symbol: str
    data: bytes


def read_report(record: bytes) -> Report | None:
    if len(record) < RECORD or calcsize(_FIELDS) > _NAME:
        return None
    time, reason, ifindex, device_ns, socket_ns, linear, _ = unpack_from(_FIELDS, record)
    return Report(
        time=time,
        reason=reason,
        ifindex=ifindex,
        device_ns=device_ns,
        socket_ns=socket_ns,
        device=_string(record[_NAME : _NAME + _NAME_SIZE]),
        symbol=_string(record[_SYMBOL : _SYMBOL + _SYMBOL_SIZE]),
        data=record[_DATA : _DATA + max(0, min(linear, _DATA_SIZE))],
    )


def program(btf: Btf, maps: Maps, blocks: Iterable[ProbeIdBlock], *, text: bool) -> bytes:
    """text: look for DNS labels too."""
    code = Code()
    skb, device = btf.offset, "net_device"
    inum = btf.offset("net", "ns") + btf.offset("ns_common", "inum")
    code.put(0xBF, _CTX, _R1)
    code.put(0x62, _STACK, offset=-4, value=0)
    code.load_map(_R1, _MAP_FD, maps.record)
    code.address(_R2, _STACK, -4)
    code.call(_LOOKUP)
    code.jump(0x15, _R0, 0, "end")
    code.put(0xBF, _REC, _R0)
    code.put(0x79, _SKB, _CTX, 0)
    code.follow(_PTR, _SKB, skb("sk_buff", "head"))
    code.read(_SCRATCH + 8, 2, _SKB, skb("sk_buff", "network_header"))
    code.read(_SCRATCH + 16, 4, _SKB, skb("sk_buff", "tail"))
    code.put(0x69, _R1, _REC, _SCRATCH + 8)
    code.put(0x61, _R2, _REC, _SCRATCH + 16)
    code.put(0x1F, _R2, _R1)
    code.put(0x63, _REC, _R2, _LINEAR)
    code.put(0x0F, _PTR, _R1)
    code.read(_DATA, _DATA_SIZE, _PTR, 0)
    for block in blocks:
        _search(code, _FIRST_WORD, pack("!I", block.base), pack("!I", block.mask))
        if text:
            _search(code, _FIRST_TEXT, label(block.base)[:4], text_mask(block.mask)[:4])
    code.jump(0x05, 0, 0, "end")
    code.here("ours")
    code.call(_KTIME)
    code.put(0x7B, _REC, _R0, _TIME)
    code.put(0x79, _R1, _CTX, 16)
    code.put(0x63, _REC, _R1, _REASON)
    code.follow(_PTR, _SKB, skb("sk_buff", "dev"))  # a failed read leaves zeros
    code.read(_IFINDEX, 4, _PTR, skb(device, "ifindex"))
    code.read(_NAME, _NAME_SIZE, _PTR, skb(device, "name"))
    code.follow(_PTR, _PTR, skb(device, "nd_net"))
    code.read(_DEVICE_NS, 4, _PTR, inum)
    code.follow(_PTR, _SKB, skb("sk_buff", "sk"))
    code.follow(_PTR, _PTR, skb("sock", "__sk_common") + skb("sock_common", "skc_net"))
    code.read(_SOCKET_NS, 4, _PTR, inum)
    _report(code, maps)
    code.here("end")
    code.put(0xB7, _R0)
    code.put(0x95)
    return code.finish()


def _search(code: Code, first: int, value: bytes, mask: bytes) -> None:
    requested = bytes(a & b for a, b in zip(value, mask, strict=True))
    for offset in range(first, _LAST, 2):
        code.put(0x61, _R1, _REC, _DATA + offset)
        code.put(0x54, _R1, value=int.from_bytes(mask, sys.byteorder))
        code.jump(0x16, _R1, int.from_bytes(requested, sys.byteorder), "ours")


def _report(code: Code, maps: Maps) -> None:
    code.put(0x79, _R1, _CTX, 8)
    code.put(0x7B, _STACK, _R1, -16)
    code.address(_R1, _REC, _SYMBOL)
    code.put(0xB7, _R2, value=_SYMBOL_SIZE)
    code.load_map(_R3, _MAP_VALUE, maps.format)
    code.address(_R4, _STACK, -16)
    code.put(0xB7, _R5, value=8)
    code.call(_SNPRINTF)
    code.load_map(_R1, _MAP_FD, maps.ring)
    code.put(0xBF, _R2, _REC)
    code.put(0xB7, _R3, value=RECORD)
    code.put(0xB7, _R4)
    code.call(_RING_OUTPUT)
    code.jump(0x15, _R0, 0, "end")
    code.put(0x79, _R1, _REC, LOST)
    code.put(0x07, _R1, value=1)
    code.put(0x7B, _REC, _R1, LOST)


class Code:
    """A program as it is written.

    struct bpf_insn: opcode, registers (destination low), offset, immediate.
    """

    def __init__(self) -> None:
        self._instructions: list[tuple[int, int, int, int | str, int]] = []
        self._labels: dict[str, int] = {}

    def put(
        self, code: int, target: int = 0, source: int = 0, offset: int | str = 0, value: int = 0
    ) -> None:
        signed = value - (1 << 32) if value >> 31 else value
        self._instructions.append((code, target, source, offset, signed))

    def jump(self, code: int, register: int, value: int, to: str) -> None:
        self.put(code, register, offset=to, value=value)

    def here(self, name: str) -> None:
        self._labels[name] = len(self._instructions)

    def address(self, register: int, base: int, offset: int) -> None:
        self.put(0xBF, register, base)
        self.put(0x07, register, value=offset & 0xFFFFFFFF)

    def call(self, helper: int) -> None:
        self.put(0x85, value=helper)

    def load_map(self, register: int, kind: int, fd: int) -> None:
        self.put(0x18, register, kind, value=fd)
        self.put(0)

    def read(self, into: int, size: int, pointer: int, offset: int) -> None:
        """Kernel memory at pointer + offset into the record."""
        self.address(_R1, _REC, into)
        self.put(0xB7, _R2, value=size)
        self.address(_R3, pointer, offset)
        self.call(_PROBE_READ)

    def follow(self, register: int, pointer: int, offset: int) -> None:
        """register = *(pointer + offset)"""
        self.read(_SCRATCH, 8, pointer, offset)
        self.put(0x79, register, _REC, _SCRATCH)

    def finish(self) -> bytes:
        return b"".join(
            pack("=BBhi", code, target | source << 4, self._offset(n, offset), value)
            for n, (code, target, source, offset, value) in enumerate(self._instructions)
        )

    def _offset(self, n: int, offset: int | str) -> int:
        return self._labels[offset] - n - 1 if isinstance(offset, str) else offset


def _string(data: bytes) -> str:
    return data.split(b"\0")[0].decode(errors="replace")

"""One classic BPF program that lets through what may be a probe, its answer or a complaint.

In: the cookies of a run, and the (address, port) pairs that UDP answers may come from.
Out: instructions for SO_ATTACH_FILTER. It may let through a little too much (a whole block of
cookies, see packet/probe_id.py), never too little: ``cookie.Recogniser`` decides.

Loads are relative to the network header (SKF_NET_OFF; the kernel adds X to it), so one program
fits every device: Ethernet, bridge, vxlan, and tunnels without a link header. A load beyond the
packet's end ends the program with "no".

cBPF has no loop and no call. A packet in a packet is one level deeper, so the code that reads one
IP packet is laid out once per level, and each level ends at the one comparison behind the last:

    level 0 -> level 1 -> level 2 -> compare -> yes / no
       the packet, what it carries (VXLAN, Geneve, IPIP, GRE) or quotes (ICMP), and once more

Scratch words: IP, L4 and END are offsets from the network header; SEQ, ACK and TEXT are compared
with the blocks of cookies; QUOTE_END is the END of the ICMP error that quotes, else zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from struct import pack
from typing import NamedTuple

from kptrace.packet.headers import (
    GENEVE_PORT,
    GRE_FIELDS,
    GRE_VERSION,
    ICMP_ERRORS,
    ICMPV6_ERRORS,
    TRANSPARENT_ETHERNET,
    VXLAN_PORTS,
)
from kptrace.packet.probe_id import ProbeIdBlock, blocks, label, text_mask

SNAPLEN = 512
LEVELS = 3
MAX_LENGTH = 4096  # BPF_MAXINSNS

_NET = -0x100000  # SKF_NET_OFF
LD_W, LD_H, LD_B, LD_IMM, LD_MEM = 0x40, 0x48, 0x50, 0x00, 0x60  # indirect: packet[X + k]
LDX_MEM, ST, TXA = 0x61, 0x02, 0x87
ADD, ADD_X, SUB_X, AND, OR, LSH, RSH = 0x04, 0x0C, 0x1C, 0x54, 0x44, 0x64, 0x74
JA, JEQ, JGE, RET = 0x05, 0x15, 0x35, 0x06

IP, SEQ, ACK, TEXT_HIGH, TEXT_LOW, L4, PROTOCOL, END, QUOTE_END, SPORT, VERSION = range(11)

Source = tuple[str, int]  # the address and port that a UDP answer comes from


class Instruction(NamedTuple):
    code: int
    jt: int
    jf: int
    k: int


class _Line(NamedTuple):
    """An instruction whose jumps are still names; an empty name is the next line."""

    code: int
    k: int
    to: str = ""
    other: str = ""


class _Code:
    def __init__(self) -> None:
        self.lines: list[_Line] = []
        self.labels: dict[str, int] = {}

    def put(self, code: int, k: int = 0) -> None:
        self.lines.append(_Line(code, k))

    def load(self, size: int, offset: int) -> None:
        self.put(size, _NET + offset)

    def keep(self, *numbers: int) -> None:
        for word in numbers:
            self.put(ST, word)

    def equal(self, k: int, to: str = "", other: str = "") -> None:
        self.lines.append(_Line(JEQ, k, to, other))

    def at_least(self, k: int, other: str) -> None:
        self.lines.append(_Line(JGE, k, "", other))

    def go(self, to: str) -> None:
        self.lines.append(_Line(JA, 0, to))

    def here(self, name: str) -> None:
        self.labels[name] = len(self.lines)

    def finish(self) -> tuple[Instruction, ...]:
        return tuple(self._resolve(n, line) for n, line in enumerate(self.lines))

    def _resolve(self, n: int, line: _Line) -> Instruction:
        jump, other = (self.labels[to] - n - 1 if to else 0 for to in (line.to, line.other))
        if line.code == JA:
            return Instruction(JA, 0, 0, jump)
        return Instruction(line.code, jump, other, line.k & 0xFFFFFFFF)


def program(
    probe_ids: Iterable[int], sources: Iterable[Source] = (), snaplen: int = SNAPLEN
) -> tuple[Instruction, ...]:
    code = _Code()
    code.put(LD_IMM, 0)
    code.keep(IP, SEQ, ACK, TEXT_HIGH, TEXT_LOW, QUOTE_END, SPORT)
    for level in range(LEVELS):
        _level(code, level)
    code.here(f"level{LEVELS}")
    code.put(RET, 0)
    code.here("compare")
    for n, block in enumerate(blocks(probe_ids)):
        _compare(code, f"block{n}", block, snaplen)
    for n, (address, port) in enumerate(sorted({s for s in sources if s[1]})):
        _compare_source(code, f"source{n}", address, port, snaplen)
    code.put(RET, 0)
    return code.finish()


def assemble(instructions: Iterable[Instruction]) -> bytes:
    """As ``struct sock_filter[]``."""
    return b"".join(pack("=HBBI", *i) for i in instructions)


def _level(code: _Code, level: int) -> None:
    at, deeper = f"level{level}", f"level{level + 1}"
    code.here(at)
    code.put(LDX_MEM, IP)
    code.load(LD_B, 0)
    code.put(RSH, 4)
    code.keep(VERSION)
    code.equal(4, f"{at}.v4")
    code.equal(6, f"{at}.v6")
    code.put(RET, 0)
    _network(code, at)
    _transport(code, at)
    code.here(f"{at}.vxlan")
    _descend(code, deeper, 8 + 8 + 14)
    code.here(f"{at}.geneve")
    code.load(LD_B, 8)
    code.put(AND, 0x3F)
    code.put(LSH, 2)
    code.put(ADD_X)
    code.put(ADD, 8 + 8 + 14)
    code.keep(IP)
    code.go(deeper)
    code.here(f"{at}.quote")
    code.put(LD_MEM, END)
    code.keep(QUOTE_END)
    _descend(code, deeper, 8)
    code.here(f"{at}.ipip")
    _descend(code, deeper, 0)
    _gre(code, at, deeper)


def _gre(code: _Code, at: str, deeper: str) -> None:
    """Behind its four bytes four more for each flag that is set; X is where they start."""
    code.here(f"{at}.gre")
    code.load(LD_H, 0)
    code.put(AND, GRE_VERSION)
    code.equal(0, other=f"{at}.no")
    code.put(TXA)
    code.put(ADD, 4)
    code.keep(IP)
    for flag in GRE_FIELDS:
        code.put(LDX_MEM, L4)
        code.load(LD_H, 0)
        code.put(AND, flag)
        code.put(RSH, flag.bit_length() - 3)  # 4 where it is set
        code.put(LDX_MEM, IP)
        code.put(ADD_X)
        code.keep(IP)
    code.put(LDX_MEM, L4)
    code.load(LD_H, 2)
    code.equal(TRANSPARENT_ETHERNET, other=deeper)
    code.put(LDX_MEM, IP)
    _descend(code, deeper, 14)
    code.here(f"{at}.no")
    code.put(RET, 0)


def _descend(code: _Code, deeper: str, offset: int) -> None:
    code.put(TXA)
    code.put(ADD, offset)
    code.keep(IP)
    code.go(deeper)


def _network(code: _Code, at: str) -> None:
    """Leaves the protocol in PROTOCOL, where it starts in L4, where the packet ends in END."""
    code.here(f"{at}.v4")
    code.load(LD_H, 2)
    code.put(ADD_X)
    code.keep(END)
    code.load(LD_B, 9)
    code.keep(PROTOCOL)
    code.load(LD_B, 0)
    code.put(AND, 0xF)
    code.put(LSH, 2)
    code.put(ADD_X)
    code.keep(L4)
    code.go(f"{at}.l4")
    code.here(f"{at}.v6")
    code.load(LD_H, 4)
    code.put(ADD, 40)
    code.put(ADD_X)
    code.keep(END)
    code.put(TXA)
    code.put(ADD, 40)
    code.keep(L4)
    code.load(LD_B, 6)
    code.keep(PROTOCOL)
    for extension in (0, 43, 60):
        code.equal(extension, f"{at}.extension")
    code.go(f"{at}.l4")
    code.here(f"{at}.extension")  # one is skipped: ip6tnl adds one; our probes have none
    code.load(LD_B, 40)
    code.keep(PROTOCOL)
    code.load(LD_B, 41)
    code.put(LSH, 3)
    code.put(ADD, 48)
    code.put(ADD_X)
    code.keep(L4)


def _transport(code: _Code, at: str) -> None:
    code.here(f"{at}.l4")
    code.put(LDX_MEM, L4)
    code.put(LD_MEM, PROTOCOL)
    names = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmp6", 4: "ipip", 41: "ipip", 47: "gre"}
    for number, name in names.items():
        code.equal(number, f"{at}.{name}")
    code.put(RET, 0)
    for name, errors in (("icmp", ICMP_ERRORS), ("icmp6", ICMPV6_ERRORS)):
        code.here(f"{at}.{name}")
        code.load(LD_B, 0)
        for number in sorted(errors):
            code.equal(number, f"{at}.quote")
        code.put(RET, 0)
    code.here(f"{at}.tcp")
    code.load(LD_W, 4)
    code.keep(SEQ)
    code.put(LD_MEM, QUOTE_END)
    code.equal(0, f"{at}.whole")
    code.put(SUB_X)
    code.at_least(12, other=f"{at}.compare")  # a quote may end before the acknowledgement
    code.here(f"{at}.whole")
    code.load(LD_W, 8)
    code.keep(ACK)
    code.go("compare")
    _datagram(code, at)
    code.here(f"{at}.compare")
    code.go("compare")


def _datagram(code: _Code, at: str) -> None:
    code.here(f"{at}.udp")
    code.load(LD_H, 0)
    code.keep(SPORT)
    code.load(LD_H, 2)
    for port in sorted(VXLAN_PORTS):
        code.equal(port, f"{at}.vxlan")
    code.equal(GENEVE_PORT, f"{at}.geneve")
    code.load(LD_H, 4)
    code.at_least(8 + 8, other=f"{at}.compare")
    code.load(LD_W, 8 + 4)
    code.keep(SEQ, ACK)
    code.load(LD_H, 4)
    code.at_least(8 + 21, other=f"{at}.compare")
    code.load(LD_W, 8 + 13)
    code.keep(TEXT_HIGH)
    code.load(LD_W, 8 + 17)
    code.keep(TEXT_LOW)
    code.go("compare")


def _compare(code: _Code, name: str, block: ProbeIdBlock, snaplen: int) -> None:
    for word in (SEQ, ACK):
        code.put(LD_MEM, word)
        code.put(AND, block.mask)
        code.equal(block.base, f"{name}.yes")
    text, wild = label(block.base), text_mask(block.mask)
    for word, at in ((TEXT_HIGH, slice(0, 4)), (TEXT_LOW, slice(4, 8))):
        mask = int.from_bytes(wild[at], "big")
        code.put(LD_MEM, word)
        code.put(OR, 0x20202020)  # to lower case
        code.put(AND, mask)
        code.equal(int.from_bytes(text[at], "big") & mask, other=f"{name}.no")
    code.here(f"{name}.yes")
    code.put(RET, snaplen)
    code.here(f"{name}.no")


def _compare_source(code: _Code, name: str, address: str, port: int, snaplen: int) -> None:
    """SPORT is zero unless the packet is UDP."""
    parsed = ip_address(address)
    chunks = [parsed.packed[n : n + 4] for n in range(0, len(parsed.packed), 4)]
    first = 12 if parsed.version == 4 else 8
    code.put(LD_MEM, SPORT)
    code.equal(port, other=f"{name}.no")
    code.put(LD_MEM, VERSION)
    code.equal(parsed.version, other=f"{name}.no")
    code.put(LDX_MEM, IP)
    for n, word in enumerate(chunks):
        code.load(LD_W, first + 4 * n)
        code.equal(int.from_bytes(word, "big"), other=f"{name}.no")
    code.put(RET, snaplen)
    code.here(f"{name}.no")

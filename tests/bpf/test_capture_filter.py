"""The capture filter, run by a small interpreter of classic BPF, on packets that scapy built."""

from __future__ import annotations

import operator
from struct import unpack_from

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import ARP, GRE, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet as Built
from scapy.packet import Raw

from kptrace.bpf import capture_filter
from kptrace.packet.probe_id import payload, probe_ids

COOKIE, SECOND = probe_ids(0xABCDEF01, 2)
SOURCES = (("10.244.2.20", 8081), ("fd00::2", 8081))
PROGRAM = capture_filter.program((COOKIE, SECOND), SOURCES)
OPERATIONS = {
    0x00: operator.add,
    0x10: operator.sub,
    0x50: operator.and_,
    0x40: operator.or_,
    0x60: operator.lshift,
    0x70: operator.rshift,
}
SIZES = {0x40: "!I", 0x48: "!H", 0x50: "!B"}


def run(program: tuple[capture_filter.Instruction, ...], packet: bytes) -> int:
    """linux/Documentation/networking/filter.rst, as far as our programs go.

    ``packet`` starts at the network header, which is where SKF_NET_OFF counts from.
    """
    a = x = at = 0
    memory: dict[int, int] = {}
    while True:
        code, jt, jf, k = program[at]
        at += 1
        if code in SIZES:
            offset = (x + k & 0xFFFFFFFF) - (2**32 - 0x100000)
            size = {"!I": 4, "!H": 2, "!B": 1}[SIZES[code]]
            if offset < 0 or offset + size > len(packet):
                return 0
            (a,) = unpack_from(SIZES[code], packet, offset)
        elif code == 0x00:
            a = k
        elif code == 0x60:
            a = memory[k]
        elif code == 0x61:
            x = memory[k]
        elif code == 0x02:
            memory[k] = a
        elif code == 0x87:
            a = x
        elif code == 0x05:
            at += k
        elif code == 0x15:
            at += jt if a == k else jf
        elif code == 0x35:
            at += jt if a >= k else jf
        elif code == 0x06:
            return k
        else:
            operand = x if code & 0x08 else k
            a = OPERATIONS[code & 0xF0](a, operand) & 0xFFFFFFFF


def passes(built: Built, program: tuple[capture_filter.Instruction, ...] = PROGRAM) -> bool:
    return run(program, bytes(built)) == capture_filter.SNAPLEN


V4 = IP(src="10.244.1.10", dst="10.244.2.20")
V6 = IPv6(src="fd00::1", dst="fd00::2")
OURS = [
    TCP(flags="S", seq=COOKIE),
    TCP(flags="SA", seq=1, ack=COOKIE + 1),
    TCP(flags="RA", ack=COOKIE + 1),
    TCP(flags="FA", seq=SECOND + 1, ack=77),
    UDP(dport=8081) / Raw(payload(COOKIE, 8081)),
    UDP(dport=53) / Raw(payload(SECOND, 53)),
    UDP(sport=5353) / Raw(payload(COOKIE, 53).upper()),
]
FOREIGN = [
    TCP(flags="S", seq=COOKIE - 1),
    TCP(flags="A", seq=SECOND + 16, ack=SECOND + 16),
    UDP(dport=8081) / Raw(payload(COOKIE - 1, 8081)),
    UDP(dport=53) / Raw(payload(SECOND + 4096, 53)),
    UDP(dport=8081) / Raw(b"short"),
    UDP(sport=8080) / Raw(b"an answer from another port"),
    ICMP(),
    Raw(bytes(40)),
]
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")  # else scapy asks the network
AROUND = {
    "plain": lambda inner: inner,
    "vxlan": lambda inner: IP() / UDP(dport=8472) / VXLAN(flags=8) / ETHER / inner,
    "vxlan on 4789": lambda inner: IP() / UDP(dport=4789) / VXLAN(flags=8) / ETHER / inner,
    "vxlan on IPv6": lambda inner: IPv6() / UDP(dport=8472) / VXLAN(flags=8) / ETHER / inner,
    "geneve": lambda inner: (
        IP() / UDP(dport=6081) / Raw(b"\x01\x00\x65\x58" + bytes(8) + bytes(ETHER / inner))
    ),
    "ipip": lambda inner: IP() / inner,
    "ip6tnl": lambda inner: IPv6() / IPv6ExtHdrDestOpt() / inner,
    "gre": lambda inner: IP(proto=47) / GRE() / inner,
    "gre with a key": lambda inner: IP() / GRE(key_present=1, key=9) / inner,
    "gre with all": lambda inner: (
        IPv6(nh=47) / GRE(chksum_present=1, key_present=1, seqnum_present=1, key=9) / inner
    ),
    "gretap": lambda inner: IP() / GRE(proto=0x6558, seqnum_present=1) / ETHER / inner,
    "icmp": lambda inner: IP(options=b"\x01" * 4) / ICMP(type=3, code=4) / inner,
    "icmpv6": lambda inner: IPv6() / ICMPv6DestUnreach() / inner,
    "icmp in vxlan": lambda inner: (
        IP() / UDP(dport=8472) / VXLAN(flags=8) / ETHER / IP() / ICMP(type=11) / inner
    ),
    "vxlan in icmp": lambda inner: (
        IP() / ICMP(type=3, code=4) / IP() / UDP(dport=8472) / VXLAN(flags=8) / ETHER / inner
    ),
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("network", [V4, V6], ids=["IPv4", "IPv6"])
def test_ours_pass_and_others_do_not(around: str, network: Built) -> None:
    for transport in OURS:
        assert passes(AROUND[around](network / transport)), transport.summary()
    for transport in FOREIGN:
        assert not passes(AROUND[around](network / transport)), transport.summary()


def test_a_quote_may_end_after_the_sequence_number() -> None:
    quote = bytes(V4 / TCP(seq=COOKIE))[:28]
    assert passes(IP() / ICMP(type=11) / Raw(quote))


@pytest.mark.parametrize("around", ["plain", "vxlan", "ipip"])
def test_udp_answers_from_a_backend_pass(around: str) -> None:
    answer = UDP(sport=8081) / Raw(b"ok")
    assert passes(AROUND[around](IP(src="10.244.2.20") / answer))
    assert passes(AROUND[around](IPv6(src="fd00::2") / answer))
    assert not passes(AROUND[around](IP(src="10.244.2.21") / answer))
    assert not passes(AROUND[around](IPv6(src="fd00::3") / answer))


def test_an_answer_by_tcp_from_a_backend_is_not_let_through_for_its_port() -> None:
    assert not passes(IP(src="10.244.2.20") / TCP(sport=8081, flags="SA", ack=5))


def test_what_is_not_ip_does_not_pass() -> None:
    assert not passes(ARP())
    assert run(PROGRAM, b"") == 0


@settings(max_examples=300)
@given(st.binary(max_size=120))
def test_random_bytes_end(data: bytes) -> None:
    run(PROGRAM, data)


@pytest.mark.parametrize("count", [1, 2, 100])
def test_one_program_for_all_probes(count: int) -> None:
    chosen = probe_ids(99, count)
    program = capture_filter.program(chosen)
    assert len(program) < 500, "one block, however many"
    for cookie in chosen:
        assert passes(V4 / TCP(flags="S", seq=cookie), program)


def test_scattered_cookies_and_many_backends_still_fit() -> None:
    chosen = tuple((n * 40_503_003 * 16) % 2**32 for n in range(1, 101))
    backends = [(f"10.0.{n}.1", 53) for n in range(50)] + [(f"fd00::{n:x}", 53) for n in range(50)]
    program = capture_filter.program(chosen, backends)
    assert len(program) < capture_filter.MAX_LENGTH
    for cookie in chosen:
        assert passes(V4 / TCP(flags="S", seq=cookie), program)
    assert not passes(V4 / TCP(flags="S", seq=chosen[5] + 40), program)
    assert passes(IP(src="10.0.49.1") / UDP(sport=53) / Raw(b"x"), program)


def test_jumps_only_go_forward_and_stay_inside() -> None:
    jumps = (capture_filter.JA, capture_filter.JEQ, capture_filter.JGE)
    for at, (code, jt, jf, k) in enumerate(PROGRAM):
        if code not in jumps:
            continue
        reach = k if code == capture_filter.JA else max(jt, jf)
        assert at + 1 + reach < len(PROGRAM)
        assert 0 <= jt < 256
        assert 0 <= jf < 256


def test_the_bytes_are_sock_filters() -> None:
    assert len(capture_filter.assemble(PROGRAM)) == 8 * len(PROGRAM)

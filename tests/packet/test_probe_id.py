"""Cookies: how they are chosen, where they stand, and how packets are known by them."""

from __future__ import annotations

import dns.message
import dns.rdatatype
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6TimeExceeded, IPv6
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet as Built
from scapy.packet import Raw

from kptrace.model import Flow, Probe
from kptrace.packet.headers import dissect
from kptrace.packet.probe_id import (
    ProbeMatcher,
    blocks,
    carried,
    label,
    payload,
    probe_ids,
    text_mask,
)

numbers = st.integers(0, 2**32 - 1)


@given(numbers, st.integers(1, 300))
def test_the_cookies_of_a_run_are_one_block(first: int, count: int) -> None:
    chosen = probe_ids(first, count)
    assert len(set(chosen)) == count
    [block] = blocks(chosen)
    for cookie in chosen:
        assert 0 <= cookie < cookie + 15 < 2**32
        assert {(cookie + n) & block.mask for n in range(16)} == {block.base}


@given(st.lists(numbers, min_size=1, max_size=20))
def test_blocks_hold_any_cookies_with_their_windows(chosen: list[int]) -> None:
    for cookie in chosen:
        for n in range(16):
            value = min(cookie + n, 2**32 - 1)
            assert any(value & b.mask == b.base for b in blocks(chosen))


def test_no_cookies_no_blocks() -> None:
    assert blocks(()) == ()


@given(numbers)
def test_a_label_lies_in_its_block(cookie: int) -> None:
    [block] = blocks(probe_ids(cookie, 8))
    mask = text_mask(block.mask)
    for one in probe_ids(cookie, 8):
        masked = [a & b for a, b in zip(label(one), mask, strict=True)]
        assert masked == [a & b for a, b in zip(label(block.base), mask, strict=True)]


@given(numbers)
def test_a_dns_probe_is_a_query_that_a_server_understands(cookie: int) -> None:
    query = dns.message.from_wire(payload(cookie, 53))
    [question] = query.question
    assert question.name.to_text() == f"{cookie:08x}.kptrace.invalid."
    assert question.rdtype == dns.rdatatype.A
    answer = dns.message.make_response(query).to_wire()
    assert carried(answer) == cookie


@given(numbers, st.sampled_from([53, 80, 5353]))
def test_a_payload_names_its_cookie(cookie: int, port: int) -> None:
    assert carried(payload(cookie, port)) == cookie


@given(st.binary(max_size=60))
def test_no_payload_raises(data: bytes) -> None:
    carried(data)
    carried(bytes(12) + b"\x08" + data[:8] + b"\x07kptrace\x07invalid\x00")


# --- whose packet is it -----------------------------------------------------------------------

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")  # else scapy asks the network
COOKIE, OTHER = probe_ids(0x12345678, 2)
TCP_PROBE = Probe(probe_id=COOKIE, flow=Flow(protocol="tcp", src="", dst="10.96.0.50", dport=80))
UDP_PROBE = Probe(
    probe_id=OTHER,
    flow=Flow(protocol="udp", src="", dst="10.96.0.50", dport=81),
    payload=payload(OTHER, 81),
)


def _whose(built: Built, recogniser: ProbeMatcher | None = None) -> int | None:
    seen = dissect(bytes(built))
    assert seen is not None
    return (recogniser or ProbeMatcher((TCP_PROBE, UDP_PROBE))).recognise(seen)


def _syn(seq: int) -> Built:
    return IP(src="10.244.1.10", dst="10.96.0.50") / TCP(sport=4, dport=80, flags="S", seq=seq)


def test_a_conversation_by_sequence_and_acknowledgement() -> None:
    back = IP(src="10.96.0.50", dst="10.244.1.10")
    assert _whose(_syn(COOKIE)) == COOKIE
    assert _whose(back / TCP(flags="SA", seq=999, ack=COOKIE + 1)) == COOKIE
    assert _whose(back / TCP(flags="RA", seq=0, ack=COOKIE + 1)) == COOKIE
    assert _whose(back / TCP(flags="FA", seq=COOKIE + 1, ack=999)) == COOKIE
    assert _whose(back / TCP(flags="S", seq=999, ack=COOKIE + 1)) is None, "no A, no ack"
    assert _whose(_syn(COOKIE - 1)) is None
    assert _whose(_syn(COOKIE + 32)) is None


def test_after_translation_and_in_tunnels() -> None:
    moved = IP(src="172.30.0.1", dst="10.244.2.20") / TCP(
        sport=9, dport=8080, seq=COOKIE, flags="S"
    )
    assert _whose(moved) == COOKIE
    tunnel = IP() / UDP(dport=8472) / VXLAN(vni=1, flags=8) / ETHER
    assert _whose(tunnel / moved) == COOKIE
    assert _whose(IP() / moved) == COOKIE


def test_complaints_quote_it() -> None:
    assert _whose(IP() / ICMP(type=11) / _syn(COOKIE)) == COOKIE
    syn6 = IPv6(src="fd00::1", dst="fd00::2") / TCP(seq=COOKIE, flags="S")
    assert _whose(IPv6() / ICMPv6TimeExceeded() / syn6) == COOKIE
    assert _whose(IP() / ICMP(type=8) / _syn(COOKIE)) is None, "an echo quotes nothing"


def test_a_udp_answer_without_the_cookie_is_known_once_the_probe_was_seen() -> None:
    recogniser = ProbeMatcher((UDP_PROBE,))
    forth = IP(src="10.244.1.10", dst="10.244.2.20") / UDP(sport=5, dport=8081)
    back = IP(src="10.244.2.20", dst="10.244.1.10") / UDP(sport=8081, dport=5) / Raw(b"answer")
    assert _whose(back, recogniser) is None
    assert _whose(forth / Raw(UDP_PROBE.payload), recogniser) == OTHER
    assert _whose(back, recogniser) == OTHER
    assert _whose(IP() / ICMP(type=3, code=3) / forth / Raw(b""), recogniser) == OTHER


def test_a_udp_flow_with_a_chosen_port_is_known_from_the_start() -> None:
    flow = Flow(protocol="udp", src="10.244.1.10", dst="10.96.0.50", sport=7, dport=81)
    recogniser = ProbeMatcher((Probe(probe_id=OTHER, flow=flow),))
    back = IP(src="10.96.0.50", dst="10.244.1.10") / UDP(sport=81, dport=7) / Raw(b"answer")
    assert _whose(back, recogniser) == OTHER


def test_a_cookie_of_another_run_is_not_ours() -> None:
    foreign = payload(OTHER + 4096, 81)
    assert _whose(IP() / UDP(sport=5, dport=81) / Raw(foreign)) is None

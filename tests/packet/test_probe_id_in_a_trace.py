"""A packet as nft's rule trace shows it: 20 bytes from the transport header on, no more."""

from __future__ import annotations

import msgspec

from kptrace.model import Flow, Packet, Probe
from kptrace.packet.headers import Dissection
from kptrace.packet.probe_id import ProbeMatcher, payload

ASK = Flow(protocol="udp", src="172.30.0.11", sport=5000, dst="10.96.0.10", dport=53)
OPEN = msgspec.structs.replace(ASK, sport=0)  # the kernel chooses it
COOKIE = 0x36F8E9F0


def shown(data: bytes, flow: Flow = ASK) -> Dissection:
    return Dissection(Packet(flow=flow), Packet(flow=flow), data[: 20 - 8])


def test_a_dns_probe_is_known_by_its_header_before_any_tap_saw_it() -> None:
    recogniser = ProbeMatcher([Probe(probe_id=COOKIE, flow=OPEN)])
    assert recogniser.recognise(shown(payload(COOKIE, 53))) == COOKIE
    assert recogniser.recognise(shown(b"", ASK.reverse)) == COOKIE


def test_another_question_is_not_taken_for_it() -> None:
    recogniser = ProbeMatcher([Probe(probe_id=COOKIE, flow=OPEN)])
    assert recogniser.recognise(shown(payload(COOKIE + 16, 53))) is None
    # the same id in an answer, which has other flags
    answer = payload(COOKIE, 53)[:2] + bytes.fromhex("8180 0001 0001 0000 0000")
    assert recogniser.recognise(shown(answer)) is None


def test_other_datagrams_show_the_whole_cookie() -> None:
    echo = Flow(protocol="udp", src="172.30.0.11", sport=5000, dst="10.96.1.5", dport=7)
    recogniser = ProbeMatcher([Probe(probe_id=COOKIE, flow=echo)])
    assert recogniser.recognise(shown(payload(COOKIE, 7), echo)) == COOKIE

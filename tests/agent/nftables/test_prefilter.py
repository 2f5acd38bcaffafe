"""Rules and elements that are skimmed as bytes: none that may match is passed over."""

from __future__ import annotations

from support.nft_messages import compare, expression, load, rule

from kptrace.agent.netlink.socket import attribute, be32, nested
from kptrace.agent.nftables.prefilter import DestinationPrefilter, KeyPrefilter

ACCEPT = expression("immediate", be32(1, 0), nested(2, nested(2, be32(1, 1))))
PROTOCOL = (expression("meta", be32(2, 16), be32(1, 1)), compare(b"\x06"))
COUNTER = expression("counter", attribute(1, bytes(8)), attribute(2, bytes(8)))


def to(address: bytes, op: int = 0) -> tuple[bytes, bytes]:
    return load(16 if len(address) == 4 else 24, len(address)), compare(address, op)


MINE, OTHER = bytes([10, 96, 0, 10]), bytes([10, 96, 0, 11])


def test_rules_that_surely_are_for_another_address() -> None:
    toward = DestinationPrefilter("10.96.0.10")
    assert toward.elsewhere(rule(*to(OTHER), ACCEPT))
    assert toward.elsewhere(rule(*PROTOCOL, *to(OTHER), ACCEPT))
    assert DestinationPrefilter("fd00::1").elsewhere(rule(*to(bytes(16)), ACCEPT))


def test_rules_that_may_match() -> None:
    toward = DestinationPrefilter("10.96.0.10")
    assert not toward.elsewhere(rule(*to(MINE), ACCEPT))
    assert not toward.elsewhere(rule(*to(OTHER, op=1), ACCEPT)), "not that address"
    assert not toward.elsewhere(rule(load(12, 4), compare(OTHER), ACCEPT)), "the source"
    assert not toward.elsewhere(rule(load(16, 3), compare(OTHER[:3]), ACCEPT)), "a prefix"
    assert not toward.elsewhere(rule(ACCEPT))
    assert not toward.elsewhere(rule(COUNTER, *to(OTHER), ACCEPT)), "it counts before it compares"
    assert not toward.elsewhere(b"")


def test_of_many_rules_that_begin_alike_the_one_for_the_address_is_found() -> None:
    toward = DestinationPrefilter("10.96.0.10")
    addresses = [bytes([10, 96, 0, last]) for last in range(32)]
    rules = [rule(*PROTOCOL, *to(each), ACCEPT, number=each[3]) for each in addresses]
    assert [each for each in rules if not toward.elsewhere(each)] == [rules[10]]
    assert not toward.elsewhere(rule(*PROTOCOL, *to(OTHER, op=1), ACCEPT))
    assert not toward.elsewhere(rule(*PROTOCOL, COUNTER, *to(OTHER), ACCEPT))


def test_a_key_of_which_some_bytes_are_open() -> None:
    like = KeyPrefilter("........0a600001")
    assert like.holding == bytes([10, 96, 0, 1])
    assert like.may_hold(b"xx" + bytes([1, 2, 3, 4, 10, 96, 0, 1]))
    assert not like.may_hold(bytes([1, 2, 3, 4, 10, 96, 0, 2]))
    assert KeyPrefilter("....").holding == b""

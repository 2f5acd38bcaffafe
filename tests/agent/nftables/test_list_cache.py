"""What was told is told again while the ruleset's generation is the same, and read anew after."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import cast

import pytest

from kptrace.agent.netlink.socket import (
    Message,
    NetlinkSocket,
    attribute,
    be32,
    message,
    nested,
    text,
)
from kptrace.agent.nftables import prefetch
from kptrace.agent.nftables.list_cache import BASE_CHAINS, ListCache, elements_of, rules_of
from kptrace.agent.nftables.prefetch import Prefetcher

NEWCHAIN, NEWRULE, DONE = 10 << 8 | 3, 10 << 8 | 6, 3
HEAD = bytes(4)
MANY = 200


class Kernel:
    """In the place of a Conversation: rules of a chain, and how often they were read."""

    def __init__(self, rules: int = MANY) -> None:
        self.generation, self.reads, self.rules = 1, 0, rules

    def ask(self, *_: object) -> list[Message]:
        return [Message(0, 0, 0, HEAD + be32(1, self.generation))]

    def chunks(self, *_: object) -> Iterator[bytes]:
        self.reads += 1
        bodies = (HEAD + bytes([number % 256]) * 600 for number in range(self.rules))
        yield from (message(NEWRULE, 0, body) for body in bodies)
        yield message(DONE, 0, bytes(4))

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        pass


SERVICES = rules_of("ip", "nat", "KUBE-SERVICES")


def told(listings: ListCache, kernel: Kernel) -> list[bytes]:
    return listings.told(SERVICES, cast(NetlinkSocket, kernel))


def test_long_answers_are_kept_while_nothing_changes() -> None:
    kernel, listings = Kernel(), ListCache(None)
    first = told(listings, kernel)
    assert len(first) == MANY
    assert told(listings, kernel) is first
    assert kernel.reads == 1
    kernel.generation, kernel.rules = 2, MANY + 1
    assert len(told(listings, kernel)) == MANY + 1


def test_short_ones_are_read_each_time() -> None:
    kernel, listings = Kernel(3), ListCache(None)
    assert told(listings, kernel) == told(listings, kernel)
    assert kernel.reads == 2


def read_ahead() -> Prefetcher:
    """What has been read when this is over."""
    begun = Prefetcher(SERVICES, BASE_CHAINS)
    for thread in threading.enumerate():
        if thread.name == "ahead":
            thread.join(20)
    return begun


def test_what_was_read_ahead_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel()
    monkeypatch.setattr(prefetch, "NetlinkSocket", lambda: kernel)
    listings = ListCache(read_ahead())
    assert kernel.reads == 2
    assert len(told(listings, kernel)) == MANY
    assert len(told(listings, kernel)) == MANY
    assert kernel.reads == 2


def test_it_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "NetlinkSocket", Kernel)
    begun = read_ahead()
    answer = begun.take(SERVICES)
    assert answer is not None
    assert (answer.generation, len(answer.found)) == (1, MANY)
    assert begun.take(SERVICES) is None
    assert begun.take(rules_of("ip", "nat", "ANOTHER")) is None


def test_what_was_read_ahead_of_a_change_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel()
    monkeypatch.setattr(prefetch, "NetlinkSocket", lambda: kernel)
    listings = ListCache(read_ahead())
    kernel.generation, kernel.rules = 2, 1
    assert len(told(listings, kernel)) == 1


def test_who_asks_before_a_thread_has_begun_reads_it_himself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_to_be_had(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_to_be_had)
    kernel = Kernel()
    assert len(told(ListCache(Prefetcher(SERVICES)), kernel)) == MANY
    assert kernel.reads == 1


def test_where_nothing_can_be_read_ahead_who_asks_hears_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused() -> Kernel:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(prefetch, "NetlinkSocket", refused)
    begun = Prefetcher(SERVICES)
    assert begun.take(SERVICES) is None
    assert len(told(ListCache(Prefetcher(SERVICES)), Kernel())) == MANY


def test_base_chains_are_found_among_all_chains() -> None:
    hook = nested(4, be32(1, 4), be32(2, 100))
    plain = [HEAD + text(1, "nat") + text(3, f"KUBE-SVC-{number}") for number in range(50)]
    base = HEAD + text(1, "nat") + text(3, "POSTROUTING") + hook
    looks_so = HEAD + text(3, "odd") + attribute(12, be32(1, 0))
    datagrams = [
        b"".join(message(NEWCHAIN, 0, body) for body in some)
        for some in (plain, [*plain, base, *plain], [looks_so])
    ]
    assert list(BASE_CHAINS.wanted(iter(datagrams))) == [base, looks_so], "who decodes them decides"


def test_a_question_is_what_it_asks() -> None:
    assert rules_of("ip", "nat", "A") == rules_of("ip", "nat", "A")
    assert rules_of("ip", "nat", "A") != rules_of("ip6", "nat", "A")
    assert rules_of("ip", "nat", "A") != elements_of("ip", "nat", "A")

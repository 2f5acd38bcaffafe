"""Long listings of nf_tables: asked for as a Question, kept while nothing changes.

In: questions. Out: what is wanted of the answers, as the kernel sends it.

The kernel names base chains only among all chains, and gives a chain's rules only whole. A dump
comes in parts of at most 32 KiB (netlink_recvmsg in net/netlink/af_netlink.c), and for each part
the kernel goes through the list from its start to where the last part ended
(nf_tables_dump_chains, __nf_tables_dump_rules in net/netfilter/nf_tables_api.c). For 10,000
Services the 61,000 chains take 50 ms and the rules of KUBE-SERVICES another 50, nearly all of it
the kernel's own. Each commit of changes raises the ruleset's generation, so what was read at the
same one is as good as new.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from struct import Struct, pack
from typing import TYPE_CHECKING, NamedTuple

from kptrace.agent.netlink import socket as netlink
from kptrace.agent.netlink.socket import NetlinkSocket, netfilter, text
from kptrace.agent.nftables import attributes

if TYPE_CHECKING:
    from kptrace.agent.nftables.prefetch import Prefetcher

FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
NUMBERS: Mapping[str, int] = {name: number for number, name in FAMILIES.items()}
BODY = 4  # where attributes begin, behind nfgenmsg
TABLE, SECOND = 1, 2  # what rules and elements are listed by: their table, and its chain or set
_HEADER = 16  # nlmsghdr
_GETCHAIN, _GETRULE, _GETSETELEM, _GETGEN = (10 << 8 | number for number in (4, 7, 13, 16))
_NEWRULE, _NEWSETELEM = 10 << 8 | 6, 10 << 8 | 12
_HOOKNUM = 1
_SIZE_AND_KIND = Struct("=IH").unpack_from
_KEPT, _LONG = 4, 1 << 16  # so many, of at least so many bytes


class ListQuery(NamedTuple):
    """``wanted``: picks from the datagrams of the answer."""

    kind: int
    body: bytes
    wanted: Callable[[Iterable[bytes]], Iterable[bytes]]

    def read(self, conversation: NetlinkSocket) -> Iterable[bytes]:
        return self.wanted(conversation.chunks(self.kind, self.body))


class ListResult(NamedTuple):
    """``generation``: before it was read."""

    generation: int
    found: list[bytes]


def rules_of(family: str, table: str, chain: str) -> ListQuery:
    return ListQuery(_GETRULE, _in_table(family, table, chain), bodies)


def elements_of(family: str, table: str, name: str) -> ListQuery:
    """In datagrams of many."""
    return ListQuery(_GETSETELEM, _in_table(family, table, name), iter)


def _in_table(family: str, table: str, name: str) -> bytes:
    return netfilter(NUMBERS[family], text(TABLE, table), text(SECOND, name))


def bodies(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Of messages about rules and elements, without what else a Message has."""
    for chunk in chunks:
        at, end = 0, len(chunk) - _HEADER
        while at <= end:
            size, kind = _SIZE_AND_KIND(chunk, at)
            if size < _HEADER:
                break
            if kind in (_NEWRULE, _NEWSETELEM):
                yield chunk[at + _HEADER : at + size]
            at += size + -size % 4


def _hooked(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Among 70,000 chains the attribute that only base chains have tells where they may be."""
    may_be = re.compile(re.escape(pack("=HHH", 8, _HOOKNUM, 0))).search  # small, and big-endian
    answers = (message for chunk in chunks if may_be(chunk) for message in netlink.messages(chunk))
    return (answer.body for answer in answers if may_be(answer.body))


BASE_CHAINS = ListQuery(_GETCHAIN, netfilter(0), _hooked)


def generation(conversation: NetlinkSocket) -> int:
    answers = conversation.ask(_GETGEN, netfilter(0))
    return int(attributes.tree(answers[0].body[BODY:], attributes.GENERATION).get("id", 0))


class ListCache:
    """The answers to questions; long ones are kept, each while its generation lasts."""

    def __init__(self, ahead: Prefetcher | None) -> None:
        self._ahead = ahead
        self._kept: dict[ListQuery, ListResult] = {}

    def told(self, asked: ListQuery, conversation: NetlinkSocket) -> list[bytes]:
        now = generation(conversation)
        answer = self._kept.get(asked)
        if answer is None or answer.generation != now:
            answer = self._ahead.take(asked) if self._ahead else None
            if answer is None or answer.generation != now:
                answer = ListResult(now, list(asked.read(conversation)))
            self._keep(asked, answer)
        return answer.found

    def _keep(self, asked: ListQuery, answer: ListResult) -> None:
        self._kept.pop(asked, None)
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        if sum(map(len, answer.found)) >= _LONG:
            self._kept[asked] = answer

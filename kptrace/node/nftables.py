"""nf_tables by netlink, without the program: tables, chains, rules, sets, elements, one by one.

In: a namespace to stand in, and what is wanted. Out: trees (``nft_tree.py``), as facts hold them.
One chain costs 0.1 ms where ``nft`` reads everything first.

GETRULE with table and chain gives that chain's rules; GETSETELEM with a key gives that element.
Long dumps are skimmed as bytes and only what is asked for is decoded. Names are looked up in no
file: an interface is named by its index where the rules do so.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address
from struct import pack, unpack_from
from typing import Any

from kptrace.node import netlink, nft_tree
from kptrace.node.netlink import (
    DUMP,
    Conversation,
    attribute,
    attribute_list,
    be32,
    nested,
    netfilter,
    text,
)
from kptrace.node.nft_tree import Tree, tree

FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_NUMBERS = {name: number for number, name in FAMILIES.items()}
_GETTABLE, _GETCHAIN, _GETRULE, _GETSET, _GETSETELEM, _GETGEN = (
    10 << 8 | number for number in (1, 4, 7, 10, 13, 16)
)
_NEWRULE, _NEWSETELEM = 10 << 8 | 6, 10 << 8 | 12
_HEADER, _BODY = 16, 4  # nlmsghdr, nfgenmsg
_TABLE, _SECOND, _NAME = 1, 2, 3
_ELEMENTS, _LIST_ELEMENT, _KEY, _FLAGS, _CATCHALL = 3, 1, 1, 3, 2
_HOOKNUM = 1
_ANONYMOUS = "__"
FEW = 128
_KEPT = 4


class _Large:
    """Long listings as they were received, each while its generation lasts."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, ...], tuple[int, list[bytes]]] = {}

    def get(self, asked: tuple[str, ...], generation: int) -> list[bytes] | None:
        then, found = self._found.get(asked, (-1, []))
        return found if then == generation else None

    def keep(self, asked: tuple[str, ...], generation: int, found: list[bytes]) -> None:
        if len(self._found) >= _KEPT:
            self._found.clear()
        self._found[asked] = generation, found


class Nftables:
    """To be made inside the namespace; ``inside``: makes more sockets there. Raises OSError as the
    kernel refuses.
    """

    def __init__(self, inside: Callable[[Callable[[], Conversation]], Conversation]) -> None:
        self._inside, self._large, self._conversation = inside, _Large(), Conversation()

    def close(self) -> None:
        self._conversation.close()

    # --- what there is ------------------------------------------------------------------------

    def generation(self) -> int:
        answers = self._conversation.ask(_GETGEN, netfilter(0))
        return int(tree(answers[0].body[_BODY:], nft_tree.GENERATION).get("id", 0))

    def tables(self) -> list[Tree]:
        answers = self._conversation.ask(_GETTABLE, netfilter(0), DUMP)
        return [self._of(body, nft_tree.TABLE) for body in _bodies(answers)]

    def base_chains(self) -> list[Tree]:
        """Of all tables. Among 70,000 chains the attribute that only they have tells where."""
        hook = pack("=HHH", 8, _HOOKNUM, 0)  # a small number, big-endian
        chunks = self._conversation.chunks(_GETCHAIN, netfilter(0))
        answers = (one for chunk in chunks if hook in chunk for one in netlink.messages(chunk))
        found = (self._of(one.body, nft_tree.CHAIN) for one in answers if hook in one.body)
        return [chain for chain in found if "hook" in chain]

    def chain_names(self, family: str, table: str) -> list[str]:
        answers = self._conversation.ask(_GETCHAIN, netfilter(_NUMBERS[family]), DUMP)
        chains = (tree(body[_BODY:], nft_tree.CHAIN) for body in _bodies(answers))
        return [chain["name"] for chain in chains if chain["table"] == table]

    def set_names(self, family: str, table: str) -> list[str]:
        body = netfilter(_NUMBERS[family], text(_TABLE, table))
        answers = self._conversation.ask(_GETSET, body, DUMP)
        sets = (tree(each[_BODY:], nft_tree.SET) for each in _bodies(answers))
        return [each["name"] for each in sets if not each["name"].startswith(_ANONYMOUS)]

    def _of(self, body: bytes, schema: str) -> Tree:
        return {"family": FAMILIES.get(body[0], str(body[0])), **tree(body[_BODY:], schema)}

    # --- chains -------------------------------------------------------------------------------

    def chain(self, family: str, table: str, name: str) -> Tree | None:
        body = netfilter(_NUMBERS[family], text(_TABLE, table), text(_NAME, name))
        answers = self._one(_GETCHAIN, body)
        return tree(answers[_BODY:], nft_tree.CHAIN) if answers else None

    def _one(self, kind: int, body: bytes) -> bytes:
        """The answer to a question about one thing; nothing: there is none."""
        try:
            answers = self._conversation.ask(kind, body)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):
                return b""
            raise
        return answers[0].body if answers else b""

    def rules(self, family: str, table: str, chain: str) -> list[bytes]:
        """Each as the kernel sends it. Those of long chains are kept while nothing changes."""
        asked = "chain", family, table, chain
        generation = self.generation()
        kept = self._large.get(asked, generation)
        if kept is not None:
            return kept
        body = netfilter(_NUMBERS[family], text(_TABLE, table), text(_SECOND, chain))
        found = list(_bodies_in(self._conversation.chunks(_GETRULE, body)))
        if len(found) > FEW:
            self._large.keep(asked, generation, found)
        return found

    def told(self, rules: Iterable[tuple[int, bytes]]) -> Iterator[Tree]:
        """Numbered rules as trees; table and chain are the fact's name."""
        for number, body in rules:
            found = tree(body[_BODY:], nft_tree.RULE)
            rest = {key: found[key] for key in found if key not in _NOT_TOLD}
            yield {"number": number, **rest}

    # --- sets ---------------------------------------------------------------------------------

    def set(self, family: str, table: str, name: str) -> Tree | None:
        body = netfilter(_NUMBERS[family], text(_TABLE, table), text(_SECOND, name))
        answer = self._one(_GETSET, body)
        return tree(answer[_BODY:], nft_tree.SET) if answer else None

    def sets_of(self, family: str, table: str, rules: Iterable[Tree]) -> dict[str, Tree]:
        """The sets that these rules name; an anonymous one with its elements."""
        found: dict[str, Tree] = {}
        for name in dict.fromkeys(n for rule in rules for n in _named(rule["expressions"])):
            told = self.set(family, table, name)
            if told is not None:
                found[name] = told
            if told is not None and name.startswith(_ANONYMOUS):
                told["elements"] = [
                    tree(each, nft_tree.ELEMENT) for each in self.elements(family, table, name)
                ]
        return found

    def elements(self, family: str, table: str, name: str) -> Iterator[bytes]:
        """As they come: who stops listening saves the kernel the rest."""
        with self._inside(Conversation) as apart:
            for body in _bodies_in(apart.chunks(_GETSETELEM, self._list(family, table, name))):
                yield from _listed(body)

    def holding(self, family: str, table: str, name: str, some: bytes) -> Iterator[bytes]:
        """The elements that hold these bytes. All are kept while nothing changes: who asks for
        some of a large set soon asks for others.
        """
        asked = "set", family, table, name
        generation = self.generation()
        chunks = self._large.get(asked, generation)
        if chunks is None:
            with self._inside(Conversation) as apart:
                chunks = list(apart.chunks(_GETSETELEM, self._list(family, table, name)))
            self._large.keep(asked, generation, chunks)
        for body in _bodies_in(chunk for chunk in chunks if some in chunk):
            yield from (each for each in _listed(body) if some in each)

    def element(self, family: str, table: str, name: str, key: bytes) -> list[bytes]:
        """The element with this key, else the one for all others."""
        wanted = nested(_ELEMENTS, nested(_LIST_ELEMENT, nested(_KEY, attribute(1, key))))
        answer = self._one(_GETSETELEM, self._list(family, table, name) + wanted)
        return list(_listed(answer)) if answer else self.catchall(family, table, name)

    def catchall(self, family: str, table: str, name: str) -> list[bytes]:
        """The element that holds what no other does."""
        given = nested(_ELEMENTS, nested(_LIST_ELEMENT, be32(_FLAGS, _CATCHALL)))
        answer = self._one(_GETSETELEM, self._list(family, table, name) + given)
        return list(_listed(answer)) if answer else []

    def _list(self, family: str, table: str, name: str) -> bytes:
        return netfilter(_NUMBERS[family], text(_TABLE, table), text(_SECOND, name))


_NOT_TOLD = ("table", "chain", "position")


def _bodies(answers: Iterable[netlink.Message]) -> Iterator[bytes]:
    return (answer.body for answer in answers)


def _bodies_in(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The bodies of messages about rules and elements, without what else a Message has."""
    for chunk in chunks:
        at = 0
        while at + _HEADER <= len(chunk):
            size, kind = unpack_from("=IH", chunk, at)
            if size < _HEADER:
                break
            if kind in (_NEWRULE, _NEWSETELEM):
                yield chunk[at + _HEADER : at + size]
            at += size + -size % 4


def _listed(body: bytes) -> Iterator[bytes]:
    for kind, value in attribute_list(body[_BODY:]):
        if kind == _ELEMENTS:
            yield from (element for _, element in attribute_list(value))


def _named(expressions: Iterable[Tree]) -> Iterator[str]:
    for each in expressions:
        for given in each.values():
            if isinstance(given.get("set"), str):
                yield given["set"]


# --- rules that cannot match ----------------------------------------------------------------------

_PURE = ("meta", "cmp", "payload", "bitwise")


class Toward:
    """Tells rules that begin with a comparison with another single destination address.

    Before it may stand other comparisons (iptables-nft puts interfaces and the protocol first),
    but nothing that acts. Looks at bytes: of 10,000 rules all but a few begin as one that was taken
    apart before.
    """

    def __init__(self, address: str) -> None:
        self._wanted = ip_address(address).packed
        size = len(self._wanted)
        load = be32(2, _NETWORK) + be32(3, _DESTINATIONS[size]) + be32(4, size)
        head = pack("=HH", size + 4, 1)
        self._pattern = re.compile(
            rb"%s.{12}%s.{4}%s.{12}%s%s.{2}%s(.{%d})"
            % (
                re.escape(text(1, "payload")),  # then its data and its register
                re.escape(load),
                re.escape(text(1, "cmp")),
                re.escape(be32(2, _EQUAL)),
                re.escape(pack("=H", size + 8)),
                re.escape(head),
                size,
            ),
            re.DOTALL,
        )
        self._begun: dict[bytes, None] = {}
        self._begins: re.Pattern[bytes] | None = None

    def elsewhere(self, rule: bytes) -> bool:
        begins = self._begins and self._begins.match(rule)
        if begins:
            return rule[begins.end() : begins.end() + len(self._wanted)] != self._wanted
        found = self._pattern.search(rule)
        if found is None or not _only_compares(rule[_expressions(rule) : found.start() - 4]):
            return False
        if len(self._begun) < _FEW_BEGINNINGS:
            self._begun[_beginning(rule[: found.start(1)])] = None
            self._begins = re.compile(b"|".join(self._begun), re.DOTALL)
        return found[1] != self._wanted


_NETWORK, _EQUAL = 1, 0
_DESTINATIONS = {4: 16, 16: 24}


_FEW_BEGINNINGS = 16
_NUMBERED = (3, 6)  # its own handle, and that of the rule before it


def _beginning(rule: bytes) -> bytes:
    """A pattern for what begins as this does, whatever the handles and the length are."""
    at, parts = _BODY, [re.escape(rule[:_BODY])]
    while at + 4 <= len(rule):
        size, kind = unpack_from("=HH", rule, at)
        if kind & _KIND == _RULE_EXPRESSIONS or size < 4:
            break
        end = at + size + -size % 4
        hole = b".{%d}" % (end - at - 4)
        numbered = kind & _KIND in _NUMBERED
        parts += [re.escape(rule[at : at + 4]), hole if numbered else re.escape(rule[at + 4 : end])]
        at = end
    return b"".join((*parts, b"..", re.escape(rule[at + 2 :])))


def _expressions(rule: bytes) -> int:
    """Where they begin."""
    at = _BODY
    while at + 4 <= len(rule):
        size, kind = unpack_from("=HH", rule, at)
        if kind & _KIND == _RULE_EXPRESSIONS or size < 4:
            break
        at += size + -size % 4
    return at + 4


def _only_compares(before: bytes) -> bool:
    return all(
        netlink.string(netlink.attributes(each).get(1)) in _PURE
        for _, each in attribute_list(before)
    )


_KIND, _RULE_EXPRESSIONS = 0x3FFF, 4


class Like:
    """Tells elements by a key of which some bytes are open: two dots for each of them.

    holding: what all that it may mean have in common
    """

    def __init__(self, key: str) -> None:
        pairs = [key[at : at + 2] for at in range(0, len(key), 2)]
        parts = [b"." if pair == ".." else re.escape(bytes.fromhex(pair)) for pair in pairs]
        self._pattern = re.compile(b"".join(parts), re.DOTALL)
        runs = (bytes.fromhex(run) for run in key.replace("..", " ").split())
        self.holding = max(runs, key=len, default=b"")

    def may_hold(self, element: bytes) -> bool:
        return bool(self._pattern.search(element))


def decoded(elements: Iterable[bytes]) -> list[dict[str, Any]]:
    return [tree(element, nft_tree.ELEMENT) for element in elements]

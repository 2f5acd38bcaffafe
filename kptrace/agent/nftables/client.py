"""nf_tables by netlink, without the program: tables, chains, rules, sets, elements, one by one.

In: a namespace to stand in, and what is wanted. Out: trees (``attributes.py``), as facts hold them.
One chain costs 0.1 ms where ``nft`` reads everything first.

GETRULE with table and chain gives that chain's rules; GETSETELEM with a key gives that element.
Long dumps are skimmed as bytes and only what is asked for is decoded. Names are looked up in no
file: an interface is named by its index where the rules do so.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from kptrace.agent.netlink import socket as netlink
from kptrace.agent.netlink.socket import (
    DUMP,
    NetlinkSocket,
    attribute,
    attribute_list,
    be32,
    nested,
    netfilter,
    text,
)
from kptrace.agent.nftables import attributes
from kptrace.agent.nftables.attributes import Tree, tree
from kptrace.agent.nftables.list_cache import (
    BASE_CHAINS,
    BODY,
    FAMILIES,
    NUMBERS,
    SECOND,
    TABLE,
    ListCache,
    bodies,
    elements_of,
    generation,
    rules_of,
)

if TYPE_CHECKING:
    from kptrace.agent.nftables.prefetch import Prefetcher

_GETTABLE, _GETCHAIN, _GETSET, _GETSETELEM = (10 << 8 | number for number in (1, 4, 10, 13))
_NAME = 3
_ELEMENTS, _LIST_ELEMENT, _KEY, _FLAGS, _CATCHALL = 3, 1, 1, 3, 2
_ANONYMOUS = "__"
FEW = 128


class Nftables:
    """To be made inside the namespace; ``inside``: makes more sockets there; ``ahead``: has read
    there. Raises OSError as the kernel refuses.
    """

    def __init__(
        self,
        inside: Callable[[Callable[[], NetlinkSocket]], NetlinkSocket],
        ahead: Prefetcher | None = None,
    ) -> None:
        self._inside, self._conversation = inside, NetlinkSocket()
        self._listings = ListCache(ahead)

    def close(self) -> None:
        self._conversation.close()

    # --- what there is ------------------------------------------------------------------------

    def generation(self) -> int:
        return generation(self._conversation)

    def tables(self) -> list[Tree]:
        answers = self._conversation.ask(_GETTABLE, netfilter(0), DUMP)
        return [self._of(body, attributes.TABLE) for body in _bodies(answers)]

    def base_chains(self) -> list[Tree]:
        """Of all tables."""
        answers = self._listings.told(BASE_CHAINS, self._conversation)
        chains = (self._of(body, attributes.CHAIN) for body in answers)
        return [chain for chain in chains if "hook" in chain]

    def chain_names(self, family: str, table: str) -> list[str]:
        answers = self._conversation.ask(_GETCHAIN, netfilter(NUMBERS[family]), DUMP)
        chains = (tree(body[BODY:], attributes.CHAIN) for body in _bodies(answers))
        return [chain["name"] for chain in chains if chain["table"] == table]

    def set_names(self, family: str, table: str) -> list[str]:
        body = netfilter(NUMBERS[family], text(TABLE, table))
        answers = self._conversation.ask(_GETSET, body, DUMP)
        sets = (tree(body[BODY:], attributes.SET) for body in _bodies(answers))
        return [element["name"] for element in sets if not element["name"].startswith(_ANONYMOUS)]

    def _of(self, body: bytes, schema: str) -> Tree:
        return {"family": FAMILIES.get(body[0], str(body[0])), **tree(body[BODY:], schema)}

    # --- chains -------------------------------------------------------------------------------

    def chain(self, family: str, table: str, name: str) -> Tree | None:
        body = netfilter(NUMBERS[family], text(TABLE, table), text(_NAME, name))
        answers = self._one(_GETCHAIN, body)
        return tree(answers[BODY:], attributes.CHAIN) if answers else None

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
        """Each as the kernel sends it."""
        return self._listings.told(rules_of(family, table, chain), self._conversation)

    def told(self, rules: Iterable[tuple[int, bytes]]) -> Iterator[Tree]:
        """Numbered rules as trees; table and chain are the fact's name."""
        for number, body in rules:
            answer = tree(body[BODY:], attributes.RULE)
            rest = {key: answer[key] for key in answer if key not in _NOT_TOLD}
            yield {"number": number, **rest}

    # --- sets ---------------------------------------------------------------------------------

    def set(self, family: str, table: str, name: str) -> Tree | None:
        body = netfilter(NUMBERS[family], text(TABLE, table), text(SECOND, name))
        answer = self._one(_GETSET, body)
        return tree(answer[BODY:], attributes.SET) if answer else None

    def sets_of(self, family: str, table: str, rules: Iterable[Tree]) -> dict[str, Tree]:
        """The sets that these rules name; an anonymous one with its elements."""
        sets: dict[str, Tree] = {}
        for name in dict.fromkeys(n for rule in rules for n in _named(rule["expressions"])):
            description = self.set(family, table, name)
            if description is not None:
                sets[name] = description
            if description is not None and name.startswith(_ANONYMOUS):
                description["elements"] = [
                    tree(element, attributes.ELEMENT)
                    for element in self.elements(family, table, name)
                ]
        return sets

    def elements(self, family: str, table: str, name: str) -> Iterator[bytes]:
        """As they come: who stops listening saves the kernel the rest."""
        with self._inside(NetlinkSocket) as apart:
            for body in bodies(elements_of(family, table, name).read(apart)):
                yield from _listed(body)

    def holding(self, family: str, table: str, name: str, data: bytes) -> Iterator[bytes]:
        """The elements that hold these bytes. Who asks for some of a large set soon asks for
        others.
        """
        chunks = self._listings.told(elements_of(family, table, name), self._conversation)
        for body in bodies(chunk for chunk in chunks if data in chunk):
            yield from (element for element in _listed(body) if data in element)

    def element(self, family: str, table: str, name: str, key: bytes) -> list[bytes]:
        """The element with this key, else the one for all others."""
        requested = nested(_ELEMENTS, nested(_LIST_ELEMENT, nested(_KEY, attribute(1, key))))
        answer = self._one(_GETSETELEM, elements_of(family, table, name).body + requested)
        return list(_listed(answer)) if answer else self.catchall(family, table, name)

    def catchall(self, family: str, table: str, name: str) -> list[bytes]:
        """The element that holds what no other does."""
        data = nested(_ELEMENTS, nested(_LIST_ELEMENT, be32(_FLAGS, _CATCHALL)))
        answer = self._one(_GETSETELEM, elements_of(family, table, name).body + data)
        return list(_listed(answer)) if answer else []


_NOT_TOLD = ("table", "chain", "position")


def _bodies(answers: Iterable[netlink.Message]) -> Iterator[bytes]:
    return (answer.body for answer in answers)


def _listed(body: bytes) -> Iterator[bytes]:
    for kind, value in attribute_list(body[BODY:]):
        if kind == _ELEMENTS:
            yield from (element for _, element in attribute_list(value))


def _named(expressions: Iterable[Tree]) -> Iterator[str]:
    for expression in expressions:
        for value in expression.values():
            if isinstance(value.get("set"), str):
                yield value["set"]


def decoded(elements: Iterable[bytes]) -> list[dict[str, Any]]:
    return [tree(element, attributes.ELEMENT) for element in elements]

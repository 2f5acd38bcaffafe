"""Read the elements of a large set or map of a live node: ``LiveElements``.

One key is one query. A set of intervals is read whole, and a key looked up among its elements.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from ipaddress import ip_address
from typing import Any, overload

from kptrace.model.errors import ParseError
from kptrace.rules.live.queries import RuleQuery
from kptrace.rules.model.expressions import PROTOCOLS
from kptrace.rules.model.sets import Element, Key, SetElements
from kptrace.rules.nftables.data_types import LENGTHS

Tree = Mapping[str, Any]
_PROTOCOL_NUMBERS = {name: number for number, name in PROTOCOLS.items()}
_HOST = ("mark",)


class LiveElements(SetElements):
    """The elements of one set.

    query: of the set; ask_fact: answers a query; read: parses elements
    types: of a key that can be encoded (``encodable``); None: the set is read whole
    """

    def __init__(
        self,
        query: RuleQuery,
        ask_fact: Callable[[RuleQuery], Tree | None],
        read: Callable[[Sequence[Tree]], list[Element]],
        types: tuple[str, ...] | None,
    ) -> None:
        super().__init__()
        self._query, self._ask_fact, self._read, self._types = query, ask_fact, read, types

    def lookup(self, key: Key) -> Element | None:
        if self._types is None:
            return self._all_elements.lookup(key)
        parts = encoded(key, self._types)
        if parts is None:
            return None
        elements = self._ask_elements(self._query.part_query("key", "".join(parts)))
        return elements[0] if elements else None

    def matching_pattern(self, key: Sequence[str | int | None]) -> Iterable[Element]:
        if self._types is None:
            return self
        parts = encoded(key, self._types)
        return (
            ()
            if parts is None
            else self._ask_elements(self._query.part_query("key-pattern", "".join(parts)))
        )

    def containing_text(self, text: str) -> Iterable[Element]:
        return self._ask_elements(self._query.part_query("containing", text))

    def _ask_elements(self, query: RuleQuery) -> list[Element]:
        fact = self._ask_fact(query)
        if fact is None or "elements" not in fact:
            text = f"these elements of set {query.name} were not asked for"
            raise ParseError(query.file, 0, text, "trace anew; a saved run holds what was asked")
        return self._read(fact["elements"])

    @cached_property
    def _all_elements(self) -> SetElements:
        return SetElements(self._ask_elements(self._query.part_query("all")))

    @overload
    def __getitem__(self, index: int) -> Element: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Element]: ...
    def __getitem__(self, index: int | slice) -> Element | Sequence[Element]:
        return self._all_elements[index]

    def __len__(self) -> int:
        return len(self._all_elements)

    def __iter__(self) -> Iterator[Element]:
        return iter(self._all_elements)


def encodable(types: Sequence[str]) -> bool:
    """Whether ``encoded`` knows these types."""
    return bool(types) and all(kind in _CODED or kind in _OTHERS for kind in types)


def encoded(key: Sequence[str | int | None], types: Sequence[str]) -> list[str] | None:
    """The bytes of a key as the kernel holds them, in hexadecimal.

    Each of several parts is padded to four bytes; a part that is None becomes dots. None: no set of
    these types can contain the key.
    """
    if len(key) != len(types):
        return None
    parts = []
    for value, kind in zip(key, types, strict=True):
        raw = None if value is None else _part(value, kind)
        if raw is None and value is not None:
            return None
        size = LENGTHS[kind]
        shown = "." * 2 * size if raw is None else raw.hex()
        parts.append(shown if len(types) == 1 else shown + "00" * (-size % 4))
    return parts


def _part(value: str | int, kind: str) -> bytes | None:
    if kind in ("ipv4_addr", "ipv6_addr"):
        return _address(value, LENGTHS[kind])
    if kind == "inet_proto":
        value = _PROTOCOL_NUMBERS.get(str(value), int(value) if str(value).isdigit() else -1)
    if kind == "ifname" and isinstance(value, str):
        raw = value.encode()
        return raw.ljust(LENGTHS[kind], b"\0") if len(raw) < LENGTHS[kind] else None
    if kind in _CODED and isinstance(value, int) and 0 <= value < 1 << LENGTHS[kind] * 8:
        return value.to_bytes(LENGTHS[kind], sys.byteorder if kind in _HOST else "big")
    return None


_CODED = ("inet_proto", "inet_service", "mark", "icmp_type", "icmpv6_type")
_OTHERS = ("ipv4_addr", "ipv6_addr", "ifname")


def _address(value: str | int, size: int) -> bytes | None:
    try:
        raw = ip_address(value).packed
    except ValueError:
        return None
    return raw if len(raw) == size else None

"""The elements of a large set or map of a live node: ``LiveElements``. One key is one question.

In: the set's name, its types, and how its elements' trees are read. Out: Members as the text
readers make them. What a set of intervals holds is looked up among all its elements.
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
    """types: of a key that can be asked for (``encodable``); None: the set holds intervals, or
    types that cannot be put into bytes here.
    """

    def __init__(
        self,
        wanted: RuleQuery,
        asked: Callable[[RuleQuery], Tree | None],
        read: Callable[[Sequence[Tree]], list[Element]],
        types: tuple[str, ...] | None,
    ) -> None:
        super().__init__()
        self._wanted, self._asked, self._read, self._types = wanted, asked, read, types

    def lookup(self, key: Key) -> Element | None:
        if self._types is None:
            return self._all.lookup(key)
        parts = encoded(key, self._types)
        if parts is None:
            return None
        found = self._some(self._wanted.narrowed("key", "".join(parts)))
        return found[0] if found else None

    def like(self, key: Sequence[str | int | None]) -> Iterable[Element]:
        if self._types is None:
            return self
        parts = encoded(key, self._types)
        return () if parts is None else self._some(self._wanted.narrowed("like", "".join(parts)))

    def containing_text(self, text: str) -> Iterable[Element]:
        return self._some(self._wanted.narrowed("saying", text))

    def _some(self, wanted: RuleQuery) -> list[Element]:
        told = self._asked(wanted)
        if told is None or "elements" not in told:
            text = f"these elements of set {wanted.name} were not asked for"
            raise ParseError(wanted.file, 0, text, "trace anew; a saved run holds what was asked")
        return self._read(told["elements"])

    @cached_property
    def _all(self) -> SetElements:
        return SetElements(self._some(self._wanted.narrowed("all")))

    @overload
    def __getitem__(self, index: int) -> Element: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Element]: ...
    def __getitem__(self, index: int | slice) -> Element | Sequence[Element]:
        return self._all[index]

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Element]:
        return iter(self._all)


def encodable(types: Sequence[str]) -> bool:
    return bool(types) and all(kind in _CODED or kind in _OTHERS for kind in types)


def encoded(key: Sequence[str | int | None], types: Sequence[str]) -> list[str] | None:
    """A key of types that are encodable as the kernel holds it, in hexadecimal: of several places
    each is padded to four bytes; one that is not known is dots. None: no such set can hold it.
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

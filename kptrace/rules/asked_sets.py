"""The elements of a large set or map of a live node: ``AskedMembers``. One key is one question.

In: the set's name, its types, and how its elements' trees are read. Out: Members as the text
readers make them. A key that cannot be put into bytes here, or a set of intervals, is looked up
among all elements.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from ipaddress import ip_address
from typing import Any, overload

from kptrace.errors import BadDump
from kptrace.rules.nft_types import LENGTHS
from kptrace.rules.parts import PROTOCOLS
from kptrace.rules.sets import Element, Key, Members
from kptrace.rules.wanted import Wanted

Tree = Mapping[str, Any]
_PROTOCOL_NUMBERS = {name: number for number, name in PROTOCOLS.items()}
_HOST = ("mark",)


class AskedMembers(Members):
    """types: of an exact key; None: the set holds intervals."""

    def __init__(
        self,
        wanted: Wanted,
        asked: Callable[[Wanted], Tree | None],
        read: Callable[[Sequence[Tree]], list[Element]],
        types: tuple[str, ...] | None,
    ) -> None:
        super().__init__()
        self._wanted, self._asked, self._read, self._types = wanted, asked, read, types

    def lookup(self, key: Key) -> Element | None:
        raw = encoded(key, self._types) if self._types else None
        if raw is None:
            return self._all.lookup(key)
        found = self._some(self._wanted.narrowed("key", raw.hex()))
        return found[0] if found else None

    def saying(self, text: str) -> Iterable[Element]:
        return self._some(self._wanted.narrowed("saying", text))

    def _some(self, wanted: Wanted) -> list[Element]:
        told = self._asked(wanted)
        if told is None or "elements" not in told:
            text = f"these elements of set {wanted.name} were not asked for"
            raise BadDump(wanted.file, 0, text, "trace anew; a saved run holds what was asked")
        return self._read(told["elements"])

    @cached_property
    def _all(self) -> Members:
        return Members(self._some(self._wanted.narrowed("all")))

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


def encoded(key: Key, types: Sequence[str]) -> bytes | None:
    """The key as the kernel holds it: of several places each is padded to four bytes."""
    parts = [_part(value, kind) for value, kind in zip(key, types, strict=False)]
    known = [part for part in parts if part is not None]
    if len(known) != len(types) or len(key) != len(types):
        return None
    if len(known) == 1:
        return known[0]
    return b"".join(part + bytes(-len(part) % 4) for part in known)


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


def _address(value: str | int, size: int) -> bytes | None:
    try:
        raw = ip_address(value).packed
    except ValueError:
        return None
    return raw if len(raw) == size else None

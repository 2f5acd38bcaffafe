"""Sets and maps: the named ones of nftables and ipsets, in one form.

A key is a tuple of plain values in the order of ``Set.type``: addresses, protocols and interfaces
as text, ports and marks as int. An ipset dimension ``port`` has two parts, protocol and port
(``bitmap:port`` has no protocol: one part).

Several elements can match one key only in ipsets with prefixes: there the longest prefix decides,
and if that one says ``nomatch`` the key is not in the set (ipset(8), hash:net).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Literal, overload

from kptrace.model import Value
from kptrace.rules.model.expressions import (
    Concat,
    Const,
    Expr,
    InterfaceWildcard,
    Masked,
    Prefix,
    Range,
    Verdict,
)

Key = tuple[str | int, ...]


class Element(Value):
    """One element of a set or map.

    key: Const, Prefix, Range, InterfaceWildcard or a Concat of these; an InterfaceWildcard with an
        empty start is nft's ``*``, which matches every key that no other element matches
    data: what a map gives for the key
    timeout, expires: in seconds
    nomatch: an exception inside a wider prefix
    """

    key: Expr
    data: Expr | Verdict | None = None
    timeout: int | None = None
    expires: int | None = None
    comment: str = ""
    nomatch: bool = False


class SetElements(Sequence[Element]):
    """The elements of a set. The reader of a live node overrides ``lookup`` to ask for one key."""

    def __init__(self, elements: Iterable[Element] = ()) -> None:
        self._elements = tuple(elements)
        self._exact: dict[Key, Element] | None = None
        self._wide: list[tuple[tuple[Expr, ...], Element]] = []
        self._rest: Element | None = None

    def lookup(self, key: Key) -> Element | None:
        """The element that matches this key; None if the key is not in the set."""
        if self._exact is None:
            self._exact = self._index()
        element = self._exact.get(key)
        if element is None:
            inside = [
                (_length(parts), candidate)
                for parts, candidate in self._wide
                if len(parts) == len(key) and all(map(pattern_matches, parts, key))
            ]
            element = max(inside, key=lambda pair: pair[0])[1] if inside else self._rest
        return None if element is None or element.nomatch else element

    def containing_text(self, text: str) -> Iterable[Element]:
        """The elements, without some that surely do not contain this text (a comment, a chain)."""
        return self

    def matching_pattern(self, key: Sequence[str | int | None]) -> Iterable[Element]:
        """The elements, without some that surely do not match such a key; None: an unknown part."""
        return self

    def _index(self) -> dict[Key, Element]:
        exact: dict[Key, Element] = {}
        for element in self._elements:
            parts = key_parts(element.key)
            if parts == (InterfaceWildcard(start=""),):
                self._rest = element
                continue
            values = tuple(part.value for part in parts if isinstance(part, Const))
            if len(values) == len(parts):
                exact[values] = element
            else:
                self._wide.append((parts, element))
        return exact

    @overload
    def __getitem__(self, index: int) -> Element: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Element]: ...
    def __getitem__(self, index: int | slice) -> Element | Sequence[Element]:
        return self._elements[index]

    def __len__(self) -> int:
        return len(self._elements)

    def __iter__(self) -> Iterator[Element]:
        return iter(self._elements)


class Set(Value):
    """A set, a map of data, or a verdict map (``vmap``).

    type: of the key, in nft's names: ``ipv4_addr``, ``inet_proto``, ``inet_service``, ``ifname``,
    ... method: an ipset's own type (``hash:ip,port``), empty for nft
    """

    name: str
    kind: Literal["set", "map", "vmap"]
    type: tuple[str, ...]
    members: SetElements
    method: str = ""
    flags: tuple[str, ...] = ()
    timeout: int | None = None
    comment: str = ""


def key_parts(key: Expr) -> tuple[Expr, ...]:
    """The parts of a key in order; a key that is no Concat has one."""
    return key.parts if isinstance(key, Concat) else (key,)


def pattern_matches(pattern: Expr, value: str | int) -> bool:
    """Whether a Const, Prefix, Masked, Range or InterfaceWildcard matches this value."""
    match pattern:
        case Const(value=expected):
            return expected == value
        case Prefix(address=address, length=length):
            return _in_prefix(address, length, value)
        case Masked(address=address, mask=mask):
            masked, bits, wanted_at = _number(value), _number(mask), _number(address)
            return masked[0] == wanted_at[0] != "" and masked[1] & bits[1] == wanted_at[1]
        case Range(low=low, high=high):
            kind, number = _number(value)
            (low_kind, bottom), (high_kind, top) = _number(low), _number(high)
            return kind == low_kind == high_kind != "" and bottom <= number <= top
        case InterfaceWildcard(start=start):
            return isinstance(value, str) and value.startswith(start)
        case _:
            return False


def _in_prefix(address: str, length: int, value: str | int) -> bool:
    kind, number = _number(value)
    other, base = _number(address)
    shift = (32 if kind == "4" else 128) - length
    return kind == other and kind in ("4", "6") and shift >= 0 and number >> shift == base >> shift


def _length(parts: tuple[Expr, ...]) -> int:
    """How narrow an element is: the sum of its prefix lengths, an exact address being 128."""
    return sum(part.length if isinstance(part, Prefix) else 128 for part in parts)


@lru_cache(maxsize=4096)
def _number(value: str | int) -> tuple[str, int]:
    """(kind, number): kind ``4`` or ``6`` for addresses, ``n`` for numbers, else empty."""
    if isinstance(value, int):
        return "n", value
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return "", 0
    return str(address.version), int(address)

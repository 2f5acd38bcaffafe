"""Sets and maps: nft's named ones and ipsets, in one form.

Comes in: elements as the readers make them. Goes out: ``Set.members.lookup(key)``.

A key is a tuple of plain values in the order of ``Set.type``: addresses and protocols as text,
ports and marks as int, interfaces as text. An ipset dimension ``port`` is two places, protocol and
port (``bitmap:port`` has no protocol: one place).

Several elements can hold one key only in ipsets with prefixes: there the longest prefix decides,
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
    """key: Const, Prefix, Range, Wild or a Concat of these; ``data``: what a map gives for it.

    A Wild that starts with nothing is nft's ``*``: it holds every key that no other element holds.

    timeout, expires: seconds, as listed; ``nomatch``: an exception inside a wider prefix.
    """

    key: Expr
    data: Expr | Verdict | None = None
    timeout: int | None = None
    expires: int | None = None
    comment: str = ""
    nomatch: bool = False


class SetElements(Sequence[Element]):
    """The elements of a set. A live reader overrides ``lookup`` to ask the kernel for one key."""

    def __init__(self, elements: Iterable[Element] = ()) -> None:
        self._elements = tuple(elements)
        self._exact: dict[Key, Element] | None = None
        self._wide: list[tuple[tuple[Expr, ...], Element]] = []
        self._rest: Element | None = None

    def lookup(self, key: Key) -> Element | None:
        """The element that holds this key. Exact elements by hash, wide ones in turn."""
        if self._exact is None:
            self._exact = self._index()
        found = self._exact.get(key)
        if found is None:
            inside = [
                (_length(parts), element)
                for parts, element in self._wide
                if len(parts) == len(key) and all(map(holds, parts, key))
            ]
            found = max(inside, key=lambda pair: pair[0])[1] if inside else self._rest
        return None if found is None or found.nomatch else found

    def containing_text(self, text: str) -> Iterable[Element]:
        """The elements, less some that surely do not hold this text (a comment, a chain's name)."""
        return self

    def like(self, key: Sequence[str | int | None]) -> Iterable[Element]:
        """The elements, less some that surely do not hold such a key; None: a place not known."""
        return self

    def _index(self) -> dict[Key, Element]:
        exact: dict[Key, Element] = {}
        for element in self._elements:
            parts = places(element.key)
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
    """``kind``: a set, a map of data, or a verdict map (``vmap``).

    type: nft's names (``ipv4_addr``, ``inet_proto``, ``inet_service``, ``ifname``, ``mark``, ...)
    method: an ipset's own type (``hash:ip,port``), empty for nft
    """

    name: str
    kind: Literal["set", "map", "vmap"]
    type: tuple[str, ...]
    members: SetElements
    method: str = ""
    flags: tuple[str, ...] = ()
    timeout: int | None = None
    comment: str = ""


def places(key: Expr) -> tuple[Expr, ...]:
    """A key's parts in order; a key that is no Concat has one."""
    return key.parts if isinstance(key, Concat) else (key,)


def holds(pattern: Expr, value: str | int) -> bool:
    """Whether a Const, Prefix, Masked, Range or Wild holds this value."""
    match pattern:
        case Const(value=wanted):
            return wanted == value
        case Prefix(address=address, length=length):
            return _in_prefix(address, length, value)
        case Masked(address=address, mask=mask):
            there, bits, wanted_at = _number(value), _number(mask), _number(address)
            return there[0] == wanted_at[0] != "" and there[1] & bits[1] == wanted_at[1]
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

"""A set or map of nf_tables as the kernel holds it -> the JSON that ``nft -j`` prints for it.

In: the set's tree (``agent/nftables/attributes.py``) with its elements' trees. Out: what a rule has
to know of it (SetTold), and its elements in nft's JSON, which ``json_ruleset.py`` reads.

Theory: the kernel keeps the intervals of a set with one dimension as their beginnings and, with a
flag, what comes after their ends; those of a concatenation as a pair of keys (segtree.c in nft).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from kptrace.model import Value
from kptrace.rules.byte_reader import address, unhex
from kptrace.rules.nftables.data_types import (
    BIG_ENDIAN,
    FLAGS,
    PREFIXED,
    UnformattableValueError,
    element_flags,
    part_lengths,
    printed,
    type_names,
)
from kptrace.rules.nftables.delinearize import verdict
from kptrace.rules.nftables.kernel_rule import comment, user_data
from kptrace.rules.nftables.registers import Json, SetInfo

Tree = Mapping[str, Any]

ANONYMOUS, CONSTANT, INTERVAL, MAP, TIMEOUT, EVAL, OBJECT = (1 << bit for bit in range(7))
_FLAG_NAMES = ((CONSTANT, "constant"), (INTERVAL, "interval"), (TIMEOUT, "timeout"))
_END, _CATCHALL = 1, 2
_VERDICTS = 0xFFFFFF00
_KEY_ORDER, _DATA_ORDER, _SET_COMMENT = 0, 1, 7
_BIG = 2


class SetType(Value):
    """The types of a set's keys, or of what a map gives, and their bytes.

    big: numbers of the machine's order have been turned around
    """

    types: tuple[str, ...]
    size: int
    big: bool = False


class SetReader:
    """One set. Raises ValueError or KeyError for what is no set."""

    def __init__(self, tree: Tree, interfaces: Mapping[int, str]) -> None:
        self._tree, self._interfaces = tree, interfaces
        self.flags = tree.get("flags", 0)
        data = user_data(tree.get("userdata", ""))
        types = type_names(tree["key_type"])
        turned = len(types) == 1 and bool(self.flags & INTERVAL)  # so that the kernel can sort
        big = turned or _order(data.get(_KEY_ORDER)) == _BIG
        self.key = SetType(types=types, size=tree["key_len"], big=big)
        self.data = self._data_kind(_order(data.get(_DATA_ORDER)) == _BIG)
        self.comment = comment(tree.get("userdata", ""), _SET_COMMENT)

    def _data_kind(self, big: bool) -> SetType:
        tree = self._tree
        if self.flags & OBJECT:
            return SetType(types=(f"object {tree.get('obj_type', 0)}",), size=0)
        if not self.flags & MAP:
            return SetType(types=(), size=0)
        if tree.get("data_type") == _VERDICTS:
            return SetType(types=("verdict",), size=0)
        return SetType(types=type_names(tree["data_type"]), size=tree["data_len"], big=big)

    def told(self) -> SetInfo:
        anonymous = bool(self.flags & ANONYMOUS)
        return SetInfo(
            name=self._tree["name"],
            types=self.key.types,
            size=self.key.size,
            data=self.data.types,
            anonymous=anonymous,
            elements=tuple(self.elements(self._tree.get("elements", ()))) if anonymous else (),
        )

    @property
    def wide(self) -> bool:
        """Its elements are intervals, or there is one for all that no other holds."""
        return bool(self.flags & INTERVAL)

    @property
    def timeout(self) -> int | None:
        milliseconds = self._tree.get("timeout")
        return milliseconds // 1000 if milliseconds else None

    def flag_names(self) -> tuple[str, ...]:
        return tuple(name for bit, name in _FLAG_NAMES if self.flags & bit)

    # --- elements -----------------------------------------------------------------------------

    def elements(self, trees: Sequence[Tree]) -> Iterator[Json]:
        """In nft's order."""
        if self.flags & INTERVAL and len(self.key.types) < 2:
            yield from self._intervals(trees)
            return
        known = trees if self.flags & INTERVAL else sorted(trees, key=self._rank)
        for tree in known:
            yield self._element(tree, self._concatenated(tree))

    def _rank(self, tree: Tree) -> tuple[bool, int]:
        """nft sorts by number, takes the bytes of a concatenation for one of the machine's, and
        several flags at once (``syn | ack``) for none.
        """
        kind = self.key.types[0] if len(self.key.types) == 1 else ""
        order: Literal["little", "big"] = sys.byteorder
        if kind in BIG_ENDIAN or self.key.big:
            order = "big"
        number = int.from_bytes(unhex(tree.get("key", "")), order)
        if kind in FLAGS and number.bit_count() > 1:
            number = 0
        return bool(tree.get("flags", 0) & _CATCHALL), number

    def _concatenated(self, tree: Tree) -> Json:
        if tree.get("flags", 0) & _CATCHALL:
            return "*"
        low = unhex(tree["key"])
        high = unhex(tree["key_end"]) if "key_end" in tree else low
        return self._parts(low, high, self.key)

    def _parts(self, low: bytes, high: bytes, kind: SetType) -> Json:
        at, shown = 0, []
        for name, size in zip(kind.types, part_lengths(kind.types, kind.size), strict=True):
            ends = low[at : at + size], high[at : at + size]
            shown.append(self._span(*ends, SetType(types=(name,), size=size, big=kind.big)))
            at += size + -size % 4
        if not shown:
            raise UnformattableValueError("a type that is not known")
        return shown[0] if len(shown) == 1 else {"concat": shown}

    def _intervals(self, trees: Sequence[Tree]) -> Iterator[Json]:
        plain = [tree for tree in trees if not tree.get("flags", 0) & _CATCHALL]
        ordered = sorted(plain, key=lambda tree: (unhex(tree["key"]), not _ends(tree)))
        for place, tree in enumerate(ordered):
            if _ends(tree):
                continue
            low = unhex(tree["key"])
            after = ordered[place + 1 : place + 2]  # its end, or the beginning of the next
            high = _before(unhex(after[0]["key"])) if after else b"\xff" * len(low)
            yield self._element(tree, self._span(low, high, self.key))
        for tree in trees:
            if tree.get("flags", 0) & _CATCHALL:
                yield self._element(tree, "*")

    def _span(self, low: bytes, high: bytes, kind: SetType) -> Json:
        name = kind.types[0] if kind.types else ""
        if low == high:
            return self._one(low, kind)
        if name in PREFIXED:
            wide = int.from_bytes(low, "big") ^ int.from_bytes(high, "big")
            length = len(low) * 8 - wide.bit_length()
            if wide + 1 == 1 << wide.bit_length() and _is_base(low, wide):
                return {"prefix": {"addr": address(low), "len": length}}
        if name == "ifname":
            return self._one(low.rstrip(b"\0"), kind)
        return {"range": [self._one(low, kind), self._one(high, kind)]}

    def _one(self, raw: bytes, kind: SetType) -> Json:
        name = kind.types[0] if kind.types else ""
        if not name:
            raise UnformattableValueError("a type that is not known")
        if name == "integer":
            order = "big" if kind.big else sys.byteorder
            return int.from_bytes(raw, order)
        if name in FLAGS:
            return element_flags(raw, name, kind.big)
        return printed(raw, name, self._interfaces, kind.big)

    def _element(self, tree: Tree, key: Json) -> Json:
        shown = self._dressed(tree, key)
        if self.flags & OBJECT:
            return [shown, tree["objref"]]
        if not self.data.types:
            return shown
        if self.data.types == ("verdict",):
            return [shown, verdict(tree["data"])]
        return [shown, self._datum(unhex(tree["data"]))]

    def _datum(self, raw: bytes) -> Json:
        """Of a map of prefixes or ranges both ends (NFT_SET_... with ``: interval``)."""
        if len(raw) == 2 * self.data.size or (len(self.data.types) == 1 and self._doubled(raw)):
            half = len(raw) // 2
            return self._parts(raw[:half], raw[half:], self.data)
        return self._parts(raw, raw, self.data)

    def _doubled(self, raw: bytes) -> bool:
        sizes = {"ipv4_addr": 8, "ipv6_addr": 32}
        return len(raw) == sizes.get(self.data.types[0], 0)

    def _dressed(self, tree: Tree, key: Json) -> Json:
        """With what an element has beside its key."""
        told: Json = {"val": key}
        if tree.get("timeout"):
            told["timeout"] = tree["timeout"] // 1000
        if tree.get("expiration"):
            told["expires"] = tree["expiration"] // 1000
        if text := comment(tree.get("userdata", "")):
            told["comment"] = text
        for each in tree.get("expressions") or ([tree["expr"]] if "expr" in tree else []):
            if counter := each.get("counter"):
                told["counter"] = {"packets": counter["packets"], "bytes": counter["bytes"]}
        return key if len(told) == 1 else {"elem": told}


def _order(value: bytes | None) -> int:
    return int.from_bytes(value or b"", sys.byteorder)


def _ends(tree: Tree) -> bool:
    return bool(tree.get("flags", 0) & _END)


def _before(raw: bytes) -> bytes:
    number = int.from_bytes(raw, "big")
    return (number - 1).to_bytes(len(raw), "big") if number else b"\xff" * len(raw)


def _is_base(low: bytes, wide: int) -> bool:
    return not int.from_bytes(low, "big") & wide

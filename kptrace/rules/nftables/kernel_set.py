"""Turn a set or map of nf_tables into the JSON that ``nft -j`` prints.

Theory: the kernel stores an interval of a set with one dimension as two elements, its start and,
with a flag, the value after its end; an interval of a concatenation as a pair of keys (segtree.c in
nft).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from kptrace.model import Value
from kptrace.rules.byte_reader import address_text, decode_hex
from kptrace.rules.nftables.data_types import (
    BIG_ENDIAN,
    FLAGS,
    PREFIXED,
    UnformattableValueError,
    element_flags,
    format_value,
    part_lengths,
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
    """The types of a set's keys or of a map's data, and their size in bytes.

    big: numbers of the machine's byte order were reversed to big-endian
    """

    types: tuple[str, ...]
    size: int
    big: bool = False


class SetReader:
    """One set, from its tree (``agent/nftables/attributes.py``).

    Raises ValueError or KeyError for another tree.
    """

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

    def info(self) -> SetInfo:
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
    def has_intervals(self) -> bool:
        """Whether an element can be an interval, or match every other key."""
        return bool(self.flags & INTERVAL)

    @property
    def timeout(self) -> int | None:
        milliseconds = self._tree.get("timeout")
        return milliseconds // 1000 if milliseconds else None

    def flag_names(self) -> tuple[str, ...]:
        return tuple(name for bit, name in _FLAG_NAMES if self.flags & bit)

    # --- elements -----------------------------------------------------------------------------

    def elements(self, trees: Sequence[Tree]) -> Iterator[Json]:
        """The elements in nft's order, as ``json_ruleset.element_of`` reads them."""
        if self.flags & INTERVAL and len(self.key.types) < 2:
            yield from self._intervals(trees)
            return
        ordered_trees = trees if self.flags & INTERVAL else sorted(trees, key=self._rank)
        for tree in ordered_trees:
            yield self._element(tree, self._concatenated(tree))

    def _rank(self, tree: Tree) -> tuple[bool, int]:
        """The sort key of an element.

        nft sorts by number. It takes the bytes of a concatenation as one number of the machine's
        byte order, and several flags (``syn | ack``) as 0.
        """
        kind = self.key.types[0] if len(self.key.types) == 1 else ""
        order: Literal["little", "big"] = sys.byteorder
        if kind in BIG_ENDIAN or self.key.big:
            order = "big"
        number = int.from_bytes(decode_hex(tree.get("key", "")), order)
        if kind in FLAGS and number.bit_count() > 1:
            number = 0
        return bool(tree.get("flags", 0) & _CATCHALL), number

    def _concatenated(self, tree: Tree) -> Json:
        if tree.get("flags", 0) & _CATCHALL:
            return "*"
        low = decode_hex(tree["key"])
        high = decode_hex(tree["key_end"]) if "key_end" in tree else low
        return self._parts(low, high, self.key)

    def _parts(self, low: bytes, high: bytes, kind: SetType) -> Json:
        offset, shown = 0, []
        for name, size in zip(kind.types, part_lengths(kind.types, kind.size), strict=True):
            ends = low[offset : offset + size], high[offset : offset + size]
            shown.append(self._span(*ends, SetType(types=(name,), size=size, big=kind.big)))
            offset += size + -size % 4
        if not shown:
            raise UnformattableValueError("a type that is not known")
        return shown[0] if len(shown) == 1 else {"concat": shown}

    def _intervals(self, trees: Sequence[Tree]) -> Iterator[Json]:
        plain = [tree for tree in trees if not tree.get("flags", 0) & _CATCHALL]
        ordered = sorted(plain, key=lambda tree: (decode_hex(tree["key"]), not _ends(tree)))
        for place, tree in enumerate(ordered):
            if _ends(tree):
                continue
            low = decode_hex(tree["key"])
            after = ordered[place + 1 : place + 2]  # its end, or the beginning of the next
            high = _before(decode_hex(after[0]["key"])) if after else b"\xff" * len(low)
            yield self._element(tree, self._span(low, high, self.key))
        for tree in trees:
            if tree.get("flags", 0) & _CATCHALL:
                yield self._element(tree, "*")

    def _span(self, low: bytes, high: bytes, kind: SetType) -> Json:
        name = kind.types[0] if kind.types else ""
        if low == high:
            return self._single(low, kind)
        if name in PREFIXED:
            wide = int.from_bytes(low, "big") ^ int.from_bytes(high, "big")
            length = len(low) * 8 - wide.bit_length()
            if wide + 1 == 1 << wide.bit_length() and _is_base(low, wide):
                return {"prefix": {"addr": address_text(low), "len": length}}
        if name == "ifname":
            return self._single(low.rstrip(b"\0"), kind)
        return {"range": [self._single(low, kind), self._single(high, kind)]}

    def _single(self, raw: bytes, kind: SetType) -> Json:
        name = kind.types[0] if kind.types else ""
        if not name:
            raise UnformattableValueError("a type that is not known")
        if name == "integer":
            order = "big" if kind.big else sys.byteorder
            return int.from_bytes(raw, order)
        if name in FLAGS:
            return element_flags(raw, name, kind.big)
        return format_value(raw, name, self._interfaces, kind.big)

    def _element(self, tree: Tree, key: Json) -> Json:
        shown = self._with_attributes(tree, key)
        if self.flags & OBJECT:
            return [shown, tree["objref"]]
        if not self.data.types:
            return shown
        if self.data.types == ("verdict",):
            return [shown, verdict(tree["data"])]
        return [shown, self._datum(decode_hex(tree["data"]))]

    def _datum(self, raw: bytes) -> Json:
        """The data of a map element; a map of prefixes or ranges has both ends."""
        if len(raw) == 2 * self.data.size or (len(self.data.types) == 1 and self._doubled(raw)):
            half = len(raw) // 2
            return self._parts(raw[:half], raw[half:], self.data)
        return self._parts(raw, raw, self.data)

    def _doubled(self, raw: bytes) -> bool:
        sizes = {"ipv4_addr": 8, "ipv6_addr": 32}
        return len(raw) == sizes.get(self.data.types[0], 0)

    def _with_attributes(self, tree: Tree, key: Json) -> Json:
        """An element's key with its timeout, comment and counter."""
        element: Json = {"val": key}
        if tree.get("timeout"):
            element["timeout"] = tree["timeout"] // 1000
        if tree.get("expiration"):
            element["expires"] = tree["expiration"] // 1000
        if text := comment(tree.get("userdata", "")):
            element["comment"] = text
        for expression in tree.get("expressions") or ([tree["expr"]] if "expr" in tree else []):
            if counter := expression.get("counter"):
                element["counter"] = {"packets": counter["packets"], "bytes": counter["bytes"]}
        return key if len(element) == 1 else {"elem": element}


def _order(value: bytes | None) -> int:
    return int.from_bytes(value or b"", sys.byteorder)


def _ends(tree: Tree) -> bool:
    return bool(tree.get("flags", 0) & _END)


def _before(raw: bytes) -> bytes:
    number = int.from_bytes(raw, "big")
    return (number - 1).to_bytes(len(raw), "big") if number else b"\xff" * len(raw)


def _is_base(low: bytes, wide: int) -> bool:
    return not int.from_bytes(low, "big") & wide

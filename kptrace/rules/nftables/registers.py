"""The registers of nf_tables: their content, and the expression in nft's JSON for it.

A register holds what was loaded last; the parts of a key are in consecutive registers. Which header
a load means follows from what was compared before; a comparison that a load implies is not printed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kptrace.model import Value
from kptrace.rules.nftables.data_types import (
    FLAGS,
    LENGTHS,
    UnformattableValueError,
    decode_integer,
    format_flags,
    format_value,
)
from kptrace.rules.nftables.header_fields import BASES, LINK, NETWORK, TRANSPORT, Field, find

Json = Any

FAMILY_HEADERS = {"ip": "ip", "ip6": "ip6", "arp": "arp"}
_WORDS = 4  # of 4 bytes in one of the first registers
_FIRST_SMALL = 8  # NFT_REG32_00


class RegisterValue(Value):
    """The content of a register.

    json: its expression; a payload has none until it is known what it is compared with
    kind: its type
    raw: the bytes of an immediate value
    base, offset, length: of a payload, in bits
    mask, xor: that were applied to it
    big: a number of the machine's byte order was reversed to big-endian
    """

    json: Json = None
    kind: str = "integer"
    raw: bytes | None = None
    base: int = -1
    offset: int = 0
    length: int = 0
    mask: bytes = b""
    xor: bytes = b""
    big: bool = False


class SetInfo(Value):
    """A set that a rule names.

    types, size: of the key, in bytes
    data: the types of a map's data; empty: it is a set
    elements: of an anonymous set, in the JSON of ``nft -j``
    """

    name: str
    types: tuple[str, ...]
    size: int
    data: tuple[str, ...] = ()
    anonymous: bool = False
    elements: tuple[Any, ...] = ()

    @property
    def json(self) -> Json:
        """The set as a rule names it."""
        return {"set": list(self.elements)} if self.anonymous else f"@{self.name}"


class Registers:
    """The registers of one rule.

    sets: that the rule names
    interfaces: names by index
    headers: the header at each base, as far as it is known
    implied: for each base the index in ``out`` of the comparison that implies its header
    out: the statements so far; None for one that is not printed
    """

    def __init__(
        self, family: str, sets: Mapping[str, SetInfo], interfaces: Mapping[int, str]
    ) -> None:
        self.family, self.sets, self.interfaces = family, sets, interfaces
        self._registers: dict[int, RegisterValue] = {}
        self.headers: dict[int, str] = {}
        if family in FAMILY_HEADERS:
            self.headers[NETWORK] = FAMILY_HEADERS[family]
        if family in ("bridge", "netdev"):
            self.headers[LINK] = "ether"
        self.implied: dict[int, tuple[int, str]] = {}  # base -> place in out, by what field
        self.out: list[Json] = []

    @property
    def network(self) -> str:
        """The network header; empty if it is not known."""
        return self.headers.get(NETWORK, "")

    @property
    def address_kind(self) -> str:
        return "ipv6_addr" if self.network == "ip6" else "ipv4_addr"

    def settle(self) -> None:
        """A statement that is no comparison follows: the comparisons before it are printed."""
        self.implied.clear()

    def match(self, left: Json, op: str, right: Json) -> None:
        self.out.append({"match": {"op": op, "left": left, "right": right}})

    # --- registers ----------------------------------------------------------------------------

    def put(self, register: int, loaded: RegisterValue) -> None:
        self._registers[_word(register)] = loaded

    def get(self, register: int) -> RegisterValue:
        return self._registers[_word(register)]

    def key(self, register: int, size: int) -> tuple[list[RegisterValue], Json]:
        """The parts of a key of ``size`` bytes, and its expression."""
        first = _word(register)
        parts, word = [self._registers[first]], first
        while True:
            word += 1
            if word >= first + (size + 3) // 4:
                break
            if word in self._registers and self._begins(parts, first, word):
                parts.append(self._registers[word])
        if any(part.mask and part.base >= 0 and self.part(part) for part in parts):
            raise UnformattableValueError("a field of some bits as a key: the elements are shifted")
        shown = [self.expression(part) for part in parts]
        return parts, shown[0] if len(shown) == 1 else {"concat": shown}

    def _begins(self, parts: Sequence[RegisterValue], first: int, word: int) -> bool:
        """Whether a part of a key begins at this word, and not inside the part before."""
        taken = first
        for part in parts:
            taken += max(1, (_size(part) + 3) // 4)
        return word >= taken

    # --- expressions --------------------------------------------------------------------------

    def expression(self, loaded: RegisterValue) -> Json:
        """The expression for a register that is used as a value."""
        shown = self.payload_name(loaded) if loaded.base >= 0 else loaded.json
        if not loaded.mask:
            return shown
        if loaded.base >= 0 and (part := self.part(loaded)):
            return named(part)
        return self._masked(shown, loaded)

    def payload_name(self, loaded: RegisterValue) -> Json:
        field = self.field(loaded)
        self.imply(loaded.base, field.header if field else "")
        if field is None:
            base = BASES.get(loaded.base)
            if base is None:
                raise UnformattableValueError("payload")
            payload = {"base": base, "offset": loaded.offset, "len": loaded.length}
            return {"payload": payload}
        return named(field)

    def field(self, loaded: RegisterValue) -> Field | None:
        header = self.header(loaded.base)
        return find(header, loaded.offset, loaded.length)

    def header(self, base: int) -> str:
        return self.headers.get(base, "th" if base == TRANSPORT else "")

    def part(self, loaded: RegisterValue) -> Field | None:
        """The field of the bits that the mask leaves."""
        if any(loaded.xor):
            return None
        bits = f"{int.from_bytes(loaded.mask, 'big'):0{len(loaded.mask) * 8}b}"
        inside = bits.strip("0")
        if not inside or "0" in inside:
            return None
        offset = loaded.offset + bits.index("1")
        return find(self.header(loaded.base), offset, len(inside))

    def _masked(self, shown: Json, loaded: RegisterValue) -> Json:
        """(x & mask) ^ xor, with an ``|`` for bits that are always set (netlink_parse_bitwise)."""
        kind, size = loaded.kind, len(loaded.mask)
        everything = (1 << size * 8) - 1
        mask = decode_integer(loaded.mask, kind, loaded.big)
        xor = decode_integer(loaded.xor, kind, loaded.big)
        either = (mask & xor) ^ xor
        xor &= mask
        mask |= either
        for sign, number, idle in (("&", mask, everything), ("^", xor, 0), ("|", either, 0)):
            if number != idle:
                shown = {sign: [shown, self._number(number, kind, size, loaded.big)]}
        return shown

    def _number(self, number: int, kind: str, size: int, big: bool) -> Json:
        if kind in FLAGS:
            return format_flags(number, kind)
        if kind in ("ipv4_addr", "ipv6_addr", "ether_addr"):
            return format_value(number.to_bytes(size, "big"), kind, self.interfaces)
        return number

    def value(self, raw: bytes, loaded: RegisterValue) -> Json:
        return format_value(raw, loaded.kind, self.interfaces, loaded.big)

    def right(self, raw: bytes, loaded: RegisterValue) -> Json:
        """The right side of a comparison; bytes of an unknown type stay bytes."""
        try:
            return self.value(raw, loaded)
        except UnformattableValueError:
            return {"bytes": raw.hex()}

    def imply(self, base: int, header: str) -> None:
        """A field of this header was used, so the comparison that implies it is not printed."""
        if base not in self.implied or self.headers.get(base) != header:
            return
        place, by = self.implied[base]
        if by == "payload" and self.family not in FAMILY_HEADERS:
            return  # ``ip protocol`` also says which family
        self.out[place] = None
        del self.implied[base]

    def forget(self, base: int) -> None:
        """A statement implies the header (``reject with tcp reset``): its comparison is not
        printed.
        """
        if base in self.implied:
            self.out[self.implied.pop(base)[0]] = None


def _word(register: int) -> int:
    """The first word of a register: registers 1 to 4 have four words, those from 8 on one."""
    return (register - 1) * _WORDS if register < _FIRST_SMALL else register - _FIRST_SMALL


def _size(loaded: RegisterValue) -> int:
    """The size in bytes."""
    return loaded.length // 8 if loaded.base >= 0 else LENGTHS.get(loaded.kind, 4)


def named(field: Field) -> Json:
    return {"payload": {"protocol": field.header, "field": field.name}}

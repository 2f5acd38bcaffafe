"""nf_tables' registers, and what is loaded into them: loads and comparisons -> the JSON of nft.

In: expressions as trees (``node/nft_tree.py``). Out: ``Machine.out``, the statements so far. This
is what nft does in netlink_delinearize.c: the kernel knows a small machine with registers, loads
and comparisons; nft makes words of it.

- A register holds what was loaded last; a key of several parts lies in registers side by side.
- Which header a load means follows from what was compared before: ``meta l4proto 6`` makes
  transport byte 2 ``tcp dport``. Such a comparison is not printed when the load implies it.
- ``gte`` and then ``lte`` on the same register is a range; a load under a mask is a field of some
  bits, a prefix, flags, or an ``&``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kptrace.model import Value
from kptrace.rules.blob import unhex
from kptrace.rules.nft_fields import (
    BASES,
    CT,
    L3_BY_ETHERTYPE,
    L3_BY_FAMILY,
    L4,
    LINK,
    META,
    NETWORK,
    TRANSPORT,
    Field,
    find,
    starting,
)
from kptrace.rules.nft_types import FLAGS, LENGTHS, Unprintable, flags, integer, prefixed, printed

Json = Any
Tree = Mapping[str, Any]

_EQ, _NEQ, _LT, _LTE, _GT, _GTE = range(6)
SIGNS = {_EQ: "==", _NEQ: "!=", _LT: "<", _LTE: "<=", _GT: ">", _GTE: ">="}
_FAMILY_HEADERS = {"ip": "ip", "ip6": "ip6", "arp": "arp"}
_HEADER_FAMILIES = {"ip": 2, "ip6": 10}
_WORDS = 4  # of 4 bytes in one of the first registers
_FIRST_SMALL = 8  # NFT_REG32_00


class Loaded(Value):
    """What a register holds.

    json: its expression; a load of a payload has none until it is known what it is compared with
    kind: its type; ``raw``: the bytes of an immediate value
    base, offset, length: a payload, in bits; ``mask``, ``xor``: what was done to it
    big: nft has turned a number of the machine's order around
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


class Machine:
    """Of one rule. ``sets``: those that it names; ``interfaces``: by index."""

    def __init__(
        self, family: str, sets: Mapping[str, SetTold], interfaces: Mapping[int, str]
    ) -> None:
        self.family, self.sets, self.interfaces = family, sets, interfaces
        self._registers: dict[int, Loaded] = {}
        self._headers: dict[int, str] = {}
        if family in _FAMILY_HEADERS:
            self._headers[NETWORK] = _FAMILY_HEADERS[family]
        if family in ("bridge", "netdev"):
            self._headers[LINK] = "ether"
        self._implied: dict[int, tuple[int, str]] = {}  # base -> place in out, by what field
        self.out: list[Json] = []

    @property
    def network(self) -> str:
        """The header at the network base, as far as it is known."""
        return self._headers.get(NETWORK, "")

    @property
    def address_kind(self) -> str:
        return "ipv6_addr" if self.network == "ip6" else "ipv4_addr"

    def unknown(self, name: str, given: Tree) -> None:
        """What is not known here stays as its tree."""
        told = {name: dict(given)}
        register = given.get("dreg")
        if register:
            self.put(register, Loaded(json=told))
        else:
            self.out.append(told)

    def settle(self) -> None:
        """A statement that is no comparison: what was compared before it is printed."""
        self._implied.clear()

    # --- registers ----------------------------------------------------------------------------

    def put(self, register: int, loaded: Loaded) -> None:
        self._registers[_word(register)] = loaded

    def get(self, register: int) -> Loaded:
        return self._registers[_word(register)]

    def key(self, register: int, size: int) -> tuple[list[Loaded], Json]:
        """The parts of a key of ``size`` bytes, and its expression."""
        first = _word(register)
        parts, word = [self._registers[first]], first
        while True:
            word += 1
            if word >= first + (size + 3) // 4:
                break
            if word in self._registers and self._begins(parts, first, word):
                parts.append(self._registers[word])
        if any(part.mask and part.base >= 0 and self._part(part) for part in parts):
            raise Unprintable("a field of some bits as a key: the elements are shifted")
        shown = [self.expression(part) for part in parts]
        return parts, shown[0] if len(shown) == 1 else {"concat": shown}

    def _begins(self, parts: Sequence[Loaded], first: int, word: int) -> bool:
        """Whether a part begins at this word: not inside the one before."""
        taken = first
        for part in parts:
            taken += max(1, (_size(part) + 3) // 4)
        return word >= taken

    # --- loads --------------------------------------------------------------------------------

    def meta(self, given: Tree) -> None:
        if "sreg" in given:
            name, kind = META[given["key"]]
            self.assign({"meta": {"key": name}}, kind, given["sreg"])
            return
        name, kind = META[given["key"]]
        self.put(given["dreg"], Loaded(json={"meta": {"key": name}}, kind=kind))

    def ct(self, given: Tree) -> None:
        name, kind = CT[given["key"]]
        if name in ("saddr", "daddr") and self.family == "ip6":
            kind = "ipv6_addr"
        told: Json = {"key": name}
        if "direction" in given:
            told["dir"] = ("original", "reply")[given["direction"]]
        if "sreg" in given:
            self.assign({"ct": told}, kind, given["sreg"])
        else:
            self.put(given["dreg"], Loaded(json={"ct": told}, kind=kind))

    def payload(self, given: Tree) -> None:
        offset, length = given["offset"] * 8, given["len"] * 8
        if "sreg" in given:
            self._set_payload(given["base"], offset, length, given["sreg"])
            return
        loaded = Loaded(base=given["base"], offset=offset, length=length)
        field = self._field(loaded)
        if field is not None:
            loaded = Loaded(base=loaded.base, offset=offset, length=length, kind=field.kind)
        self.put(given["dreg"], loaded)

    def bitwise(self, given: Tree) -> None:
        left = self.get(given["sreg"])
        if given.get("op"):
            sign = "<<" if given["op"] == 1 else ">>"
            bits = integer(unhex(given["data"]), "host")
            shown = {sign: [self.expression(left), bits]}
            self.put(given["dreg"], Loaded(json=shown, kind=left.kind))
            return
        mask, xor = unhex(given["mask"]), unhex(given["xor"])
        if left.mask:
            left = Loaded(json=self.expression(left), kind=left.kind, big=left.big)
        self.put(
            given["dreg"],
            Loaded(
                json=left.json,
                kind=left.kind,
                raw=left.raw,
                base=left.base,
                offset=left.offset,
                length=left.length,
                mask=mask,
                xor=xor,
                big=left.big,
            ),
        )

    def byteorder(self, given: Tree) -> None:
        left = self.get(given["sreg"])
        turned = Loaded(json=self.expression(left), kind=left.kind, big=not left.big)
        self.put(given["dreg"], turned)

    def immediate(self, given: Tree) -> None:
        data = given["data"]
        if isinstance(data, str):
            self.put(given["dreg"], Loaded(raw=unhex(data)))
        else:
            self.out.append(verdict(data))

    # --- expressions --------------------------------------------------------------------------

    def expression(self, loaded: Loaded) -> Json:
        """What it is called where it is used as a value."""
        shown = self._payload(loaded) if loaded.base >= 0 else loaded.json
        if not loaded.mask:
            return shown
        if loaded.base >= 0 and (part := self._part(loaded)):
            return _named(part)
        return self._masked(shown, loaded)

    def _payload(self, loaded: Loaded) -> Json:
        field = self._field(loaded)
        self.imply(loaded.base, field.header if field else "")
        if field is None:
            base = BASES.get(loaded.base)
            if base is None:
                raise Unprintable("payload")
            where = {"base": base, "offset": loaded.offset, "len": loaded.length}
            return {"payload": where}
        return _named(field)

    def _field(self, loaded: Loaded) -> Field | None:
        header = self._header(loaded.base)
        return find(header, loaded.offset, loaded.length)

    def _header(self, base: int) -> str:
        return self._headers.get(base, "th" if base == TRANSPORT else "")

    def _part(self, loaded: Loaded) -> Field | None:
        """The field of some bits that the mask leaves."""
        if any(loaded.xor):
            return None
        bits = f"{int.from_bytes(loaded.mask, 'big'):0{len(loaded.mask) * 8}b}"
        inside = bits.strip("0")
        if not inside or "0" in inside:
            return None
        offset = loaded.offset + bits.index("1")
        return find(self._header(loaded.base), offset, len(inside))

    def _masked(self, shown: Json, loaded: Loaded) -> Json:
        """(x & mask) ^ xor, with an ``|`` where the two say so (netlink_parse_bitwise)."""
        kind, size = loaded.kind, len(loaded.mask)
        everything = (1 << size * 8) - 1
        mask = integer(loaded.mask, kind, loaded.big)
        xor = integer(loaded.xor, kind, loaded.big)
        either = (mask & xor) ^ xor
        xor &= mask
        mask |= either
        for sign, number, idle in (("&", mask, everything), ("^", xor, 0), ("|", either, 0)):
            if number != idle:
                shown = {sign: [shown, self._number(number, kind, size, loaded.big)]}
        return shown

    def _number(self, number: int, kind: str, size: int, big: bool) -> Json:
        if kind in FLAGS:
            return flags(number, kind)
        if kind in ("ipv4_addr", "ipv6_addr", "ether_addr"):
            return printed(number.to_bytes(size, "big"), kind, self.interfaces)
        return number

    def value(self, raw: bytes, loaded: Loaded) -> Json:
        return printed(raw, loaded.kind, self.interfaces, loaded.big)

    # --- comparisons --------------------------------------------------------------------------

    def cmp(self, given: Tree, following: Sequence[Tree]) -> None:
        loaded, op, raw = self.get(given["sreg"]), given["op"], unhex(given["data"])
        upper = following[0].get("cmp") if following else None
        if op == _GTE and upper and upper["op"] == _LTE and upper["sreg"] == given["sreg"]:
            ends = [self.right(end, loaded) for end in (raw, unhex(upper["data"]))]
            self.match(self.expression(loaded), "==", {"range": ends})
        elif op == _LTE and self._closes_range():
            return
        elif loaded.base >= 0:
            self._cmp_payload(loaded, op, raw)
        else:
            self._cmp_value(loaded, op, raw)

    def _closes_range(self) -> bool:
        last = self.out[-1] if self.out else None
        right = last.get("match", {}).get("right") if isinstance(last, dict) else None
        return isinstance(right, dict) and "range" in right

    def _cmp_payload(self, loaded: Loaded, op: int, raw: bytes) -> None:
        if loaded.mask and not any(loaded.xor) and (part := self._part(loaded)):
            shift = len(loaded.mask) * 8 - (part.offset - loaded.offset) - part.length
            number = int.from_bytes(raw, "big") >> shift
            self.imply(loaded.base, part.header)
            self.match(_named(part), SIGNS[op], self._small(number, part))
        elif loaded.mask or self._field(loaded):
            self._cmp_value(loaded, op, raw)
        else:
            self._several(loaded, op, raw)

    def _small(self, number: int, part: Field) -> Json:
        size = (part.length + 7) // 8
        return printed(number.to_bytes(size, "big"), part.kind, self.interfaces)

    def _several(self, loaded: Loaded, op: int, raw: bytes) -> None:
        """A load of several fields side by side, of the first bytes of an address, or of none."""
        header, at, end = self._header(loaded.base), loaded.offset, loaded.offset + loaded.length
        fields: list[Field] = []
        while at < end and (field := starting(header, at)) is not None:
            fields.append(field)
            at += field.length
        if fields and at == end and len(fields) > 1 and op in (_EQ, _NEQ):
            for field in fields:
                place = (field.offset - loaded.offset) // 8
                part = Loaded(
                    base=loaded.base, offset=field.offset, length=field.length, kind=field.kind
                )
                self._cmp_value(part, op, raw[place : place + field.length // 8])
        elif len(fields) == 1 and fields[0].kind in ("ipv4_addr", "ipv6_addr"):
            self.imply(loaded.base, header)
            self.match(_named(fields[0]), SIGNS[op], _beginning(raw, fields[0]))
        else:
            self._cmp_value(loaded, op, raw)

    def _cmp_value(self, loaded: Loaded, op: int, raw: bytes) -> None:
        if loaded.mask and not any(loaded.xor):
            bare = self._payload(loaded) if loaded.base >= 0 else loaded.json
            prefix = prefixed(raw, loaded.mask, loaded.kind)
            if prefix is not None and op in (_EQ, _NEQ):
                self.match(bare, SIGNS[op], prefix)
                return
            if loaded.kind in FLAGS and not any(raw) and op in (_EQ, _NEQ):
                names = flags(integer(loaded.mask, loaded.kind), loaded.kind)
                self.match(bare, "in" if op == _NEQ else "!", names)
                return
        left, kind = self.expression(loaded), loaded.kind
        if isinstance(left, dict) and "ct" in left and kind == "ipv4_addr" and len(raw) < 4:
            self.match(left, SIGNS[op], _beginning(raw, Field("", "", 0, 32, kind)))
            return
        place = len(self.out)
        self.match(left, SIGNS[op], self.right(raw, loaded))
        if op == _EQ and not loaded.mask:
            self._learn(loaded, left, raw, place)

    def right(self, raw: bytes, loaded: Loaded) -> Json:
        """What is compared with; bytes of a type that is not known stay bytes."""
        try:
            return self.value(raw, loaded)
        except Unprintable:
            return {"bytes": raw.hex()}

    def match(self, left: Json, op: str, right: Json) -> None:
        self.out.append({"match": {"op": op, "left": left, "right": right}})

    # --- what a comparison says about the headers ---------------------------------------------

    def _learn(self, loaded: Loaded, left: Json, raw: bytes, place: int) -> None:
        number = int.from_bytes(raw, "big")
        meta = left.get("meta", {}).get("key") if isinstance(left, dict) else None
        payload = left.get("payload", {}) if isinstance(left, dict) else {}
        field = (payload.get("protocol"), payload.get("field"))
        if meta == "nfproto":
            self._next(NETWORK, L3_BY_FAMILY.get(number, ""), place, "meta")
        elif meta == "protocol" or field == ("ether", "type"):
            self._next(NETWORK, L3_BY_ETHERTYPE.get(number, ""), place, "meta")
        elif meta == "l4proto":
            self._l4(number, place)
        elif field in (("ip", "protocol"), ("ip6", "nexthdr")):
            self._next(TRANSPORT, L4.get(number, ""), place, "payload")
        elif meta == "iiftype" and integer(raw, loaded.kind) == 1:
            self._next(LINK, "ether", place, "meta")

    def _next(self, base: int, header: str, place: int, by: str) -> None:
        if not header:
            return
        if base == NETWORK and _FAMILY_HEADERS.get(self.family) == header:
            self.out[place] = None  # a table of this family sees nothing else
            return
        self._headers[base] = header
        self._implied[base] = place, by

    def _l4(self, number: int, place: int) -> None:
        """ICMP belongs to one family, so that need not be said before it."""
        header = L4.get(number, "")
        family = {"icmp": "ip", "icmpv6": "ip6"}.get(header)
        if family and self._headers.get(NETWORK) == family and NETWORK in self._implied:
            self.out[self._implied.pop(NETWORK)[0]] = None
            place = len(self.out) - 1
        self._next(TRANSPORT, header, place, "meta")

    def imply(self, base: int, header: str) -> None:
        """A field of this header was used: what made that clear need not be printed."""
        if base not in self._implied or self._headers.get(base) != header:
            return
        place, by = self._implied[base]
        if by == "payload" and self.family not in _FAMILY_HEADERS:
            return  # ``ip protocol`` also says which family
        self.out[place] = None
        del self._implied[base]

    def forget(self, base: int) -> None:
        """A statement implies what was compared (``reject with tcp reset``)."""
        if base in self._implied:
            self.out[self._implied.pop(base)[0]] = None

    # --- assignments --------------------------------------------------------------------------

    def assign(self, key: Json, kind: str, register: int) -> None:
        self.out.append({"mangle": {"key": key, "value": self.operand(register, kind)}})

    def operand(self, register: int, kind: str) -> Json:
        """A value of this type, or the expression that gives it."""
        loaded = self.get(register)
        if loaded.raw is not None and not loaded.mask:
            return printed(loaded.raw, kind, self.interfaces)
        return self.expression(loaded)

    def _set_payload(self, base: int, offset: int, length: int, register: int) -> None:
        """A whole field, or some bits of a word that was loaded before (nft_payload_set)."""
        loaded = self.get(register)
        where = Loaded(base=base, offset=offset, length=length)
        field = self._field(where)
        if field is not None and not loaded.mask:
            self.imply(base, field.header)
            self.out.append(
                {"mangle": {"key": _named(field), "value": self.operand(register, field.kind)}}
            )
            return
        changed = bytes(~byte & 0xFF for byte in loaded.mask)
        inside = Loaded(base=base, offset=offset, length=length, mask=changed, xor=b"\0")
        part = self._part(inside)
        if part is None or loaded.base != base or loaded.offset != offset:
            raise Unprintable("payload set")
        shift = length - (part.offset - offset) - part.length
        number = int.from_bytes(loaded.xor, "big") >> shift
        self.imply(base, part.header)
        self.out.append({"mangle": {"key": _named(part), "value": self._small(number, part)}})


class SetTold(Value):
    """A set as the rule needs it. ``data``: the type of what a map gives; empty: it is a set.

    elements: of an anonymous set, as nft -j has them
    """

    name: str
    types: tuple[str, ...]
    size: int
    data: tuple[str, ...] = ()
    anonymous: bool = False
    elements: tuple[Any, ...] = ()

    @property
    def shown(self) -> Json:
        return {"set": list(self.elements)} if self.anonymous else f"@{self.name}"


def verdict(data: Tree) -> Json:
    code = data["code"]
    if code in (-3, -4):
        return {"jump" if code == -3 else "goto": {"target": data.get("chain", "")}}
    return {_VERDICTS[code]: None}


_VERDICTS = {0: "drop", 1: "accept", -1: "continue", -5: "return"}


def _word(register: int) -> int:
    """Registers 1 to 4 are four words each, those from 8 on one."""
    return (register - 1) * _WORDS if register < _FIRST_SMALL else register - _FIRST_SMALL


def _size(loaded: Loaded) -> int:
    """Bytes in registers."""
    return loaded.length // 8 if loaded.base >= 0 else LENGTHS.get(loaded.kind, 4)


def _named(field: Field) -> Json:
    return {"payload": {"protocol": field.header, "field": field.name}}


def _beginning(raw: bytes, field: Field) -> Json:
    whole = raw + bytes(field.length // 8 - len(raw))
    mask = b"\xff" * len(raw) + bytes(field.length // 8 - len(raw))
    found = prefixed(whole, mask, field.kind)
    if found is None:
        raise Unprintable(field.kind)
    return found


LOADS: dict[str, Callable[[Machine, Tree], None]] = {
    "bitwise": Machine.bitwise,
    "byteorder": Machine.byteorder,
    "ct": Machine.ct,
    "immediate": Machine.immediate,
    "meta": Machine.meta,
    "payload": Machine.payload,
}

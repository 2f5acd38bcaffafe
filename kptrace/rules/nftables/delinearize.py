"""Turn the loads, comparisons and assignments of nf_tables into nft's JSON.

This is what nft does in netlink_delinearize.c: the kernel has a small machine with registers, loads
and comparisons; nft makes statements of it. ``Delinearizer.out`` holds the statements so far.

- A register holds what was loaded last; a key of several parts is in consecutive registers.
- Which header a load means follows from what was compared before: ``meta l4proto 6`` makes
  transport byte 2 ``tcp dport``. Such a comparison is not printed when the load implies it.
- ``gte`` and then ``lte`` on the same register is a range; a load under a mask is a field of some
  bits, a prefix, flags, or an ``&``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kptrace.rules.byte_reader import decode_hex
from kptrace.rules.nftables.data_types import (
    FLAGS,
    UnformattableValueError,
    decode_integer,
    format_flags,
    format_prefix,
    format_value,
)
from kptrace.rules.nftables.header_fields import (
    CT,
    L3_BY_ETHERTYPE,
    L3_BY_FAMILY,
    L4,
    LINK,
    META,
    NETWORK,
    TRANSPORT,
    Field,
    starting,
)
from kptrace.rules.nftables.registers import FAMILY_HEADERS, Json, Registers, RegisterValue, named

Tree = Mapping[str, Any]

_EQ, _NEQ, _LT, _LTE, _GT, _GTE = range(6)
SIGNS = {_EQ: "==", _NEQ: "!=", _LT: "<", _LTE: "<=", _GT: ">", _GTE: ">="}


class Delinearizer(Registers):
    """Runs the expressions of one rule, as trees (``agent/nftables/attributes.py``)."""

    def unknown(self, name: str, expr: Tree) -> None:
        """Keep an expression that is not understood as its own tree."""
        expression = {name: dict(expr)}
        register = expr.get("dreg")
        if register:
            self.put(register, RegisterValue(json=expression))
        else:
            self.out.append(expression)

    # --- loads --------------------------------------------------------------------------------

    def meta(self, expr: Tree) -> None:
        if "sreg" in expr:
            name, kind = META[expr["key"]]
            self.assign({"meta": {"key": name}}, kind, expr["sreg"])
            return
        name, kind = META[expr["key"]]
        self.put(expr["dreg"], RegisterValue(json={"meta": {"key": name}}, kind=kind))

    def ct(self, expr: Tree) -> None:
        name, kind = CT[expr["key"]]
        if name in ("saddr", "daddr") and self.family == "ip6":
            kind = "ipv6_addr"
        expression: Json = {"key": name}
        if "direction" in expr:
            expression["dir"] = ("original", "reply")[expr["direction"]]
        if "sreg" in expr:
            self.assign({"ct": expression}, kind, expr["sreg"])
        else:
            self.put(expr["dreg"], RegisterValue(json={"ct": expression}, kind=kind))

    def payload(self, expr: Tree) -> None:
        offset, length = expr["offset"] * 8, expr["len"] * 8
        if "sreg" in expr:
            self._set_payload(expr["base"], offset, length, expr["sreg"])
            return
        loaded = RegisterValue(base=expr["base"], offset=offset, length=length)
        field = self.field(loaded)
        if field is not None:
            loaded = RegisterValue(base=loaded.base, offset=offset, length=length, kind=field.kind)
        self.put(expr["dreg"], loaded)

    def bitwise(self, expr: Tree) -> None:
        left = self.get(expr["sreg"])
        if expr.get("op"):
            sign = "<<" if expr["op"] == 1 else ">>"
            bits = decode_integer(decode_hex(expr["data"]), "host")
            shown = {sign: [self.expression(left), bits]}
            self.put(expr["dreg"], RegisterValue(json=shown, kind=left.kind))
            return
        mask, xor = decode_hex(expr["mask"]), decode_hex(expr["xor"])
        if left.mask:
            left = RegisterValue(json=self.expression(left), kind=left.kind, big=left.big)
        self.put(
            expr["dreg"],
            RegisterValue(
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

    def byteorder(self, expr: Tree) -> None:
        left = self.get(expr["sreg"])
        turned = RegisterValue(json=self.expression(left), kind=left.kind, big=not left.big)
        self.put(expr["dreg"], turned)

    def immediate(self, expr: Tree) -> None:
        data = expr["data"]
        if isinstance(data, str):
            self.put(expr["dreg"], RegisterValue(raw=decode_hex(data)))
        else:
            self.out.append(verdict(data))

    # --- comparisons --------------------------------------------------------------------------

    def cmp(self, expr: Tree, following: Sequence[Tree]) -> None:
        loaded, op, raw = self.get(expr["sreg"]), expr["op"], decode_hex(expr["data"])
        upper = following[0].get("cmp") if following else None
        if op == _GTE and upper and upper["op"] == _LTE and upper["sreg"] == expr["sreg"]:
            ends = [self.right(end, loaded) for end in (raw, decode_hex(upper["data"]))]
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

    def _cmp_payload(self, loaded: RegisterValue, op: int, raw: bytes) -> None:
        if loaded.mask and not any(loaded.xor) and (part := self.part(loaded)):
            shift = len(loaded.mask) * 8 - (part.offset - loaded.offset) - part.length
            number = int.from_bytes(raw, "big") >> shift
            self.imply(loaded.base, part.header)
            self.match(named(part), SIGNS[op], self._small(number, part))
        elif loaded.mask or self.field(loaded):
            self._cmp_value(loaded, op, raw)
        else:
            self._several(loaded, op, raw)

    def _small(self, number: int, part: Field) -> Json:
        size = (part.length + 7) // 8
        return format_value(number.to_bytes(size, "big"), part.kind, self.interfaces)

    def _several(self, loaded: RegisterValue, op: int, raw: bytes) -> None:
        """A load of several fields, of the first bytes of an address, or of no field."""
        header, position, end = (
            self.header(loaded.base),
            loaded.offset,
            loaded.offset + loaded.length,
        )
        fields: list[Field] = []
        while position < end and (field := starting(header, position)) is not None:
            fields.append(field)
            position += field.length
        if fields and position == end and len(fields) > 1 and op in (_EQ, _NEQ):
            for field in fields:
                place = (field.offset - loaded.offset) // 8
                part = RegisterValue(
                    base=loaded.base, offset=field.offset, length=field.length, kind=field.kind
                )
                self._cmp_value(part, op, raw[place : place + field.length // 8])
        elif len(fields) == 1 and fields[0].kind in ("ipv4_addr", "ipv6_addr"):
            self.imply(loaded.base, header)
            self.match(named(fields[0]), SIGNS[op], _beginning(raw, fields[0]))
        else:
            self._cmp_value(loaded, op, raw)

    def _cmp_value(self, loaded: RegisterValue, op: int, raw: bytes) -> None:
        if loaded.mask and not any(loaded.xor):
            bare = self.payload_name(loaded) if loaded.base >= 0 else loaded.json
            prefix = format_prefix(raw, loaded.mask, loaded.kind)
            if prefix is not None and op in (_EQ, _NEQ):
                self.match(bare, SIGNS[op], prefix)
                return
            if loaded.kind in FLAGS and not any(raw) and op in (_EQ, _NEQ):
                names = format_flags(decode_integer(loaded.mask, loaded.kind), loaded.kind)
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

    # --- which header follows from a comparison ------------------------------------------------

    def _learn(self, loaded: RegisterValue, left: Json, raw: bytes, place: int) -> None:
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
        elif meta == "iiftype" and decode_integer(raw, loaded.kind) == 1:
            self._next(LINK, "ether", place, "meta")

    def _next(self, base: int, header: str, place: int, by: str) -> None:
        if not header:
            return
        if base == NETWORK and FAMILY_HEADERS.get(self.family) == header:
            self.out[place] = None  # a table of this family sees nothing else
            return
        self.headers[base] = header
        self.implied[base] = place, by

    def _l4(self, number: int, place: int) -> None:
        """The protocol. ICMP belongs to one family, so a test for that family is not printed."""
        header = L4.get(number, "")
        family = {"icmp": "ip", "icmpv6": "ip6"}.get(header)
        if family and self.headers.get(NETWORK) == family and NETWORK in self.implied:
            self.out[self.implied.pop(NETWORK)[0]] = None
            place = len(self.out) - 1
        self._next(TRANSPORT, header, place, "meta")

    # --- assignments --------------------------------------------------------------------------

    def assign(self, key: Json, kind: str, register: int) -> None:
        self.out.append({"mangle": {"key": key, "value": self.operand(register, kind)}})

    def operand(self, register: int, kind: str) -> Json:
        """The content of a register: a value of this type, or the expression that gives it."""
        loaded = self.get(register)
        if loaded.raw is not None and not loaded.mask:
            return format_value(loaded.raw, kind, self.interfaces)
        return self.expression(loaded)

    def _set_payload(self, base: int, offset: int, length: int, register: int) -> None:
        """Set a whole field, or some bits of a word that was loaded before (nft_payload_set)."""
        loaded = self.get(register)
        target = RegisterValue(base=base, offset=offset, length=length)
        field = self.field(target)
        if field is not None and not loaded.mask:
            self.imply(base, field.header)
            self.out.append(
                {"mangle": {"key": named(field), "value": self.operand(register, field.kind)}}
            )
            return
        changed = bytes(~byte & 0xFF for byte in loaded.mask)
        inside = RegisterValue(base=base, offset=offset, length=length, mask=changed, xor=b"\0")
        part = self.part(inside)
        if part is None or loaded.base != base or loaded.offset != offset:
            raise UnformattableValueError("payload set")
        shift = length - (part.offset - offset) - part.length
        number = int.from_bytes(loaded.xor, "big") >> shift
        self.imply(base, part.header)
        self.out.append({"mangle": {"key": named(part), "value": self._small(number, part)}})


def verdict(data: Tree) -> Json:
    """A verdict as JSON. Raises KeyError for an unknown one."""
    code = data["code"]
    if code in (-3, -4):
        return {"jump" if code == -3 else "goto": {"target": data.get("chain", "")}}
    return {_VERDICTS[code]: None}


_VERDICTS = {0: "drop", 1: "accept", -1: "continue", -5: "return"}


def _beginning(raw: bytes, field: Field) -> Json:
    address_bytes = raw + bytes(field.length // 8 - len(raw))
    mask = b"\xff" * len(raw) + bytes(field.length // 8 - len(raw))
    prefix = format_prefix(address_bytes, mask, field.kind)
    if prefix is None:
        raise UnformattableValueError(field.kind)
    return prefix


LOADS: dict[str, Callable[[Delinearizer, Tree], None]] = {
    "bitwise": Delinearizer.bitwise,
    "byteorder": Delinearizer.byteorder,
    "ct": Delinearizer.ct,
    "immediate": Delinearizer.immediate,
    "meta": Delinearizer.meta,
    "payload": Delinearizer.payload,
}

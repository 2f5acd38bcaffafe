"""Read a rule of iptables-nft from its nf_tables expressions into a KernelRule.

iptables-nft writes addresses, interfaces, protocols, TCP and UDP ports, marks, limits, NFLOG and
TRACE as nft's own expressions, all else as ``match`` and ``target`` with the bytes that legacy
tables hold (nft-shared.c). It always loads one register and compares it at once; a load without a
comparison means nothing (``-o +``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kptrace.model import Value
from kptrace.rules.byte_reader import ByteReader, TruncatedData, decode_hex
from kptrace.rules.iptables.kernel_rule import (
    KernelRule,
    NotIptablesError,
    address_and_mask,
    protocol_name,
)
from kptrace.rules.iptables.kernel_targets import nflog_args
from kptrace.rules.iptables.options import Unknown
from kptrace.rules.iptables.save_format import (
    Args,
    IpsetName,
    limit_args,
    option,
    port_args,
    quote,
    tcp_flag_args,
    value_and_mask,
)

Tree = Mapping[str, Any]

_EQ, _NEQ, _LT, _LTE, _GT, _GTE = range(6)
_MARK, _IIFNAME, _OIFNAME, _NFTRACE, _L4PROTO = 3, 6, 7, 12, 16
_NETWORK, _TRANSPORT = 1, 2
_TCP, _UDP = 6, 17
_ADDRESSES = {"ip": {12: "-s", 16: "-d"}, "ip6": {8: "-s", 24: "-d"}}
_SIZES = {"ip": 4, "ip6": 16}
_COMMENT = 0  # NFTNL_UDATA_RULE_COMMENT


class _Load(Value):
    """The content of a register: ``meta KEY`` or bytes of the packet, under a mask."""

    meta: int = -1
    base: int = -1
    offset: int = 0
    size: int = 0
    mask: bytes = b""


class _Ports:
    """The options of ``-m tcp`` or ``-m udp`` that iptables-nft writes as nft's own expressions."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._args_by_name: dict[str, Args] = {}

    def args(self) -> Args:
        order = ("--sport", "--dport", "--tcp-flags")
        return [
            "-m",
            self._module,
            *(w for name in order for w in self._args_by_name.get(name, ())),
        ]

    def put(self, name: str, args: Args) -> None:
        if name in self._args_by_name:
            raise NotIptablesError(f"{name} twice")
        self._args_by_name[name] = args


def read(expressions: Sequence[Tree], family: str, ipset: IpsetName, userdata: str) -> KernelRule:
    """The rule of a list of expressions (``agent/nftables/attributes.py``).

    Raises NotIptablesError for expressions that iptables-nft does not write.
    """
    reader = _Reader(KernelRule(family, ipset))
    try:
        for tree in expressions:
            ((name, expression),) = tree.items()
            if name not in _READERS:
                raise NotIptablesError(name)
            _READERS[name](reader, expression)
        reader.comment(userdata)
    except (KeyError, ValueError, TypeError, AttributeError, Unknown, TruncatedData) as error:
        raise NotIptablesError(str(error)) from error
    return reader.entry


class _Reader:
    def __init__(self, entry: KernelRule) -> None:
        self.entry = entry
        self._load = _Load()
        self._protocol = 0
        self._ports: _Ports | None = None
        self._values: dict[int, bytes] = {}

    # --- loads --------------------------------------------------------------------------------

    def meta(self, expression: Tree) -> None:
        if "sreg" in expression:
            value = self._values.get(expression["sreg"], b"")
            if expression["key"] != _NFTRACE or value != b"\x01":
                raise NotIptablesError("meta set")
            self.entry.target = ["-j", "TRACE"]
            return
        self._load = _Load(meta=expression["key"])

    def payload(self, expression: Tree) -> None:
        if "sreg" in expression:
            raise NotIptablesError("payload set")
        self._load = _Load(
            base=expression["base"], offset=expression["offset"], size=expression["len"]
        )

    def bitwise(self, expression: Tree) -> None:
        if expression.get("op") or self._load.mask or any(decode_hex(expression["xor"])):
            raise NotIptablesError("bitwise")
        load = self._load
        self._load = _Load(
            meta=load.meta,
            base=load.base,
            offset=load.offset,
            size=load.size,
            mask=decode_hex(expression["mask"]),
        )

    # --- comparisons --------------------------------------------------------------------------

    def cmp(self, expression: Tree) -> None:
        self._compare(self._load, expression["op"], decode_hex(expression["data"]))

    def range(self, expression: Tree) -> None:
        load, ends = self._load, (decode_hex(expression["from"]), decode_hex(expression["to"]))
        if load.base != _TRANSPORT or load.size != 2 or load.mask:
            raise NotIptablesError("range")
        low, high = (int.from_bytes(end, "big") for end in ends)
        self._port(load.offset, low, high, expression["op"] == 1)

    def _compare(self, load: _Load, op: int, data: bytes) -> None:
        if load.meta in (_IIFNAME, _OIFNAME):
            name = data.rstrip(b"\0").decode(errors="replace")
            wild = "" if data.endswith(b"\0") or len(data) == 16 else "+"
            self._option("-i" if load.meta == _IIFNAME else "-o", name + wild, op)
        elif load.meta == _L4PROTO:
            self._proto(data, op)
        elif load.meta == _MARK:
            self._mark(load, op, data)
        elif load.base == _NETWORK:
            self._network(load, op, data)
        elif load.base == _TRANSPORT:
            self._transport(load, op, data)
        else:
            raise NotIptablesError("cmp")

    def _option(self, name: str, text: str, op: int) -> None:
        if op not in (_EQ, _NEQ):
            raise NotIptablesError(name)
        self.entry.option(name, text, op == _NEQ)

    def _proto(self, data: bytes, op: int) -> None:
        number = data[0]
        self._option("-p", protocol_name(number), op)
        if op == _EQ:
            self._protocol = number

    def _mark(self, load: _Load, op: int, data: bytes) -> None:
        if op not in (_EQ, _NEQ):
            raise NotIptablesError("mark")
        value = ByteReader(data).u32(0)
        mask = ByteReader(load.mask).u32(0) if load.mask else 0xFFFFFFFF
        self._add_match("mark", option(op == _NEQ, "--mark", value_and_mask(value, mask)))

    def _network(self, load: _Load, op: int, data: bytes) -> None:
        family = self.entry.family
        name = _ADDRESSES[family].get(load.offset)
        size = _SIZES[family]
        if name and load.size <= size:
            rest = bytes(size - load.size)
            mask = load.mask or b"\xff" * load.size
            self._option(name, address_and_mask(data + rest, mask + rest), op)
        elif (load.offset, load.size) == ((9, 1) if family == "ip" else (6, 1)) and not load.mask:
            self._proto(data, op)
        elif family == "ip" and (load.offset, load.mask, data) == (6, b"\x1f\xff", b"\0\0"):
            self._option("-f", "", _NEQ if op == _EQ else _EQ)
        else:
            raise NotIptablesError("payload")

    # --- ports --------------------------------------------------------------------------------

    def _transport(self, load: _Load, op: int, data: bytes) -> None:
        if (load.offset, load.size) == (13, 1) and self._protocol == _TCP:
            mask = load.mask[0] if load.mask else 0xFF
            args = tcp_flag_args(mask, data[0], op == _NEQ)
            self._module().put("--tcp-flags", args)
            return
        if load.mask:
            raise NotIptablesError("payload")
        numbers = [
            int.from_bytes(data[offset : offset + 2], "big") for offset in range(0, load.size, 2)
        ]
        if load.size == 4 and op in (_EQ, _NEQ) and load.offset == 0:
            for offset, number in zip((0, 2), numbers, strict=True):
                self._port(offset, number, number, op == _NEQ)
        elif load.size == 2 and op in _EDGES:
            low, high, negated = _EDGES[op](numbers[0])
            self._port(load.offset, low, high, negated)
        else:
            raise NotIptablesError("payload")

    def _port(self, offset: int, low: int, high: int, negated: bool) -> None:
        name = {0: "--sport", 2: "--dport"}.get(offset)
        if name is None:
            raise NotIptablesError("payload")
        self._module().put(name, port_args(name, low, high, negated))

    def _module(self) -> _Ports:
        if self._protocol not in (_TCP, _UDP):
            raise NotIptablesError("ports without a protocol")
        if self._ports is None:
            self._ports = _Ports("tcp" if self._protocol == _TCP else "udp")
            self.entry.matches.append(self._ports.args)
        return self._ports

    # --- the rest -----------------------------------------------------------------------------

    def limit(self, expression: Tree) -> None:
        if expression.get("type") or expression.get("flags") or not expression["rate"]:
            raise NotIptablesError("limit")
        period = 10_000 * expression["unit"] // expression["rate"]
        self._add_match("limit", limit_args(period, expression.get("burst", 0)))

    def immediate(self, expression: Tree) -> None:
        data = expression["data"]
        if isinstance(data, str):
            self._values[expression["dreg"]] = decode_hex(data)
        else:
            self.entry.jump(data["code"], data.get("chain", ""))

    def log(self, expression: Tree) -> None:
        if "group" not in expression:
            raise NotIptablesError("log")
        args = nflog_args(
            expression.get("prefix", ""),
            expression["group"],
            expression.get("snaplen") or None,
            expression.get("qthreshold", 0),
        )
        self.entry.target = ["-j", "NFLOG", *args]

    def match(self, expression: Tree) -> None:
        self.entry.match(expression)

    def target(self, expression: Tree) -> None:
        self.entry.call(expression)

    def _add_match(self, module: str, args: Args) -> None:
        self.entry.matches.append(lambda: ["-m", module, *args])

    def counter(self, expression: Tree) -> None:
        """iptables-save prints a rule's counter before the rule, so it adds no option."""

    def comment(self, userdata: str) -> None:
        """Add the comment that some versions keep in the rule's user data (nft_parse_comment)."""
        data = decode_hex(userdata)
        while len(data) >= 2:
            kind, size = data[0], data[1]
            if kind == _COMMENT:
                text = data[2 : 2 + size].rstrip(b"\0").decode(errors="replace")
                self._add_match("comment", ["--comment", quote(text)])
            data = data[2 + size :]


_EDGES: dict[int, Callable[[int], tuple[int, int, bool]]] = {
    _EQ: lambda port: (port, port, False),
    _NEQ: lambda port: (port, port, True),
    _LT: lambda port: (0, port - 1, False),
    _LTE: lambda port: (0, port, False),
    _GT: lambda port: (port + 1, 0xFFFF, False),
    _GTE: lambda port: (port, 0xFFFF, False),
}
_READERS: dict[str, Callable[[_Reader, Tree], None]] = {
    "bitwise": _Reader.bitwise,
    "cmp": _Reader.cmp,
    "counter": _Reader.counter,
    "immediate": _Reader.immediate,
    "limit": _Reader.limit,
    "log": _Reader.log,
    "match": _Reader.match,
    "meta": _Reader.meta,
    "payload": _Reader.payload,
    "range": _Reader.range,
    "target": _Reader.target,
}

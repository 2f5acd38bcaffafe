"""Read a rule of a legacy table, as ``legacy_table.py`` decodes it, into a KernelRule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from kptrace.rules.byte_reader import ByteReader, decode_hex
from kptrace.rules.iptables.kernel_rule import (
    KernelRule,
    NotIptablesError,
    address_and_mask,
    protocol_name,
)
from kptrace.rules.iptables.save_format import IpsetName

Tree = Mapping[str, Any]


class _Layout(NamedTuple):
    """Offsets in struct ipt_ip or ip6t_ip6; ``size``: of an address."""

    size: int
    masks: int
    names: int
    number: int
    flags: int
    inverted: int


_LAYOUTS = {"ip": _Layout(4, 8, 16, 80, 82, 83), "ip6": _Layout(16, 32, 64, 128, 131, 132)}
_IN, _OUT, _SRC, _DST, _FRAGMENT, _PROTOCOL = 1, 2, 8, 16, 32, 64
_NAME = 16


def read(rule: Tree, family: str, ipset: IpsetName) -> KernelRule:
    """The rule of a tree that ``XtTable.rules`` made.

    Raises ValueError for a tree of another form, and TruncatedData.
    """
    entry = KernelRule(family, ipset)
    try:
        _core(entry, ByteReader(decode_hex(rule["ip"]), family))
        for expression in rule["expressions"]:
            ((name, value),) = expression.items()
            if name == "match":
                entry.match(value)
            elif name == "target":
                entry.call(value)
            else:
                entry.jump(value["data"]["code"], value["data"].get("chain", ""))
    except (KeyError, TypeError, AttributeError, NotIptablesError) as error:
        raise ValueError(f"no legacy rule: {error}") from error
    return entry


def _core(entry: KernelRule, blob: ByteReader) -> None:
    layout = _LAYOUTS[entry.family]
    inverted = blob.u8(layout.inverted)
    for index, (name, bit) in enumerate((("-s", _SRC), ("-d", _DST))):
        raw = blob.bytes(index * layout.size, layout.size)
        mask = blob.bytes(layout.masks + index * layout.size, layout.size)
        if any(mask) or inverted & bit:
            entry.option(name, address_and_mask(raw, mask), bool(inverted & bit))
    for index, (name, bit) in enumerate((("-i", _IN), ("-o", _OUT))):
        text = _interface(blob, layout.names + index * _NAME)
        if text:
            entry.option(name, text, bool(inverted & bit))
    number = blob.u16(layout.number)
    if number:
        entry.option("-p", protocol_name(number), bool(inverted & _PROTOCOL))
    if entry.family == "ip" and blob.u8(layout.flags) & 1:
        entry.option("-f", "", bool(inverted & _FRAGMENT))


def _interface(blob: ByteReader, offset: int) -> str:
    """An interface name.

    Its mask covers the final zero of a whole name; of ``cali+`` only ``cali``.
    """
    mask = blob.bytes(offset + 2 * _NAME, _NAME)
    size = next((index for index, byte in enumerate(mask) if not byte), _NAME)
    name = blob.bytes(offset, size)
    if not size:
        return ""
    return name.rstrip(b"\0").decode(errors="replace") + ("" if name[-1:] == b"\0" else "+")

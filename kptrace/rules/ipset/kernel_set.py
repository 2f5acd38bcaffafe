"""An ipset as the kernel tells it by netlink -> the text of ``ipset save`` for it.

In: the tree of ``agent/netlink/ipset.py``: type, family, options and elements, attributes by the
kernel's names, values in hexadecimal. Out: a ``create`` and ``add`` lines, which ``save.py`` reads;
so native and text reading end in the same hands. ValueError or KeyError for what is no such tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kptrace.rules.byte_reader import address
from kptrace.rules.iptables.kernel_rule import protocol_name

Tree = Mapping[str, Any]
Given = Mapping[str, str]

_INET6 = 10
_WITH = ((1 << 3, "counters"), (1 << 4, "comment"), (1 << 6, "skbinfo"), (1 << 5, "forceadd"))
_PHYSDEV, _NOMATCH, _WILDCARD = 1 << 1, 1 << 2, 1 << 7


def save_text(tree: Tree) -> str:
    lines = [_create(tree)]
    for element in tree["elements"]:
        lines.append(" ".join(["add", tree["name"], *_element(tree["type"], element)]))
    return "\n".join(lines) + "\n"


def _create(tree: Tree) -> str:
    given: Given = tree.get("options", {})
    words = ["create", tree["name"], tree["type"]]
    if tree["type"].startswith("hash:"):
        words += ["family", "inet6" if tree["family"] == _INET6 else "inet"]
    if tree["type"].startswith("bitmap:"):
        words += ["range", _range(given)]
    for name in ("netmask", "hashsize", "maxelem", "timeout", "size", "bucketsize"):
        if name in given:
            words += [name, str(_number(given, name))]
    flags = _number(given, "cadt_flags")
    return " ".join(words + [name for bit, name in _WITH if flags & bit])


def _range(given: Given) -> str:
    if "port" in given:
        return f"{_number(given, 'port')}-{_number(given, 'port_to')}"
    return "-".join(address(bytes.fromhex(given[end])) for end in ("ip", "ip_to"))


def _number(given: Given, name: str) -> int:
    return int(given.get(name, "0"), 16)


def _element(method: str, given: Given) -> Iterator[str]:
    storage, _, dimensions = method.partition(":")
    if storage == "list":
        yield _text(given["name"])
    else:
        parts = _Parts(storage, given)
        yield ",".join(parts.of(dimension) for dimension in dimensions.split(","))
    if "timeout" in given:
        yield f"timeout {_number(given, 'timeout')}"
    if "packets" in given:
        yield f"packets {_number(given, 'packets')} bytes {_number(given, 'bytes')}"
    if "comment" in given:
        yield f'comment "{_text(given["comment"])}"'
    flags = _number(given, "cadt_flags")
    for bit, name in ((_NOMATCH, "nomatch"), (_WILDCARD, "wildcard")):
        if flags & bit:
            yield name


class _Parts:
    """The dimensions of one element, the second address under its own name."""

    def __init__(self, storage: str, given: Given) -> None:
        self._storage, self._given = storage, given
        self._turn = ""

    def of(self, dimension: str) -> str:
        return _DIMENSIONS[dimension](self)

    def address(self) -> str:
        turn, self._turn = self._turn, "2"
        given = self._given
        raw = bytes.fromhex(given[f"ip{turn}"])
        if f"ip{turn}_to" in given:
            return f"{address(raw)}-{address(bytes.fromhex(given[f'ip{turn}_to']))}"
        length = _number(given, f"cidr{turn}") if f"cidr{turn}" in given else len(raw) * 8
        return address(raw) if length == len(raw) * 8 else f"{address(raw)}/{length}"

    def port(self) -> str:
        low = _number(self._given, "port")
        high = _number(self._given, "port_to") if "port_to" in self._given else low
        text = str(low) if low == high else f"{low}-{high}"
        if self._storage == "bitmap":
            return text
        return f"{protocol_name(_number(self._given, 'proto'))}:{text}"

    def mac(self) -> str:
        raw = bytes.fromhex(self._given.get("ether", ""))
        return ":".join(f"{byte:02X}" for byte in raw)

    def interface(self) -> str:
        flags = _number(self._given, "cadt_flags")
        return ("physdev:" if flags & _PHYSDEV else "") + _text(self._given["iface"])

    def mark(self) -> str:
        return f"0x{_number(self._given, 'mark'):08x}"


_DIMENSIONS: dict[str, Callable[[_Parts], str]] = {
    "ip": _Parts.address,
    "net": _Parts.address,
    "port": _Parts.port,
    "mac": _Parts.mac,
    "iface": _Parts.interface,
    "mark": _Parts.mark,
}


def _text(value: str) -> str:
    return bytes.fromhex(value).split(b"\0")[0].decode(errors="replace")

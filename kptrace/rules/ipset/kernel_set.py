"""Write an ipset that was read by netlink as ``ipset save`` would.

``save.py`` then reads that text, so a set has one reader however it was obtained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kptrace.rules.byte_reader import address_text
from kptrace.rules.iptables.kernel_rule import protocol_name

Tree = Mapping[str, Any]
Attributes = Mapping[str, str]

_INET6 = 10
_WITH = ((1 << 3, "counters"), (1 << 4, "comment"), (1 << 6, "skbinfo"), (1 << 5, "forceadd"))
_PHYSDEV, _NOMATCH, _WILDCARD = 1 << 1, 1 << 2, 1 << 7


def save_text(tree: Tree) -> str:
    """The ``create`` line and the ``add`` lines of a set.

    ``tree``: the set as ``agent/netlink/ipset.py`` decodes it: type, family, options and elements,
    attributes by the kernel's names, values in hexadecimal. Raises ValueError or KeyError for any
    other tree.
    """
    lines = [_create(tree)]
    for element in tree["elements"]:
        lines.append(" ".join(["add", tree["name"], *_element(tree["type"], element)]))
    return "\n".join(lines) + "\n"


def _create(tree: Tree) -> str:
    attributes: Attributes = tree.get("options", {})
    args = ["create", tree["name"], tree["type"]]
    if tree["type"].startswith("hash:"):
        args += ["family", "inet6" if tree["family"] == _INET6 else "inet"]
    if tree["type"].startswith("bitmap:"):
        args += ["range", _range(attributes)]
    for name in ("netmask", "hashsize", "maxelem", "timeout", "size", "bucketsize"):
        if name in attributes:
            args += [name, str(_number(attributes, name))]
    flags = _number(attributes, "cadt_flags")
    return " ".join(args + [name for bit, name in _WITH if flags & bit])


def _range(attributes: Attributes) -> str:
    if "port" in attributes:
        return f"{_number(attributes, 'port')}-{_number(attributes, 'port_to')}"
    return "-".join(address_text(bytes.fromhex(attributes[end])) for end in ("ip", "ip_to"))


def _number(attributes: Attributes, name: str) -> int:
    return int(attributes.get(name, "0"), 16)


def _element(method: str, attributes: Attributes) -> Iterator[str]:
    storage, _, dimensions = method.partition(":")
    if storage == "list":
        yield _text(attributes["name"])
    else:
        parts = _Parts(storage, attributes)
        yield ",".join(parts.text(dimension) for dimension in dimensions.split(","))
    if "timeout" in attributes:
        yield f"timeout {_number(attributes, 'timeout')}"
    if "packets" in attributes:
        yield f"packets {_number(attributes, 'packets')} bytes {_number(attributes, 'bytes')}"
    if "comment" in attributes:
        yield f'comment "{_text(attributes["comment"])}"'
    flags = _number(attributes, "cadt_flags")
    for bit, name in ((_NOMATCH, "nomatch"), (_WILDCARD, "wildcard")):
        if flags & bit:
            yield name


class _Parts:
    """The dimensions of one element; the attributes of a second address begin with ``ip2``."""

    def __init__(self, storage: str, attributes: Attributes) -> None:
        self._storage, self._attributes = storage, attributes
        self._suffix = ""

    def text(self, dimension: str) -> str:
        return _DIMENSIONS[dimension](self)

    def address(self) -> str:
        suffix, self._suffix = self._suffix, "2"
        attributes = self._attributes
        raw = bytes.fromhex(attributes[f"ip{suffix}"])
        if f"ip{suffix}_to" in attributes:
            return (
                f"{address_text(raw)}-{address_text(bytes.fromhex(attributes[f'ip{suffix}_to']))}"
            )
        length = (
            _number(attributes, f"cidr{suffix}") if f"cidr{suffix}" in attributes else len(raw) * 8
        )
        return address_text(raw) if length == len(raw) * 8 else f"{address_text(raw)}/{length}"

    def port(self) -> str:
        low = _number(self._attributes, "port")
        high = _number(self._attributes, "port_to") if "port_to" in self._attributes else low
        text = str(low) if low == high else f"{low}-{high}"
        if self._storage == "bitmap":
            return text
        return f"{protocol_name(_number(self._attributes, 'proto'))}:{text}"

    def mac(self) -> str:
        raw = bytes.fromhex(self._attributes.get("ether", ""))
        return ":".join(f"{byte:02X}" for byte in raw)

    def interface(self) -> str:
        flags = _number(self._attributes, "cadt_flags")
        return ("physdev:" if flags & _PHYSDEV else "") + _text(self._attributes["iface"])

    def mark(self) -> str:
        return f"0x{_number(self._attributes, 'mark'):08x}"


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

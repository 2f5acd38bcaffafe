"""Read ``ipset save`` text (ipset(8)). Its sets belong to no table.

A line is ``create NAME TYPE options`` or ``add NAME ELEMENT options``; names may hold spaces and
commas, elements may not. Elements are parsed when their set is asked for.

The elements say how the kernel looks a packet up: with ``netmask 24`` it masks the packet's address
first, so such an element is a prefix; ``bitmap:ip,mac`` without a MAC matches any. A set of an
unknown type, or one that looks at bridge ports (``physdev:``), has no key type: whether a packet is
in it is then unknown.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from functools import cached_property

from kptrace.model.errors import ParseError
from kptrace.rules.iptables.options import number, protocol
from kptrace.rules.model.expressions import Concat, Const, Expr, InterfaceWildcard, Prefix, Range
from kptrace.rules.model.ruleset import Chain, RulesetSource, Table
from kptrace.rules.model.sets import Element, Key, Set, SetElements, key_parts, pattern_matches

_CREATE = re.compile(r"create (.+?) ([a-z]+:[a-z,]+)(?: (.*))?")
_OPTIONS = re.compile(r'"([^"]*)"|(\S+)')
_HINT = "take it again with: ipset save"
_ANY = InterfaceWildcard(start="")

_TYPES = {"mac": "ether_addr", "iface": "ifname", "mark": "mark"}


class IpsetSave(RulesetSource):
    """One file. The lines are assigned to sets at once, the elements of a set are parsed on demand.

    Raises ParseError for a line that is no ``create`` or ``add`` line.
    """

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self._created: dict[str, tuple[int, str, str]] = {}
        self._added: dict[str, list[tuple[int, str]]] = {}
        current = ""
        for line_number, line in enumerate(text.split("\n"), start=1):
            if line.startswith("add "):
                if not line.startswith(f"add {current} ") or not current:
                    current = self._owner(line, line_number)
                self._added[current].append((line_number, line[len(current) + 5 :]))
            elif created := _CREATE.fullmatch(line):
                current, kind, options = created.groups()
                if current in self._created:
                    raise ParseError(name, line_number, f"set {current} for the second time", _HINT)
                self._created[current] = (line_number, kind, options or "")
                self._added[current] = []
            elif line.strip() and not line.startswith("#"):
                raise ParseError(
                    name, line_number, f"{line[:60]!r} neither creates nor adds", _HINT
                )

    def tables(self) -> Sequence[Table]:
        return ()

    def base_chains(self, table: Table) -> Sequence[Chain]:
        return ()

    def chain(self, table: Table, name: str) -> Chain | None:
        return None

    def chain_names(self, table: Table) -> Sequence[str]:
        return ()

    def set_names(self, table: Table | None) -> Sequence[str]:
        return tuple(self._created) if table is None else ()

    def set(self, table: Table | None, name: str) -> Set | None:
        if table is not None or name not in self._created:
            return None
        line_number, method, text = self._created[name]
        options = self._options(text, line_number, _CREATE_FLAGS)
        members: SetElements = (
            ListSetElements(self, self._names(name))
            if method == "list:set"
            else _KINDS.get(method, SetElements)(
                self._element(element, method, options, line_number_)
                for line_number_, element in self._added[name]
            )
        )
        return Set(
            name=name,
            kind="set",
            type=self._type(name, method, options),
            members=members,
            method=method,
            flags=tuple(flag for flag in ("counters", "comment", "skbinfo") if flag in options),
            timeout=self._seconds(options, line_number),
        )

    # --- reading ------------------------------------------------------------------------------

    def _seconds(self, options: dict[str, str], line_number: int) -> int | None:
        text = options.get("timeout")
        if text is not None and not text.isdecimal():
            raise ParseError(self.name, line_number, f"{text!r} is no timeout in seconds", _HINT)
        return int(text) if text else None

    def _owner(self, line: str, line_number: int) -> str:
        for name in sorted(self._created, key=len, reverse=True):
            if line.startswith(f"add {name} "):
                return name
        raise ParseError(self.name, line_number, "an element of a set that was not created", _HINT)

    def _names(self, name: str) -> list[str]:
        """The sets in a list of sets, which contains no other list (list_set_uadd)."""
        names = [(line_number, text.split(" ")[0]) for line_number, text in self._added[name]]
        for line_number, inner in names:
            if self._created.get(inner, (0, "", ""))[1] == "list:set":
                raise ParseError(
                    self.name, line_number, f"{inner}, a list, in a list of sets", _HINT
                )
        return [inner for _, inner in names]

    def _type(self, name: str, method: str, options: dict[str, str]) -> tuple[str, ...]:
        if method == "list:set":
            inner = (self.set(None, inner_name) for inner_name in self._names(name))
            types = {set_.type for set_ in inner if set_}
            return types.pop() if len(types) == 1 else ()
        if any("physdev:" in text for _, text in self._added[name]):
            return ()
        return key_types(method, options.get("family", "inet"))

    def _element(
        self, text: str, method: str, options: dict[str, str], line_number: int
    ) -> Element:
        key, _, rest = text.partition(" ")
        added = self._options(rest, line_number, _ADD_FLAGS)
        try:
            return Element(
                key=_key(key, method, options, "wildcard" in added),
                timeout=int(added["timeout"]) if "timeout" in added else None,
                comment=added.get("comment", ""),
                nomatch="nomatch" in added,
            )
        except (ValueError, KeyError) as error:
            raise ParseError(
                self.name, line_number, f"{key!r} is no element: {error}", _HINT
            ) from error

    def _options(self, text: str, line_number: int, flags: frozenset[str]) -> dict[str, str]:
        args = [quoted or plain for quoted, plain in _OPTIONS.findall(text)]
        if text.count('"') % 2:
            raise ParseError(self.name, line_number, "a quote that does not close", _HINT)
        options: dict[str, str] = {}
        remaining = iter(args)
        for word in remaining:
            options[word] = "" if word in flags else next(remaining, "")
        return options


_CREATE_FLAGS = frozenset({"counters", "comment", "skbinfo", "forceadd"})
_ADD_FLAGS = frozenset({"nomatch", "wildcard"})


class ListSetElements(SetElements):
    """The elements of a ``list:set``, which contains what one of its sets contains."""

    def __init__(self, save: IpsetSave, names: Sequence[str]) -> None:
        super().__init__(Element(key=Const(value=name)) for name in names)
        self._save, self._names = save, names

    @cached_property
    def _inner(self) -> list[Set]:
        return [set_ for name in self._names if (set_ := self._save.set(None, name))]

    def lookup(self, key: Key) -> Element | None:
        elements = (set_.members.lookup(key) for set_ in self._inner)
        return next(filter(None, elements), None)


class NetIfaceElements(SetElements):
    """The elements of a ``hash:net,iface``.

    The narrowest network that contains the address decides, even if it names another interface
    (mtype_test_cidrs: ``&& !multi``).
    """

    def lookup(self, key: Key) -> Element | None:
        holding: dict[int, list[tuple[Expr, Element]]] = {}
        for element in self:
            net, interface = key_parts(element.key)
            if len(key) == 2 and pattern_matches(net, key[0]):
                length = net.length if isinstance(net, Prefix) else _HOST
                holding.setdefault(length, []).append((interface, element))
        narrowest = holding[max(holding)] if holding else []
        match = next(
            (element for interface, element in narrowest if pattern_matches(interface, key[1])),
            None,
        )
        return None if match is None or match.nomatch else match


_HOST = 128  # of a single address, longer than any prefix
_KINDS: dict[str, type[SetElements]] = {"hash:net,iface": NetIfaceElements}


def key_types(method: str, family: str) -> tuple[str, ...]:
    """The types of a key, by the set's type (``hash:ip,port``); empty for an unknown type."""
    storage, _, dimensions = method.partition(":")
    address = "ipv6_addr" if family == "inet6" else "ipv4_addr"
    ports = ("inet_service",) if storage == "bitmap" else ("inet_proto", "inet_service")
    names: list[str] = []
    for dimension in dimensions.split(","):
        if dimension in ("ip", "net"):
            names.append(address)
        elif dimension == "port":
            names += ports
        elif dimension in _TYPES:
            names.append(_TYPES[dimension])
        else:
            return ()
    return tuple(names)


def _key(text: str, method: str, options: dict[str, str], wildcard: bool) -> Expr:
    storage, _, dimensions = method.partition(":")
    values = text.split(",")
    parts: list[Expr] = []
    for index, dimension in enumerate(dimensions.split(",")):
        if index >= len(values):
            parts.append(_ANY)
        elif dimension in ("ip", "net"):
            parts.append(_address(values[index], options.get("netmask", "")))
        elif dimension == "port" and storage == "hash":
            name, _, port = values[index].partition(":")
            parts += [Const(value=protocol(name)), _port(port)]
        else:
            parts.append(_PARTS[dimension](values[index]))
            if dimension == "iface" and wildcard:
                parts[-1] = InterfaceWildcard(start=values[index])
    if len(values) > len(dimensions.split(",")):
        raise ValueError("too many parts")
    return parts[0] if len(parts) == 1 else Concat(parts=tuple(parts))


def _address(text: str, netmask: str) -> Expr:
    low, dash, high = text.partition("-")
    if dash:
        ipaddress.ip_address(high)
        return Range(low=str(ipaddress.ip_address(low)), high=high)
    address, _, length = text.partition("/")
    bits = ipaddress.ip_address(address).max_prefixlen
    size = int(length or netmask or bits)
    if not 0 <= size <= bits:
        raise ValueError("its prefix is too long")
    return Const(value=address) if size == bits else Prefix(address=address, length=size)


def _port(text: str) -> Expr:
    low, dash, high = text.partition("-")
    if dash and low.isdecimal() and high.isdecimal():
        return Range(low=int(low), high=int(high))
    return Const(value=int(text) if text.isdecimal() else text)


_PARTS: dict[str, Callable[[str], Expr]] = {
    "port": _port,
    "mac": lambda text: Const(value=text.lower()),
    "iface": lambda text: Const(value=text),
    "mark": lambda text: Const(value=number(text)),
}

"""``ipset save`` text -> a Source of sets (ipset(8)); they belong to no table.

A line is ``create NAME TYPE options`` or ``add NAME ELEMENT options``; names may hold spaces and
commas, elements may not. Elements are parsed when their set is asked for.

How the kernel looks a packet up is folded into the elements: with ``netmask 24`` it masks the
packet's address first, so such an element is a prefix; ``bitmap:ip,mac`` without a MAC holds any.
The type of a set of a type that is not known here, or that looks at bridge ports (``physdev:``),
is left empty: what is in it for a packet is then unknown.
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
from kptrace.rules.model.sets import Element, Key, Set, SetElements, holds, places

_CREATE = re.compile(r"create (.+?) ([a-z]+:[a-z,]+)(?: (.*))?")
_OPTIONS = re.compile(r'"([^"]*)"|(\S+)')
_HINT = "take it again with: ipset save"
_ANY = InterfaceWildcard(start="")

_TYPES = {"mac": "ether_addr", "iface": "ifname", "mark": "mark"}


class IpsetSave(RulesetSource):
    """One file. The lines of each set are found when it is opened, its elements when asked for."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self._created: dict[str, tuple[int, str, str]] = {}
        self._added: dict[str, list[tuple[int, str]]] = {}
        current = ""
        for place, line in enumerate(text.split("\n"), start=1):
            if line.startswith("add "):
                if not line.startswith(f"add {current} ") or not current:
                    current = self._owner(line, place)
                self._added[current].append((place, line[len(current) + 5 :]))
            elif found := _CREATE.fullmatch(line):
                current, kind, options = found.groups()
                if current in self._created:
                    raise ParseError(name, place, f"set {current} for the second time", _HINT)
                self._created[current] = (place, kind, options or "")
                self._added[current] = []
            elif line.strip() and not line.startswith("#"):
                raise ParseError(name, place, f"{line[:60]!r} neither creates nor adds", _HINT)

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
        place, method, text = self._created[name]
        options = self._options(text, place, _CREATE_FLAGS)
        members: SetElements = (
            ListSetElements(self, self._names(name))
            if method == "list:set"
            else _KINDS.get(method, SetElements)(
                self._element(each, method, options, line) for line, each in self._added[name]
            )
        )
        return Set(
            name=name,
            kind="set",
            type=self._type(name, method, options),
            members=members,
            method=method,
            flags=tuple(flag for flag in ("counters", "comment", "skbinfo") if flag in options),
            timeout=self._seconds(options, place),
        )

    # --- reading ------------------------------------------------------------------------------

    def _seconds(self, options: dict[str, str], place: int) -> int | None:
        text = options.get("timeout")
        if text is not None and not text.isdecimal():
            raise ParseError(self.name, place, f"{text!r} is no timeout in seconds", _HINT)
        return int(text) if text else None

    def _owner(self, line: str, place: int) -> str:
        for name in sorted(self._created, key=len, reverse=True):
            if line.startswith(f"add {name} "):
                return name
        raise ParseError(self.name, place, "an element of a set that was not created", _HINT)

    def _names(self, name: str) -> list[str]:
        """Those in a list of sets; the kernel takes no list into a list (list_set_uadd)."""
        names = [(place, text.split(" ")[0]) for place, text in self._added[name]]
        for place, each in names:
            if self._created.get(each, (0, "", ""))[1] == "list:set":
                raise ParseError(self.name, place, f"{each}, a list, in a list of sets", _HINT)
        return [each for _, each in names]

    def _type(self, name: str, method: str, options: dict[str, str]) -> tuple[str, ...]:
        if method == "list:set":
            inner = {each.type for one in self._names(name) if (each := self.set(None, one))}
            return inner.pop() if len(inner) == 1 else ()
        if any("physdev:" in text for _, text in self._added[name]):
            return ()
        return types(method, options.get("family", "inet"))

    def _element(self, text: str, method: str, options: dict[str, str], place: int) -> Element:
        key, _, rest = text.partition(" ")
        given = self._options(rest, place, _ADD_FLAGS)
        try:
            return Element(
                key=_key(key, method, options, "wildcard" in given),
                timeout=int(given["timeout"]) if "timeout" in given else None,
                comment=given.get("comment", ""),
                nomatch="nomatch" in given,
            )
        except (ValueError, KeyError) as error:
            raise ParseError(self.name, place, f"{key!r} is no element: {error}", _HINT) from error

    def _options(self, text: str, place: int, flags: frozenset[str]) -> dict[str, str]:
        words = [quoted or plain for quoted, plain in _OPTIONS.findall(text)]
        if text.count('"') % 2:
            raise ParseError(self.name, place, "a quote that does not close", _HINT)
        options: dict[str, str] = {}
        turn = iter(words)
        for word in turn:
            options[word] = "" if word in flags else next(turn, "")
        return options


_CREATE_FLAGS = frozenset({"counters", "comment", "skbinfo", "forceadd"})
_ADD_FLAGS = frozenset({"nomatch", "wildcard"})


class ListSetElements(SetElements):
    """list:set: holds what one of its sets holds."""

    def __init__(self, save: IpsetSave, names: Sequence[str]) -> None:
        super().__init__(Element(key=Const(value=name)) for name in names)
        self._save, self._names = save, names

    @cached_property
    def _inner(self) -> list[Set]:
        return [found for name in self._names if (found := self._save.set(None, name))]

    def lookup(self, key: Key) -> Element | None:
        return next((found for each in self._inner if (found := each.members.lookup(key))), None)


class NetIfaceElements(SetElements):
    """hash:net,iface: of the networks that hold the address the narrowest decides, even where it
    names another interface (mtype_test_cidrs: ``&& !multi``).
    """

    def lookup(self, key: Key) -> Element | None:
        holding: dict[int, list[tuple[Expr, Element]]] = {}
        for element in self:
            net, interface = places(element.key)
            if len(key) == 2 and holds(net, key[0]):
                length = net.length if isinstance(net, Prefix) else _HOST
                holding.setdefault(length, []).append((interface, element))
        narrowest = holding[max(holding)] if holding else []
        found = next((each for interface, each in narrowest if holds(interface, key[1])), None)
        return None if found is None or found.nomatch else found


_HOST = 128  # of a single address, longer than any prefix
_KINDS: dict[str, type[SetElements]] = {"hash:net,iface": NetIfaceElements}


def types(method: str, family: str) -> tuple[str, ...]:
    """``hash:ip,port`` -> the types of its places; empty for what is not known."""
    storage, _, dimensions = method.partition(":")
    address = "ipv6_addr" if family == "inet6" else "ipv4_addr"
    ports = ("inet_service",) if storage == "bitmap" else ("inet_proto", "inet_service")
    found: list[str] = []
    for dimension in dimensions.split(","):
        if dimension in ("ip", "net"):
            found.append(address)
        elif dimension == "port":
            found += ports
        elif dimension in _TYPES:
            found.append(_TYPES[dimension])
        else:
            return ()
    return tuple(found)


def _key(text: str, method: str, options: dict[str, str], wildcard: bool) -> Expr:
    storage, _, dimensions = method.partition(":")
    given = text.split(",")
    parts: list[Expr] = []
    for index, dimension in enumerate(dimensions.split(",")):
        if index >= len(given):
            parts.append(_ANY)
        elif dimension in ("ip", "net"):
            parts.append(_address(given[index], options.get("netmask", "")))
        elif dimension == "port" and storage == "hash":
            name, _, port = given[index].partition(":")
            parts += [Const(value=protocol(name)), _port(port)]
        else:
            parts.append(_PARTS[dimension](given[index]))
            if dimension == "iface" and wildcard:
                parts[-1] = InterfaceWildcard(start=given[index])
    if len(given) > len(dimensions.split(",")):
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

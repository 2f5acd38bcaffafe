"""Expressions of ``nft -j`` JSON -> Expr (libnftables-json(5), "Expressions").

Each has its entry in a table; what is not there becomes OpaqueExpr with its own JSON. Constants are
turned into rules/model/expressions.py's canonical values by the field that they are compared with
(``echo-request``
-> 8, ``syn`` -> 2), elements of named sets by the set's type.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from kptrace.rules.iptables.matches import TCP_FLAGS
from kptrace.rules.iptables.options import field, protocol
from kptrace.rules.model.expressions import (
    AnonymousMap,
    AnonymousSet,
    BitwiseExpr,
    Concat,
    Const,
    Expr,
    Fib,
    Field,
    Hash,
    InterfaceWildcard,
    MapElement,
    MapLookup,
    NumGen,
    Payload,
    Prefix,
    Range,
    SetRef,
    UnknownExpr,
    Verdict,
)

Json = Any  # decoded JSON; its shape is proved by use, and KeyError and the like are caught here


class UnknownExpressionError(Exception):
    """JSON that is not of the shape that we know."""


def single(given: Json) -> tuple[str, Json]:
    """nft writes each thing as an object with one key; a bare text is a thing without arguments."""
    if isinstance(given, str):
        return given, None
    if isinstance(given, dict) and len(given) == 1:
        return next(iter(given.items()))
    return "", given


# --- expressions ------------------------------------------------------------------------------


def expression(given: Json, kind: str = "") -> Expr:
    """``kind``: what it is compared with or stored as, a field's key or a set's type."""
    if isinstance(given, bool):
        return Const(value=int(given))
    if isinstance(given, int):
        return constant(given, kind)
    if isinstance(given, str):
        return SetRef(name=given[1:]) if given.startswith("@") else constant(given, kind)
    if isinstance(given, list):
        return AnonymousSet(items=tuple(expression(each, kind) for each in given))
    name, value = single(given)
    reader = _EXPRESSIONS.get(name)
    if reader is None:
        return UnknownExpr(text=json.dumps(given, sort_keys=True))
    return reader(value, kind)


def constant(value: str | int, kind: str) -> Expr:
    """One value in rules/model/expressions.py's canonical form."""
    if kind in _PROTOCOL_KINDS:
        return Const(value=protocol(str(value)))
    if isinstance(value, int):
        return Const(value=value)
    if kind in _NAME_KINDS and value.endswith("*"):
        return InterfaceWildcard(start=value[:-1].removesuffix("\\"))
    if kind in _NUMBERED:
        return Const(value=_NUMBERED[kind].get(value, value))
    return Const(value=value)


_PROTOCOL_KINDS = frozenset({"meta l4proto", "ip protocol", "ip6 nexthdr", "inet_proto"})
_PROTOCOL_KINDS |= {"ct protocol", "ct original protocol", "ct reply protocol"}
_NAME_KINDS = frozenset({"meta iifname", "meta oifname", "ifname", "meta ibrname", "meta obrname"})
_FLAG_NUMBERS = {name.lower(): bit for name, bit in TCP_FLAGS.items()} | {"ecn": 64}
ICMP = {
    "echo-reply": 0,
    "destination-unreachable": 3,
    "source-quench": 4,
    "redirect": 5,
    "echo-request": 8,
    "router-advertisement": 9,
    "router-solicitation": 10,
    "time-exceeded": 11,
    "parameter-problem": 12,
    "timestamp-request": 13,
    "timestamp-reply": 14,
    "info-request": 15,
    "info-reply": 16,
    "address-mask-request": 17,
    "address-mask-reply": 18,
}
ICMPV6 = {
    "destination-unreachable": 1,
    "packet-too-big": 2,
    "time-exceeded": 3,
    "parameter-problem": 4,
    "echo-request": 128,
    "echo-reply": 129,
    "mld-listener-query": 130,
    "mld-listener-report": 131,
    "mld-listener-done": 132,
    "mld-listener-reduction": 132,
    "nd-router-solicit": 133,
    "nd-router-advert": 134,
    "nd-neighbor-solicit": 135,
    "nd-neighbor-advert": 136,
    "nd-redirect": 137,
    "router-renumbering": 138,
    "ind-neighbor-solicit": 141,
    "ind-neighbor-advert": 142,
    "mld2-listener-report": 143,
}
_DSCP = {f"cs{number}": number * 8 for number in range(8)}
_DSCP |= {f"af{row}{drop}": row * 8 + drop * 2 for row in range(1, 5) for drop in range(1, 4)}
_DSCP |= {"df": 0, "be": 0, "lephb": 1, "va": 44, "ef": 46}
_NUMBERED: dict[str, dict[str, int]] = {
    "ip dscp": _DSCP,
    "ip6 dscp": _DSCP,
    "tcp flags": _FLAG_NUMBERS,
    "tcp_flag": _FLAG_NUMBERS,
    "icmp type": ICMP,
    "icmp_type": ICMP,
    "icmpv6 type": ICMPV6,
    "icmpv6_type": ICMPV6,
}


def kind_of(expr: Expr) -> str:
    """The field whose values this expression has."""
    match expr:
        case Field(key=key):
            return key
        case BitwiseExpr(left=left):
            return kind_of(left)
        case Fib(result=result):
            return "meta oifname" if result == "oifname" else f"fib {result}"
        case _:
            return ""


_PORTS = {("th", 0, 16): "th sport", ("th", 16, 16): "th dport"}


def _payload(value: Json, kind: str) -> Expr:
    if "base" in value:
        place = value["base"], value["offset"], value["len"]
        port = _PORTS.get(place)
        return field(port) if port else Payload(base=place[0], offset=place[1], length=place[2])
    return field(f"{value['protocol']} {value['field']}")


def _ct(value: Json, kind: str) -> Expr:
    """``ct original saddr`` has its family since nft 0.9.9: ``ct original ip saddr``."""
    return field(f"ct {value['dir']} {value['key']}" if "dir" in value else f"ct {value['key']}")


def _binary(op: str) -> Callable[[Json, str], Expr]:
    def read(value: Json, kind: str) -> Expr:
        left, *rest = value
        result = expression(left, kind)
        for each in rest:
            right = expression(each, kind_of(result) or kind)
            result = BitwiseExpr(op=op, left=result, right=ored(right))  # type: ignore[arg-type]
        return result

    return read


def ored(flags: Expr) -> Expr:
    """A list of flags that are numbers is their sum: ``tcp flags & (fin | syn)``."""
    if isinstance(flags, AnonymousSet):
        values = [item.value for item in flags.items if isinstance(item, Const)]
        numbers = [value for value in values if isinstance(value, int)]
        if len(numbers) == len(flags.items):
            return Const(value=sum(set(numbers)))
    return flags


def _concat(value: Json, kind: str) -> Expr:
    each = kind.split(" . ") if " . " in kind else [""] * len(value)
    if len(each) != len(value):
        raise UnknownExpressionError("a concatenation of another length")
    return Concat(parts=tuple(map(expression, value, each)))


def _map(value: Json, kind: str) -> Expr:
    key = expression(value["key"])
    return MapLookup(key=key, map=mapping(value["data"], kinds(key)))


def mapping(given: Json, kind: str) -> SetRef | AnonymousMap:
    if isinstance(given, str):
        if not given.startswith("@"):
            raise UnknownExpressionError("a map's name without @")
        return SetRef(name=given[1:])
    items = []
    for key, data in given["set"]:
        items.append(MapElement(key=expression(_bare(key), kind), data=datum(data)))
    return AnonymousMap(items=tuple(items))


def _bare(element: Json) -> Json:
    return element["elem"]["val"] if single(element)[0] == "elem" else element


def datum(given: Json, kind: str = "") -> Expr | Verdict:
    """What a map gives: a verdict or a value."""
    name, value = single(given)
    if isinstance(given, dict) and name in VERDICTS:
        return verdict(name, value)
    return expression(given, kind)


def kinds(expr: Expr) -> str:
    """The kind of a key, of each of its parts if it is a concatenation."""
    if isinstance(expr, Concat):
        return " . ".join(kind_of(part) for part in expr.parts)
    return kind_of(expr)


def _hash(name: str) -> Callable[[Json, str], Expr]:
    def read(value: Json, kind: str) -> Expr:
        return Hash(
            kind=name,
            mod=value["mod"],
            key=expression(value["expr"]) if "expr" in value else None,
            seed=value.get("seed"),
            offset=value.get("offset", 0),
        )

    return read


def listed(value: Json) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _plain(value: Json) -> str | int:
    if not isinstance(value, str | int):
        raise UnknownExpressionError("a range of something else")
    return value


def _prefix(value: Json, kind: str) -> Expr:
    """Of numbers too: marks 32 and 33 are ``0x20/31``."""
    low, length = value["addr"], value["len"]
    if not isinstance(low, int):
        return Prefix(address=low, length=length)
    return Range(low=low, high=low | (1 << max(_MARK_BITS - length, 0)) - 1)


_MARK_BITS = 32


def _edges(value: Json, kind: str) -> Expr:
    low, high = (constant(_plain(edge), kind) for edge in value)
    if isinstance(low, Const) and isinstance(high, Const):
        return Range(low=low.value, high=high.value)
    raise UnknownExpressionError("a range of something else")


_EXPRESSIONS: dict[str, Callable[[Json, str], Expr]] = {
    "payload": _payload,
    "meta": lambda value, _: field(f"meta {value['key']}"),
    "ct": _ct,
    "rt": lambda value, _: field(f"rt {value['key']}"),
    "socket": lambda value, _: field(f"socket {value['key']}"),
    "exthdr": lambda value, _: field(f"exthdr {value['name']} {value.get('field', 'exists')}"),
    "tcp option": lambda value, _: field(
        f"tcp option {value['name']} {value.get('field', 'exists')}"
    ),
    "concat": _concat,
    "prefix": _prefix,
    "range": _edges,
    "set": lambda value, kind: AnonymousSet(
        items=tuple(expression(_bare(each), kind) for each in value)
    ),
    "elem": lambda value, kind: expression(value["val"], kind),
    "map": _map,
    "numgen": lambda value, _: NumGen(
        mode=value["mode"], mod=value["mod"], offset=value.get("offset", 0)
    ),
    "jhash": _hash("jhash"),
    "symhash": _hash("symhash"),
    "fib": lambda value, _: Fib(result=value["result"], flags=listed(value["flags"])),
    "&": _binary("and"),
    "|": _binary("or"),
    "^": _binary("xor"),
    "<<": _binary("lshift"),
    ">>": _binary("rshift"),
}


def verdict(name: str, value: Json) -> Verdict:
    if name in ("jump", "goto"):
        return Verdict(kind=name, chain=value["target"])  # type: ignore[arg-type]
    return Verdict(kind=name)  # type: ignore[arg-type]


VERDICTS = ("accept", "drop", "continue", "return", "jump", "goto", "queue")

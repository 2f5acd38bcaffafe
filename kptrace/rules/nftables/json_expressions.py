"""Read the expressions of ``nft -j`` JSON (libnftables-json(5), "Expressions").

An expression without an entry in the table becomes an UnknownExpr with its own JSON. A constant
gets the canonical value of rules/model/expressions.py by the field that it is compared with
(``echo-request`` is 8, ``syn`` is 2), or by the type of the set that it is in.
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

Json = Any  # decoded JSON; its shape is checked by use: KeyError and the like are caught


class UnknownExpressionError(Exception):
    """The JSON has an unexpected shape."""


def only_item(tree: Json) -> tuple[str, Json]:
    """(name, arguments) of an object with one key, as nft writes each expression and statement.

    A plain text is a name without arguments; the name is empty for any other JSON.
    """
    if isinstance(tree, str):
        return tree, None
    if isinstance(tree, dict) and len(tree) == 1:
        return next(iter(tree.items()))
    return "", tree


# --- expressions ------------------------------------------------------------------------------


def expression(tree: Json, kind: str = "") -> Expr:
    """An expression.

    ``kind``: the field that it is compared with, or the type of the set that it is in. Raises
    UnknownExpressionError, LookupError, TypeError or ValueError for JSON of another shape.
    """
    if isinstance(tree, bool):
        return Const(value=int(tree))
    if isinstance(tree, int):
        return constant(tree, kind)
    if isinstance(tree, str):
        return SetRef(name=tree[1:]) if tree.startswith("@") else constant(tree, kind)
    if isinstance(tree, list):
        return AnonymousSet(items=tuple(expression(item, kind) for item in tree))
    name, value = only_item(tree)
    reader = _EXPRESSIONS.get(name)
    if reader is None:
        return UnknownExpr(text=json.dumps(tree, sort_keys=True))
    return reader(value, kind)


def constant(value: str | int, kind: str) -> Expr:
    """One value in the canonical form of rules/model/expressions.py."""
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
    """The field whose values an expression has; empty if there is none."""
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
    """A conntrack key; since nft 0.9.9 addresses have a family: ``ct original ip saddr``."""
    return field(f"ct {value['dir']} {value['key']}" if "dir" in value else f"ct {value['key']}")


def _binary(op: str) -> Callable[[Json, str], Expr]:
    def read(value: Json, kind: str) -> Expr:
        left, *rest = value
        result = expression(left, kind)
        for item in rest:
            right = expression(item, kind_of(result) or kind)
            result = BitwiseExpr(op=op, left=result, right=or_flags(right))  # type: ignore[arg-type]
        return result

    return read


def or_flags(flags: Expr) -> Expr:
    """A list of flags that are numbers as their sum: ``tcp flags & (fin | syn)``."""
    if isinstance(flags, AnonymousSet):
        values = [item.value for item in flags.items if isinstance(item, Const)]
        numbers = [value for value in values if isinstance(value, int)]
        if len(numbers) == len(flags.items):
            return Const(value=sum(set(numbers)))
    return flags


def _concat(value: Json, kind: str) -> Expr:
    kinds_ = kind.split(" . ") if " . " in kind else [""] * len(value)
    if len(kinds_) != len(value):
        raise UnknownExpressionError("a concatenation of another length")
    return Concat(parts=tuple(map(expression, value, kinds_)))


def _map(value: Json, kind: str) -> Expr:
    key = expression(value["key"])
    return MapLookup(key=key, map=map_reference(value["data"], key_kinds(key)))


def map_reference(tree: Json, kind: str) -> SetRef | AnonymousMap:
    if isinstance(tree, str):
        if not tree.startswith("@"):
            raise UnknownExpressionError("a map's name without @")
        return SetRef(name=tree[1:])
    items = []
    for key, data in tree["set"]:
        items.append(MapElement(key=expression(_bare(key), kind), data=map_data(data)))
    return AnonymousMap(items=tuple(items))


def _bare(element: Json) -> Json:
    return element["elem"]["val"] if only_item(element)[0] == "elem" else element


def map_data(tree: Json, kind: str = "") -> Expr | Verdict:
    """The data of a map element: a verdict or a value."""
    name, value = only_item(tree)
    if isinstance(tree, dict) and name in VERDICTS:
        return verdict(name, value)
    return expression(tree, kind)


def key_kinds(expr: Expr) -> str:
    """The field of a key, or of each part of a concatenation, joined by `` . ``."""
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


def as_tuple(value: Json) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _plain(value: Json) -> str | int:
    if not isinstance(value, str | int):
        raise UnknownExpressionError("a range of something else")
    return value


def _prefix(value: Json, kind: str) -> Expr:
    """A prefix, of numbers too: marks 32 and 33 are ``0x20/31``."""
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
        items=tuple(expression(_bare(item), kind) for item in value)
    ),
    "elem": lambda value, kind: expression(value["val"], kind),
    "map": _map,
    "numgen": lambda value, _: NumGen(
        mode=value["mode"], mod=value["mod"], offset=value.get("offset", 0)
    ),
    "jhash": _hash("jhash"),
    "symhash": _hash("symhash"),
    "fib": lambda value, _: Fib(result=value["result"], flags=as_tuple(value["flags"])),
    "&": _binary("and"),
    "|": _binary("or"),
    "^": _binary("xor"),
    "<<": _binary("lshift"),
    ">>": _binary("rshift"),
}


def verdict(name: str, value: Json) -> Verdict:
    """A verdict by its name in VERDICTS."""
    if name in ("jump", "goto"):
        return Verdict(kind=name, chain=value["target"])  # type: ignore[arg-type]
    return Verdict(kind=name)  # type: ignore[arg-type]


VERDICTS = ("accept", "drop", "continue", "return", "jump", "goto", "queue")

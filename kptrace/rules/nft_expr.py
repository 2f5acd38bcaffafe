"""One rule of ``nft -j`` JSON -> its parts. libnftables-json(5) is the grammar.

Comes in: the decoded ``expr`` list of a rule. Goes out: its body. Each statement and expression
has its entry in a table; what is not in the table becomes Opaque with its own JSON.

Constants are turned into parts.py's canonical values by the field that they are compared with
(``echo-request`` -> 8, ``syn`` -> 2), elements of named sets by the set's type.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from kptrace.rules.parts import (
    Assign,
    Bits,
    Concat,
    Const,
    Count,
    Dnat,
    Elements,
    Entries,
    Entry,
    Expr,
    Fib,
    Field,
    Harmless,
    Hash,
    Limit,
    Log,
    Lookup,
    Masquerade,
    NoTrack,
    NumGen,
    Op,
    Opaque,
    OpaqueExpr,
    Part,
    Payload,
    Prefix,
    Range,
    Redirect,
    Reject,
    SetRef,
    SetUpdate,
    Snat,
    Test,
    Tproxy,
    Verdict,
    VerdictMap,
    Wild,
)
from kptrace.rules.xt_match import TCP_FLAGS
from kptrace.rules.xt_option import field, protocol

Json = Any  # decoded JSON; its shape is proved by use, and KeyError and the like are caught here


class Strange(Exception):
    """JSON that is not of the shape that we know."""


def body(statements: Sequence[Json]) -> tuple[Part, ...]:
    return tuple(_statement(each) for each in statements)


def _statement(given: Json) -> Part:
    name, value = _single(given)
    reader = _STATEMENTS.get(name)
    try:
        if reader is not None:
            return reader(value)
    except (Strange, KeyError, TypeError, ValueError, IndexError, AttributeError):
        pass
    ends = name not in _NO_MATCH and not (name == "xt" and _is_target(value))
    return Opaque(text=json.dumps(given, sort_keys=True), match=ends)


def _single(given: Json) -> tuple[str, Json]:
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
        return Elements(items=tuple(expression(each, kind) for each in given))
    name, value = _single(given)
    reader = _EXPRESSIONS.get(name)
    if reader is None:
        return OpaqueExpr(text=json.dumps(given, sort_keys=True))
    return reader(value, kind)


def constant(value: str | int, kind: str) -> Expr:
    """One value in parts.py's canonical form."""
    if kind in _PROTOCOL_KINDS:
        return Const(value=protocol(str(value)))
    if isinstance(value, int):
        return Const(value=value)
    if kind in _NAME_KINDS and value.endswith("*"):
        return Wild(start=value[:-1].removesuffix("\\"))
    if kind in _NUMBERED:
        return Const(value=_NUMBERED[kind].get(value, value))
    return Const(value=value)


_PROTOCOL_KINDS = frozenset({"meta l4proto", "ip protocol", "ip6 nexthdr", "inet_proto"})
_PROTOCOL_KINDS |= {"ct original protocol", "ct reply protocol"}
_NAME_KINDS = frozenset({"meta iifname", "meta oifname", "ifname", "meta ibrname", "meta obrname"})
_FLAG_NUMBERS = {name.lower(): bit for name, bit in TCP_FLAGS.items()} | {"ecn": 64}
_ICMP = {
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
_ICMPV6 = {
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
_NUMBERED: dict[str, dict[str, int]] = {
    "tcp flags": _FLAG_NUMBERS,
    "tcp_flag": _FLAG_NUMBERS,
    "icmp type": _ICMP,
    "icmp_type": _ICMP,
    "icmpv6 type": _ICMPV6,
    "icmpv6_type": _ICMPV6,
}


def kind_of(expr: Expr) -> str:
    """The field whose values this expression has."""
    match expr:
        case Field(key=key):
            return key
        case Bits(left=left):
            return kind_of(left)
        case Fib(result=result):
            return "meta oifname" if result == "oifname" else f"fib {result}"
        case _:
            return ""


def _payload(value: Json, kind: str) -> Expr:
    if "base" in value:
        return Payload(base=value["base"], offset=value["offset"], length=value["len"])
    return field(f"{value['protocol']} {value['field']}")


def _ct(value: Json, kind: str) -> Expr:
    """``ct original saddr`` is printed with the family since nft 0.9.9: ``ip saddr``."""
    key = value["key"].removeprefix("ip6 ").removeprefix("ip ")
    return field(f"ct {value['dir']} {key}" if "dir" in value else f"ct {key}")


def _binary(op: str) -> Callable[[Json, str], Expr]:
    def read(value: Json, kind: str) -> Expr:
        left, *rest = value
        result = expression(left, kind)
        for each in rest:
            right = expression(each, kind_of(result) or kind)
            result = Bits(op=op, left=result, right=_ored(right))  # type: ignore[arg-type]
        return result

    return read


def _ored(flags: Expr) -> Expr:
    """A list of flags that are numbers is their sum: ``tcp flags & (fin | syn)``."""
    if isinstance(flags, Elements):
        values = [item.value for item in flags.items if isinstance(item, Const)]
        numbers = [value for value in values if isinstance(value, int)]
        if len(numbers) == len(flags.items):
            return Const(value=sum(set(numbers)))
    return flags


def _concat(value: Json, kind: str) -> Expr:
    kinds = kind.split(" . ") if " . " in kind else [""] * len(value)
    if len(kinds) != len(value):
        raise Strange("a concatenation of another length")
    return Concat(parts=tuple(map(expression, value, kinds)))


def _map(value: Json, kind: str) -> Expr:
    key = expression(value["key"])
    return Lookup(key=key, map=_mapping(value["data"], _kinds(key)))


def _mapping(given: Json, kind: str) -> SetRef | Entries:
    if isinstance(given, str):
        if not given.startswith("@"):
            raise Strange("a map's name without @")
        return SetRef(name=given[1:])
    items = []
    for key, data in given["set"]:
        items.append(Entry(key=expression(_bare(key), kind), data=datum(data)))
    return Entries(items=tuple(items))


def _bare(element: Json) -> Json:
    return element["elem"]["val"] if _single(element)[0] == "elem" else element


def datum(given: Json, kind: str = "") -> Expr | Verdict:
    """What a map gives: a verdict or a value."""
    name, value = _single(given)
    if isinstance(given, dict) and name in _VERDICTS:
        return _verdict(name, value)
    return expression(given, kind)


def _kinds(expr: Expr) -> str:
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


def _as_list(value: Json) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _plain(value: Json) -> str | int:
    if not isinstance(value, str | int):
        raise Strange("a range of something else")
    return value


def _edges(value: Json, kind: str) -> Expr:
    low, high = (constant(_plain(edge), kind) for edge in value)
    if isinstance(low, Const) and isinstance(high, Const):
        return Range(low=low.value, high=high.value)
    raise Strange("a range of something else")


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
    "prefix": lambda value, _: Prefix(address=value["addr"], length=value["len"]),
    "range": _edges,
    "set": lambda value, kind: Elements(
        items=tuple(expression(_bare(each), kind) for each in value)
    ),
    "elem": lambda value, kind: expression(value["val"], kind),
    "map": _map,
    "numgen": lambda value, _: NumGen(
        mode=value["mode"], mod=value["mod"], offset=value.get("offset", 0)
    ),
    "jhash": _hash("jhash"),
    "symhash": _hash("symhash"),
    "fib": lambda value, _: Fib(result=value["result"], flags=_as_list(value["flags"])),
    "&": _binary("and"),
    "|": _binary("or"),
    "^": _binary("xor"),
    "<<": _binary("lshift"),
    ">>": _binary("rshift"),
}

# --- statements -------------------------------------------------------------------------------

_OPERATORS = {"==", "!=", "<", ">", "<=", ">="}


def _match(value: Json) -> Part:
    op, left = value["op"], expression(value["left"])
    right = expression(value["right"], _kinds(left))
    if isinstance(value["right"], list):
        right = _ored(right)
    if op in ("in", "!"):
        return _any_bit(left, right, wanted=op == "in")
    if op not in _OPERATORS or (isinstance(value["right"], list) and right != _ored(right)):
        raise Strange(op)
    return Test(left=left, op=cast(Op, op), right=right)


def _any_bit(left: Expr, right: Expr, wanted: bool) -> Part:
    """Flags: any of them set. Where they are numbers that is an arithmetic test."""
    bits = _ored(right)
    if isinstance(bits, Const) and isinstance(bits.value, int):
        masked = Bits(op="and", left=left, right=bits)
        return Test(left=masked, op="!=" if wanted else "==", right=Const(value=0))
    items = right if isinstance(right, Elements) else Elements(items=(right,))
    return Test(left=left, op="in" if wanted else "not in", right=items)


def _verdict(name: str, value: Json) -> Verdict:
    if name in ("jump", "goto"):
        return Verdict(kind=name, chain=value["target"])  # type: ignore[arg-type]
    return Verdict(kind=name)  # type: ignore[arg-type]


_VERDICTS = ("accept", "drop", "continue", "return", "jump", "goto", "queue")


def _vmap(value: Json) -> Part:
    key = expression(value["key"])
    return VerdictMap(key=key, map=_mapping(value["data"], _kinds(key)))


def _nat(kind: Callable[..., Part]) -> Callable[[Json], Part]:
    def read(value: Json) -> Part:
        return kind(
            addr=expression(value["addr"]) if "addr" in value else None,
            port=expression(value["port"]) if "port" in value else None,
            flags=_as_list(value.get("flags")) + _as_list(value.get("type_flags")),
        )

    return read


def _port_nat(kind: Callable[..., Part]) -> Callable[[Json], Part]:
    def read(value: Json) -> Part:
        given = value or {}
        port = expression(given["port"]) if "port" in given else None
        return kind(port=port, flags=_as_list(given.get("flags")))

    return read


def _reject(value: Json) -> Part:
    """Without arguments: icmpx port-unreachable (reject_stmt_evaluate)."""
    given = value or {}
    kind = given.get("type", "icmpx")
    if kind == "tcp reset":
        return Reject(reply=kind)
    return Reject(reply=f"{kind} {given.get('expr', 'port-unreachable')}")


def _mangle(value: Json) -> Part:
    target = expression(value["key"])
    if not isinstance(target, Field):
        raise Strange("an assignment to something else")
    return Assign(field=target, value=expression(value["value"], target.key))


def _limit(value: Json) -> Part:
    if isinstance(value, str):
        return Limit(rate=value)
    rate = f"{value['rate']}{value.get('rate_unit', '')}/{value['per']}"
    return Limit(rate=rate, burst=value.get("burst", 0), over=bool(value.get("inv")))


def _set_update(value: Json) -> Part:
    if any(_single(each)[0] != "counter" for each in value.get("stmt", ())):
        raise Strange("a statement in the element may end the rule")
    element = value["elem"]
    inner = element["elem"] if _single(element)[0] == "elem" else {"val": element}
    return SetUpdate(
        op=value["op"],
        set=SetRef(name=(value.get("set") or value["map"]).removeprefix("@")),
        key=expression(inner["val"]),
        timeout=inner.get("timeout"),
        data=datum(value["data"]) if "data" in value else None,
    )


def _tproxy(value: Json) -> Part:
    return Tproxy(
        addr=expression(value["addr"]) if "addr" in value else None,
        port=expression(value["port"]) if "port" in value else None,
    )


def _log(value: Json) -> Part:
    given = value or {}
    return Log(prefix=given.get("prefix", ""), group=given.get("group"))


def _counter(value: Json) -> Part:
    return Count(name=value if isinstance(value, str) else "")


def _xt(value: Json) -> Part:
    """What iptables-nft wrote. Only the name is told; of these a comment is always true."""
    if value["name"] != "comment":
        raise Strange(value["name"])
    return Harmless(text="xt comment")


def _is_target(value: Json) -> bool:
    return isinstance(value, dict) and value.get("type") == "target"


def _harmless(name: str) -> Callable[[Json], Part]:
    return lambda value: Harmless(text=f"{name} {json.dumps(value, sort_keys=True)}")


def _verdicts(name: str) -> Callable[[Json], Part]:
    return lambda value: _verdict(name, value)


_HARMLESS: Iterable[str] = ("ct helper", "ct timeout", "ct expectation", "flow", "dup", "last")
_STATEMENTS: dict[str, Callable[[Json], Part]] = {
    **{name: _verdicts(name) for name in _VERDICTS},
    **{name: _harmless(name) for name in _HARMLESS},
    "match": _match,
    "vmap": _vmap,
    "dnat": _nat(Dnat),
    "snat": _nat(Snat),
    "masquerade": _port_nat(Masquerade),
    "redirect": _port_nat(Redirect),
    "reject": _reject,
    "mangle": _mangle,
    "counter": _counter,
    "limit": _limit,
    "set": _set_update,
    "map": _set_update,
    "notrack": lambda value: NoTrack(),
    "tproxy": _tproxy,
    "log": _log,
    "xt": _xt,
}
_NO_MATCH = frozenset({"fwd", "synproxy", "secmark", "reset", "mangle", "dnat", "snat", "tproxy"})

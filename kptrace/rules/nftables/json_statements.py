"""One rule of ``nft -j`` JSON -> its parts. libnftables-json(5) is the grammar.

Comes in: the decoded ``expr`` list of a rule. Goes out: its body. Each statement has its entry in a
table; what is not in the table, or not of the shape that we know, becomes Opaque with its own JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import cast

from kptrace.rules.model.expressions import (
    AnonymousSet,
    BitwiseExpr,
    Comparison,
    Const,
    Count,
    Dnat,
    Expr,
    Fib,
    Field,
    Limit,
    Log,
    Masquerade,
    NoEffect,
    NoTrack,
    Op,
    Part,
    Redirect,
    Reject,
    SetField,
    SetRef,
    SetUpdate,
    Snat,
    Tproxy,
    UnknownStatement,
    VerdictMap,
)
from kptrace.rules.nftables.json_expressions import (
    VERDICTS,
    Json,
    UnknownExpressionError,
    datum,
    expression,
    kinds,
    listed,
    mapping,
    ored,
    single,
    verdict,
)


def body(statements: Sequence[Json]) -> tuple[Part, ...]:
    return tuple(_statement(each) for each in statements)


def _statement(given: Json) -> Part:
    name, value = single(given)
    reader = _STATEMENTS.get(name)
    try:
        if reader is not None:
            return reader(value)
    except (UnknownExpressionError, LookupError, TypeError, ValueError, AttributeError):
        pass
    ends = name not in _NO_MATCH and not (name == "xt" and _is_target(value))
    return UnknownStatement(text=json.dumps(given, sort_keys=True), match=ends)


_OPERATORS = {"==", "!=", "<", ">", "<=", ">="}


def _match(value: Json) -> Part:
    op, left = value["op"], expression(value["left"])
    if isinstance(left, Fib) and isinstance(value["right"], bool):  # exists, missing
        left = Fib(result="check", flags=left.flags)
    right = expression(value["right"], kinds(left))
    if isinstance(value["right"], list):
        right = ored(right)
    if op in ("in", "!"):
        return _any_bit(left, right, wanted=op == "in")
    if op not in _OPERATORS or (isinstance(value["right"], list) and right != ored(right)):
        raise UnknownExpressionError(op)
    return Comparison(left=left, op=cast(Op, op), right=right)


def _any_bit(left: Expr, right: Expr, wanted: bool) -> Part:
    """Flags: any of them set. Where they are numbers that is an arithmetic test."""
    bits = ored(right)
    if isinstance(bits, Const) and isinstance(bits.value, int):
        masked = BitwiseExpr(op="and", left=left, right=bits)
        return Comparison(left=masked, op="!=" if wanted else "==", right=Const(value=0))
    items = right if isinstance(right, AnonymousSet) else AnonymousSet(items=(right,))
    return Comparison(left=left, op="in" if wanted else "not in", right=items)


def _vmap(value: Json) -> Part:
    key = expression(value["key"])
    return VerdictMap(key=key, map=mapping(value["data"], kinds(key)))


def _nat(kind: Callable[..., Part]) -> Callable[[Json], Part]:
    def read(value: Json) -> Part:
        return kind(
            addr=expression(value["addr"]) if "addr" in value else None,
            port=expression(value["port"]) if "port" in value else None,
            flags=listed(value.get("flags")) + listed(value.get("type_flags")),
            family=value.get("family", ""),
        )

    return read


def _port_nat(kind: Callable[..., Part]) -> Callable[[Json], Part]:
    def read(value: Json) -> Part:
        given = value or {}
        port = expression(given["port"]) if "port" in given else None
        return kind(port=port, flags=listed(given.get("flags")))

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
        raise UnknownExpressionError("an assignment to something else")
    return SetField(field=target, value=expression(value["value"], target.key))


def _limit(value: Json) -> Part:
    if isinstance(value, str):
        return Limit(rate=value)
    rate = f"{value['rate']}{value.get('rate_unit', '')}/{value['per']}"
    return Limit(rate=rate, burst=value.get("burst", 0), over=bool(value.get("inv")))


def _set_update(value: Json) -> Part:
    if any(single(each)[0] != "counter" for each in value.get("stmt", ())):
        raise UnknownExpressionError("a statement in the element may end the rule")
    element = value["elem"]
    inner = element["elem"] if single(element)[0] == "elem" else {"val": element}
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
        raise UnknownExpressionError(value["name"])
    return NoEffect(text="xt comment")


def _is_target(value: Json) -> bool:
    return isinstance(value, dict) and value.get("type") == "target"


def _harmless(name: str) -> Callable[[Json], Part]:
    return lambda value: NoEffect(text=f"{name} {json.dumps(value, sort_keys=True)}")


def _verdicts(name: str) -> Callable[[Json], Part]:
    return lambda value: verdict(name, value)


_HARMLESS: Iterable[str] = ("ct helper", "ct timeout", "ct expectation", "flow", "dup", "last")
_STATEMENTS: dict[str, Callable[[Json], Part]] = {
    **{name: _verdicts(name) for name in VERDICTS},
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

"""Read the statements of ``nft -j`` JSON (libnftables-json(5), "Statements").

A statement without an entry in the table, or of another shape, becomes an UnknownStatement with its
own JSON.
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
    RandomMatch,
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
    as_tuple,
    expression,
    key_kinds,
    map_data,
    map_reference,
    only_item,
    or_flags,
    verdict,
)


def body(statements: Sequence[Json]) -> tuple[Part, ...]:
    """The body of a rule, from its decoded ``expr`` list."""
    return tuple(_statement(item) for item in statements)


def _statement(tree: Json) -> Part:
    name, value = only_item(tree)
    reader = _STATEMENTS.get(name)
    try:
        if reader is not None:
            return reader(value)
    except (UnknownExpressionError, LookupError, TypeError, ValueError, AttributeError):
        pass
    ends = name not in _NO_MATCH and not (name == "xt" and _is_target(value))
    return UnknownStatement(text=json.dumps(tree, sort_keys=True), match=ends)


_OPERATORS = {"==", "!=", "<", ">", "<=", ">="}


def _match(value: Json) -> Part:
    op, left = value["op"], expression(value["left"])
    if isinstance(left, Fib) and isinstance(value["right"], bool):  # exists, missing
        left = Fib(result="check", flags=left.flags)
    right = expression(value["right"], key_kinds(left))
    if op == "<" and (probability := _probability(left, right)) is not None:
        return RandomMatch(probability=probability)
    if isinstance(value["right"], list):
        right = or_flags(right)
    if op in ("in", "!"):
        return _any_bit(left, right, expected=op == "in")
    if op not in _OPERATORS or (isinstance(value["right"], list) and right != or_flags(right)):
        raise UnknownExpressionError(op)
    return Comparison(left=left, op=cast(Op, op), right=right)


def _probability(left: Expr, right: Expr) -> float | None:
    """``meta random < N``: a random number of 32 bits, or under a mask of fewer.

    iptables-nft's ``-m statistic --mode random`` is listed so (statistic_xlate).
    """
    bits = 1 << 32
    if isinstance(left, BitwiseExpr) and left.op == "and" and isinstance(left.right, Const):
        bits, left = int(left.right.value) + 1, left.left
    if left != Field(key="meta random") or not isinstance(right, Const):
        return None
    return int(right.value) / bits if bits.bit_count() == 1 else None


def _any_bit(left: Expr, right: Expr, expected: bool) -> Part:
    """A test for any of some flags; for flags that are numbers an arithmetic test."""
    bits = or_flags(right)
    if isinstance(bits, Const) and isinstance(bits.value, int):
        masked = BitwiseExpr(op="and", left=left, right=bits)
        return Comparison(left=masked, op="!=" if expected else "==", right=Const(value=0))
    items = right if isinstance(right, AnonymousSet) else AnonymousSet(items=(right,))
    return Comparison(left=left, op="in" if expected else "not in", right=items)


def _vmap(value: Json) -> Part:
    key = expression(value["key"])
    return VerdictMap(key=key, map=map_reference(value["data"], key_kinds(key)))


def _nat(kind: Callable[..., Part]) -> Callable[[Json], Part]:
    def read(value: Json) -> Part:
        return kind(
            addr=expression(value["addr"]) if "addr" in value else None,
            port=expression(value["port"]) if "port" in value else None,
            flags=as_tuple(value.get("flags")) + as_tuple(value.get("type_flags")),
            family=value.get("family", ""),
        )

    return read


def _port_nat(kind: Callable[..., Part]) -> Callable[[Json], Part]:
    def read(value: Json) -> Part:
        options = value or {}
        port = expression(options["port"]) if "port" in options else None
        return kind(port=port, flags=as_tuple(options.get("flags")))

    return read


def _reject(value: Json) -> Part:
    """Without arguments: icmpx port-unreachable (reject_stmt_evaluate)."""
    options = value or {}
    kind = options.get("type", "icmpx")
    if kind == "tcp reset":
        return Reject(reply=kind)
    return Reject(reply=f"{kind} {options.get('expr', 'port-unreachable')}")


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
    if any(only_item(item)[0] != "counter" for item in value.get("stmt", ())):
        raise UnknownExpressionError("a statement in the element may end the rule")
    element = value["elem"]
    inner = element["elem"] if only_item(element)[0] == "elem" else {"val": element}
    return SetUpdate(
        op=value["op"],
        set=SetRef(name=(value.get("set") or value["map"]).removeprefix("@")),
        key=expression(inner["val"]),
        timeout=inner.get("timeout"),
        data=map_data(value["data"]) if "data" in value else None,
    )


def _tproxy(value: Json) -> Part:
    return Tproxy(
        addr=expression(value["addr"]) if "addr" in value else None,
        port=expression(value["port"]) if "port" in value else None,
    )


def _log(value: Json) -> Part:
    options = value or {}
    return Log(prefix=options.get("prefix", ""), group=options.get("group"))


def _counter(value: Json) -> Part:
    return Count(name=value if isinstance(value, str) else "")


def _xt(value: Json) -> Part:
    """A match or target of iptables-nft, listed by its name only; a comment is always true."""
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

"""The matches of a rule -> the reason why it matched, in plain English.

Comes in: the body of a rule. Goes out: ``explain_match(body)``, for example ``the source is outside
10.244.0.0/16 and the connection is new``; empty for a rule that matches everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kptrace.rules.model.expressions import (
    AnonymousSet,
    AnyOf,
    BitwiseExpr,
    Comparison,
    Concat,
    Const,
    Expr,
    Fib,
    Field,
    InterfaceWildcard,
    Limit,
    Masked,
    NthMatch,
    Part,
    Prefix,
    Range,
    Recent,
    SetRef,
    Socket,
    UnknownStatement,
)

_THINGS = {
    "ip saddr": "the source",
    "ip6 saddr": "the source",
    "ip daddr": "the destination",
    "ip6 daddr": "the destination",
    "th sport": "the source port",
    "th dport": "the port",
    "meta l4proto": "the protocol",
    "meta iifname": "the way in",
    "meta oifname": "the way out",
    "meta iif": "the way in",
    "meta oif": "the way out",
    "meta mark": "the mark",
    "ct mark": "the connection's mark",
    "physdev in": "the bridge port in",
    "physdev out": "the bridge port out",
    "meta skuid": "the sender's user",
    "meta nfproto": "the family",
}
_STATES = {"snat": "SNATed", "dnat": "DNATed"}


def explain_match(body: Iterable[Part]) -> str:
    """All conditions, joined; protocol and port as one."""
    tests = list(body)
    ports = {_transport(part) for part in tests}
    said = [phrase for part in tests if not _told(part, ports) and (phrase := condition(part))]
    return " and ".join(said)


def _transport(part: Part) -> str:
    """The protocol whose port a test names (``tcp dport``)."""
    if isinstance(part, Comparison) and isinstance(part.left, Field):
        protocol, _, name = part.left.key.partition(" ")
        return protocol if name in ("sport", "dport") else ""
    return ""


def _told(part: Part, ports: set[str]) -> bool:
    """Whether another test says it: the protocol is told with the port."""
    match part:
        case Comparison(left=Field(key="meta l4proto"), op="==", right=Const(value=value)):
            return value in ports
        case _:
            return False


def condition(part: Part) -> str:
    match part:
        case Comparison():
            return _test(part)
        case AnyOf(tests=tests, negated=negated):
            either = " or ".join(map(_test, tests))
            return f"not ({either})" if negated else either
        case NthMatch(every=every):
            return f"it is one in {every}"
        case Recent(action="set"):
            return ""
        case Recent(list=name, negated=negated):
            return f"the client is {'not ' if negated else ''}on the list {name}"
        case Limit(rate=rate, over=over):
            return f"the rate is {'over' if over else 'within'} {rate}"
        case Socket():
            return "a local socket takes it"
        case UnknownStatement(text=text, match=True):
            return f"perhaps {text}"
        case _:
            return ""


_LEAST = 2**-31  # the least that xt_statistic can keep


def chance(probability: float) -> str:
    """iptables keeps 31 bits of a probability, so thirds come back a little off."""
    share = round(1 / probability) if probability > _LEAST else 0
    if share and abs(probability * share - 1) < 1e-6:
        return f"1 in {share} chance"
    return f"{probability:.0%} chance"


def _test(test: Comparison) -> str:
    yes = test.op in ("==", "in")
    match test.left:
        case Field(key="ct state"):
            return f"the connection {'is' if yes else 'is not'} {_flags(test.right)}"
        case Field(key="ct status"):
            return f"the connection {'was' if yes else 'was not'} {_flags(test.right)}"
        case Fib(result="type" | "types", flags=flags):
            return _fib_type(flags, test.right, yes)
        case Fib(result="check", flags=flags) if "saddr" in flags:
            missing = yes == (test.right == Const(value=0))
            return f"the way back {'fails' if missing else 'is there'}"
        case Fib(flags=flags) if "saddr" in flags:
            return f"the way back {'fails' if yes else 'is there'}"
        case BitwiseExpr(op="and", left=Field(key=key), right=mask) if key in (
            "meta mark",
            "ct mark",
        ):
            return _mark(_THINGS[key], mask, test.right, yes)
        case Field(key=key) if key.endswith((" sport", " dport")) and key not in _THINGS:
            return _compared(
                f"{key.replace('dport', 'port').replace('sport', 'source port')}", test
            )
        case Concat(parts=parts):
            things = " and ".join(_thing(each).removeprefix("the ") for each in _telling(parts))
            return f"{things} {'are' if yes else 'are not'} in {_set(test.right)}"
        case Field(key=key) if key.startswith("physdev is-"):
            which = {"in": "came in by", "out": "leaves by", "bridged": "crosses"}
            verb = which.get(key.removeprefix("physdev is-"), "uses")
            return f"it {verb} {'a' if yes else 'no'} bridge{'' if 'bridged' in key else ' port'}"
        case left:
            return _compared(_thing(left), test)


def _telling(parts: Sequence[Expr]) -> list[Expr]:
    """A port stands for its protocol too."""
    return [part for part in parts if part != Field(key="meta l4proto")]


def _thing(expr: Expr) -> str:
    match expr:
        case Field(key=key):
            return _THINGS.get(key, key)
        case BitwiseExpr(left=left):
            return _thing(left)
        case _:
            return "it"


def _compared(thing: str, test: Comparison) -> str:
    """``the source is outside 10.0.0.0/8``"""
    verb = _VERBS.get(test.op, test.op)
    match test.right:
        case Prefix() | Range(low=str()):
            inside = "is in" if test.op == "==" else "is outside"
            return f"{thing} {inside} {value(test.right)}"
        case SetRef() | AnonymousSet():
            return f"{thing} {'is' if test.op in ('==', 'in') else 'is not'} in {_set(test.right)}"
        case right:
            return f"{thing} {verb} {value(right)}"


_VERBS = {"==": "is", "!=": "is not", "<": "is below", ">": "is above", "in": "is"}
_VERBS |= {"<=": "is at most", ">=": "is at least", "not in": "is not"}


def _set(expr: Expr) -> str:
    return f"set {expr.name}" if isinstance(expr, SetRef) else value(expr)


def _flags(expr: Expr) -> str:
    items: Sequence[Expr] = expr.items if isinstance(expr, AnonymousSet) else (expr,)
    return " or ".join(_STATES.get(word := value(item), word) for item in items)


def _fib_type(flags: Sequence[str], right: Expr, yes: bool) -> str:
    thing = "the source" if "saddr" in flags else "the destination"
    local = Const(value="local")
    here = right in (local, AnonymousSet(items=(local,)))
    kind = "this node" if here else f"of kind {value(right)}"
    return f"{thing} is {'' if yes else 'not '}{kind}"


def _mark(thing: str, mask: Expr, right: Expr, yes: bool) -> str:
    if right in (Const(value=0), mask):
        has = yes == (right == mask)
        return f"{thing} {'has' if has else 'lacks'} {hexadecimal(mask)}"
    return f"{thing} {'is' if yes else 'is not'} {hexadecimal(right)}/{hexadecimal(mask)}"


def hexadecimal(expr: Expr) -> str:
    return (
        hex(expr.value) if isinstance(expr, Const) and isinstance(expr.value, int) else value(expr)
    )


_SHOWN: dict[type, Callable[..., str]] = {
    Masked: lambda expr: f"{expr.address}/{expr.mask}",
    Const: lambda expr: str(expr.value),
    Prefix: lambda expr: f"{expr.address}/{expr.length}",
    Range: lambda expr: f"{expr.low}-{expr.high}",
    InterfaceWildcard: lambda expr: f"{expr.start}*",
    SetRef: lambda expr: expr.name,
    AnonymousSet: lambda expr: ", ".join(map(value, expr.items)),
    Concat: lambda expr: " . ".join(map(value, expr.parts)),
    Field: lambda expr: _thing(expr),
}


def value(expr: Expr) -> str:
    shown = _SHOWN.get(type(expr))
    return shown(expr) if shown else "something computed"

"""Explain why a rule matched, for example ``the source is outside 10.244.0.0/16 and the connection
is new``.
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

_SUBJECTS = {
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
    """All conditions of a rule's body, joined; empty for a rule that matches everything."""
    tests = list(body)
    ports = {_transport(part) for part in tests}
    phrases = [
        phrase
        for part in tests
        if not _is_implied(part, ports) and (phrase := explain_condition(part))
    ]
    return " and ".join(phrases)


def _transport(part: Part) -> str:
    """The protocol whose port a test names (``tcp dport``)."""
    if isinstance(part, Comparison) and isinstance(part.left, Field):
        protocol, _, name = part.left.key.partition(" ")
        return protocol if name in ("sport", "dport") else ""
    return ""


def _is_implied(part: Part, ports: set[str]) -> bool:
    """Whether another test implies this one: a port implies its protocol."""
    match part:
        case Comparison(left=Field(key="meta l4proto"), op="==", right=Const(value=value)):
            return value in ports
        case _:
            return False


def explain_condition(part: Part) -> str:
    """One condition as a phrase; empty for a statement and for what is always true."""
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


_MIN_PROBABILITY = 2**-31  # the smallest that xt_statistic can keep


def chance_text(probability: float) -> str:
    """A probability as ``1 in 3 chance`` or ``40% chance``.

    iptables keeps 31 bits of a probability, so a third comes back a little off.
    """
    share = round(1 / probability) if probability > _MIN_PROBABILITY else 0
    if share and abs(probability * share - 1) < 1e-6:
        return f"1 in {share} chance"
    return f"{probability:.0%} chance"


def _test(test: Comparison) -> str:
    expected = test.op in ("==", "in")
    match test.left:
        case Field(key="ct state"):
            return f"the connection {'is' if expected else 'is not'} {_flags(test.right)}"
        case Field(key="ct status"):
            return f"the connection {'was' if expected else 'was not'} {_flags(test.right)}"
        case Fib(result="type" | "types", flags=flags):
            return _fib_type(flags, test.right, expected)
        case Fib(result="check", flags=flags) if "saddr" in flags:
            missing = expected == (test.right == Const(value=0))
            return f"the way back {'fails' if missing else 'is there'}"
        case Fib(flags=flags) if "saddr" in flags:
            return f"the way back {'fails' if expected else 'is there'}"
        case BitwiseExpr(op="and", left=Field(key=key), right=mask) if key in (
            "meta mark",
            "ct mark",
        ):
            return _mark(_SUBJECTS[key], mask, test.right, expected)
        case Field(key=key) if key.endswith((" sport", " dport")) and key not in _SUBJECTS:
            return _compared(
                f"{key.replace('dport', 'port').replace('sport', 'source port')}", test
            )
        case Concat(parts=parts):
            subjects = " and ".join(
                _subject(part).removeprefix("the ") for part in _without_protocol(parts)
            )
            return f"{subjects} {'are' if expected else 'are not'} in {_set_text(test.right)}"
        case Field(key=key) if key.startswith("physdev is-"):
            which = {"in": "came in by", "out": "leaves by", "bridged": "crosses"}
            verb = which.get(key.removeprefix("physdev is-"), "uses")
            return (
                f"it {verb} {'a' if expected else 'no'} bridge{'' if 'bridged' in key else ' port'}"
            )
        case left:
            return _compared(_subject(left), test)


def _without_protocol(parts: Sequence[Expr]) -> list[Expr]:
    """The parts of a key but for the protocol, which a port implies."""
    return [part for part in parts if part != Field(key="meta l4proto")]


def _subject(expr: Expr) -> str:
    match expr:
        case Field(key=key):
            return _SUBJECTS.get(key, key)
        case BitwiseExpr(left=left):
            return _subject(left)
        case _:
            return "it"


def _compared(subject: str, test: Comparison) -> str:
    """``the source is outside 10.0.0.0/8``"""
    verb = _VERBS.get(test.op, test.op)
    match test.right:
        case Prefix() | Range(low=str()):
            inside = "is in" if test.op == "==" else "is outside"
            return f"{subject} {inside} {value_text(test.right)}"
        case SetRef() | AnonymousSet():
            is_in = "is in" if test.op in ("==", "in") else "is not in"
            return f"{subject} {is_in} {_set_text(test.right)}"
        case right:
            return f"{subject} {verb} {value_text(right)}"


_VERBS = {"==": "is", "!=": "is not", "<": "is below", ">": "is above", "in": "is"}
_VERBS |= {"<=": "is at most", ">=": "is at least", "not in": "is not"}


def _set_text(expr: Expr) -> str:
    return f"set {expr.name}" if isinstance(expr, SetRef) else value_text(expr)


def _flags(expr: Expr) -> str:
    items: Sequence[Expr] = expr.items if isinstance(expr, AnonymousSet) else (expr,)
    return " or ".join(_STATES.get(word := value_text(item), word) for item in items)


def _fib_type(flags: Sequence[str], right: Expr, expected: bool) -> str:
    subject = "the source" if "saddr" in flags else "the destination"
    local = Const(value="local")
    is_local = right in (local, AnonymousSet(items=(local,)))
    kind = "this node" if is_local else f"of kind {value_text(right)}"
    return f"{subject} is {'' if expected else 'not '}{kind}"


def _mark(subject: str, mask: Expr, right: Expr, expected: bool) -> str:
    if right in (Const(value=0), mask):
        has = expected == (right == mask)
        return f"{subject} {'has' if has else 'lacks'} {hex_text(mask)}"
    return f"{subject} {'is' if expected else 'is not'} {hex_text(right)}/{hex_text(mask)}"


def hex_text(expr: Expr) -> str:
    """A number in hexadecimal; any other value as ``value_text``."""
    return (
        hex(expr.value)
        if isinstance(expr, Const) and isinstance(expr.value, int)
        else value_text(expr)
    )


_FORMATS: dict[type, Callable[..., str]] = {
    Masked: lambda expr: f"{expr.address}/{expr.mask}",
    Const: lambda expr: str(expr.value),
    Prefix: lambda expr: f"{expr.address}/{expr.length}",
    Range: lambda expr: f"{expr.low}-{expr.high}",
    InterfaceWildcard: lambda expr: f"{expr.start}*",
    SetRef: lambda expr: expr.name,
    AnonymousSet: lambda expr: ", ".join(map(value_text, expr.items)),
    Concat: lambda expr: " . ".join(map(value_text, expr.parts)),
    Field: lambda expr: _subject(expr),
}


def value_text(expr: Expr) -> str:
    """A value as iptables and nft print it."""
    shown = _FORMATS.get(type(expr))
    return shown(expr) if shown else "something computed"

"""Expressions and matches of a rule, evaluated for one packet.

Chance (``statistic``, ``numgen``, ``jhash``) is picked by weight, what cannot be evaluated is
guessed both ways; both through ``BranchPoints``, so the caller reads as if it knew.

A field that the packet does not have makes its comparison false whatever the operator
(rules/model/expressions.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from kptrace.model import NoteKind
from kptrace.model.addresses import address
from kptrace.rules.model.expressions import (
    AnonymousMap,
    AnonymousSet,
    AnyOf,
    BitwiseExpr,
    Comparison,
    Concat,
    Const,
    Count,
    Expr,
    Fib,
    Field,
    Hash,
    InterfaceWildcard,
    Limit,
    Log,
    MapElement,
    MapLookup,
    Masked,
    Match,
    NoEffect,
    NthMatch,
    NumGen,
    Part,
    Prefix,
    RandomMatch,
    Range,
    Recent,
    SetRef,
    Socket,
    UnknownStatement,
    Verdict,
)
from kptrace.rules.model.ruleset import Rule
from kptrace.rules.model.sets import Element, SetElements, key_parts, pattern_matches
from kptrace.simulate.branching import BranchPoints
from kptrace.simulate.ip.routing import (
    RouteQuery,
    address_kinds,
    address_type,
    lookup,
    reverse_path,
)
from kptrace.simulate.ip.skb import Skb
from kptrace.simulate.netfilter.fields import ABSENT, UNKNOWN, Datum, MissingField, read_field
from kptrace.simulate.snapshot.snapshot import Snapshot

Keyed = tuple[str | int | MissingField, ...]
Plain = Datum | Keyed
Spread = list[tuple[float, Plain]]

_PASSIVE = (RandomMatch, NthMatch, Limit, Recent, Socket, UnknownStatement, Count, Log, NoEffect)

_STATUS = Field(key="ct status")

# a numgen of more values than this is not spread out but guessed
_NUMGEN_LIMIT = 1 << 16


class EvalContext(msgspec.Struct):
    """What a rule is evaluated with. ``add_note`` is called for what had to be assumed."""

    skb: Skb
    snapshot: Snapshot
    choices: BranchPoints
    rule: Rule
    add_note: Callable[[NoteKind, str], None]

    # --- matches ------------------------------------------------------------------------------

    def excluded(self, body: Iterable[Part]) -> bool:
        """Whether one of the tests that a rule begins with is surely false.

        Then it does not matter that another of its matches cannot be evaluated.
        """
        for part in body:
            if isinstance(part, Comparison | AnyOf):
                if self._probability(part) == 0:
                    return True
            elif not isinstance(part, _PASSIVE):
                return False
        return False

    def matches(self, part: Match | UnknownStatement) -> bool:
        """Whether the match is true; what is chance or cannot be evaluated forks the branch."""
        match part:
            case RandomMatch(probability=probability):
                return self._toss(probability)
            case NthMatch(every=every, negated=negated):
                return self._toss(1 / max(every, 1)) != negated
            case Limit(over=over):
                return not over
            case Recent():
                return self._recent(part)
            case Socket() | UnknownStatement():
                return self._guess(part)
        likely = self._probability(part)
        return self._guess(part) if likely is None else self._toss(likely)

    def _toss(self, probability: float) -> bool:
        likely = round(min(max(probability, 0.0), 1.0), 12)  # sums of 1/3 are not quite 1
        return self.choices.pick([likely, 1 - likely]) == 0

    def _guess(self, part: Match | UnknownStatement) -> bool:
        skb = self.skb
        about = (skb.netns, part, skb.packet, skb.iif, skb.oif, skb.physin, skb.physout)
        return self.choices.guess(about) == 0

    def _recent(self, part: Recent) -> bool:
        """Whether a ``recent`` match is true for a client that its list does not hold.

        The list is in no save file; a client that was not there lately is the usual case.
        """
        if part.action == "set":
            return not part.negated
        if part.action in ("rcheck", "update"):
            self.add_note(
                NoteKind.NEW_CLIENT_ASSUMED,
                "as a client that its lists of recent ones do not hold (no dump has them)",
            )
        return part.negated

    def _probability(self, part: Match) -> float | None:
        """Return how likely the match is; None where it cannot be evaluated."""
        if isinstance(part, AnyOf):
            probabilities = [self._probability(test) for test in part.tests]
            if any(probability == 1 for probability in probabilities):
                return float(not part.negated)
            return None if None in probabilities else float(part.negated)
        assert isinstance(part, Comparison)
        if part.left == _STATUS and part.op in ("==", "!="):
            return None  # its whole value has bits that no dump tells
        total, masked = 0.0, isinstance(part.left, BitwiseExpr)
        for weight, left in self.spread(part.left):
            truth = self._compare(left, part.op, part.right, masked)
            if truth is None:
                return None
            total += weight * truth
        return total

    def _compare(self, left: Plain, op: str, right: Expr, masked: bool = False) -> bool | None:
        """Return the truth of a comparison; None where it cannot be evaluated.

        masked: only some flags are asked about, and these wholly
        """
        if left is ABSENT:  # ip_set_test() calls that not in the set, which may be what is asked
            return op == "!=" and isinstance(right, SetRef) and right.ipset
        if left is UNKNOWN and not isinstance(right, SetRef):
            return None
        match op:
            case "==" | "!=" if masked and isinstance(left, frozenset):
                names = self._names(right)
                return None if names is None else (left == names - {"0"}) == (op == "==")
            case "==" | "!=":
                inside = self._inside(left, right)
                return None if inside is None else inside == (op == "==")
            case "in" | "not in":
                named = self._names(right)
                if named is None or not isinstance(left, frozenset):
                    return None
                return bool(left & named) == (op == "in")
            case _:
                return _ordered(left, op, self.value(right))

    def _inside(self, left: Plain, right: Expr) -> bool | None:
        """Whether the value is one of those that the right side stands for; None: not known."""
        match right:
            case AnonymousSet(items=items):
                return _any_true(self._inside(left, item) for item in items)
            case SetRef():
                return self._member(left, right)
            case Concat(parts=parts) if isinstance(left, tuple):
                if len(parts) != len(left):
                    return False
                return _all_true(self._inside(*pair) for pair in zip(left, parts, strict=True))
            case Concat() if left is UNKNOWN:
                return None
            case Const(value=value) if isinstance(left, frozenset):
                return value in left
            case Const() | Prefix() | Masked() | Range() | InterfaceWildcard():
                if isinstance(left, MissingField):
                    return None
                if isinstance(left, (tuple, frozenset)):
                    return False
                return pattern_matches(right, left)
        other = self.value(right)
        return None if isinstance(other, MissingField) else left == other

    def _member(self, left: Plain, ref: SetRef) -> bool | None:
        named_set = self.snapshot.ruleset.referenced_set(self.rule, ref)
        if named_set is None or isinstance(left, frozenset):
            return None
        element = _find_element(left if isinstance(left, tuple) else (left,), named_set.members)
        return None if element is UNKNOWN else element is not ABSENT

    def _names(self, right: Expr) -> frozenset[str] | None:
        items = right.items if isinstance(right, AnonymousSet) else (right,)
        names = [item.value for item in items if isinstance(item, Const)]
        return frozenset(map(str, names)) if len(names) == len(items) else None

    # --- values -------------------------------------------------------------------------------

    def value(self, expr: Expr) -> Plain:
        """Return the value of an expression; where there are several by chance, one of them."""
        spread = self.spread(expr)
        if len(spread) == 1:
            return spread[0][1]
        return spread[self.choices.pick([weight for weight, _ in spread])][1]

    def spread(self, expr: Expr) -> Spread:
        """Return every value that the expression can have, each with its weight."""
        match expr:
            case NumGen(mod=mod, offset=offset) | Hash(mod=mod, offset=offset):
                if not 0 < mod <= _NUMGEN_LIMIT:
                    return [(1.0, UNKNOWN)]
                return [(1 / mod, number + offset) for number in range(mod)]
            case BitwiseExpr(left=left, right=right, op=op):
                names, mask = self._names(right), self.value(right)
                return [
                    (weight, value & names)
                    if isinstance(value, frozenset) and names is not None and op == "and"
                    else (weight, _bits(op, value, mask))
                    for weight, value in self.spread(left)
                ]
            case MapLookup(key=key, map=entries):
                return self._looked_up(key, entries)
        return [(1.0, self._single(expr))]

    def _single(self, expr: Expr) -> Plain:
        match expr:
            case Const(value=value):
                return value
            case Field(key=key):
                return read_field(key, self.skb, self.snapshot)
            case Concat(parts=parts):
                return _concatenate([self.value(part) for part in parts])
            case Fib():
                return self._fib(expr)
            case Range(low=low, high=high):
                return low if low == high else UNKNOWN
            case _:
                return UNKNOWN

    def _looked_up(self, key: Expr, entries: SetRef | AnonymousMap) -> Spread:
        spread: Spread = []
        for weight, element in self.elements(key, entries):
            if isinstance(element, MissingField):
                spread.append((weight, element))
            elif isinstance(element.data, Verdict) or element.data is None:
                spread.append((weight, UNKNOWN))
            else:
                spread.append((weight, self.value(element.data)))
        return spread

    def elements(
        self, key: Expr, entries: SetRef | AnonymousMap
    ) -> list[tuple[float, Element | MapElement | MissingField]]:
        """Return the entries of a map that a key can meet, each with its weight.

        ABSENT stands for no entry, UNKNOWN where it cannot be told. Values by chance that meet the
        same entry are one possibility.
        """
        elements: list[tuple[float, Element | MapElement | MissingField]] = []
        for weight, value in self.spread(key):
            entry = self._entry(value, entries)
            if elements and elements[-1][1] is entry:
                weight += elements.pop()[0]
            elements.append((weight, entry))
        return elements

    def _entry(
        self, key: Plain, entries: SetRef | AnonymousMap
    ) -> Element | MapElement | MissingField:
        if key is ABSENT:
            return ABSENT
        if isinstance(entries, AnonymousMap):
            for entry in entries.items:
                inside = self._inside(key, entry.key)
                if inside is None:
                    return UNKNOWN
                if inside:
                    return entry
            return ABSENT
        named_map = self.snapshot.ruleset.referenced_set(self.rule, entries)
        if named_map is None or isinstance(key, frozenset):
            return UNKNOWN
        return _find_element(key if isinstance(key, tuple) else (key,), named_map.members)

    def _fib(self, fib: Fib) -> Plain:
        skb, flags = self.skb, set(fib.flags)
        interface = skb.iif if "iif" in flags else skb.oif if "oif" in flags else ""
        backwards = "saddr" in flags
        if fib.result in ("type", "types"):
            asked = skb.flow.src if backwards else skb.flow.dst
            if not asked:  # a source that nobody knows
                return UNKNOWN
            kind = address_type if fib.result == "type" else address_kinds
            return kind(self.snapshot, asked, interface)
        query = RouteQuery(flow=skb.flow, mark=skb.known_mark if "mark" in flags else 0)
        decision = (reverse_path if backwards else lookup)(self.snapshot, query)
        if not decision.certain:
            return UNKNOWN
        # nft_fib4_eval: what is this host's own is no way
        interfaces = (
            [hop.interface for hop in decision.nexthops]
            if decision.usable and not decision.local
            else []
        )
        chosen = (
            interface if interface in interfaces else "" if interface else "".join(interfaces[:1])
        )
        if skb.iif == "lo":  # nft_fib_is_loopback: it came from here
            chosen = "lo"
        match fib.result:
            case "check":
                return int(bool(chosen))
            case "oif":
                return chosen or 0
            case "oifname":
                return chosen
            case _:
                return UNKNOWN


def _concatenate(values: list[Plain]) -> Plain:
    """Build a set key; ABSENT if the packet lacks one of its fields."""
    joined: list[str | int | MissingField] = []
    for value in values:
        if value is ABSENT:
            return ABSENT
        joined += value if isinstance(value, tuple) else (_without_flags(value),)
    return tuple(joined)


def _without_flags(value: Datum) -> str | int | MissingField:
    return UNKNOWN if isinstance(value, frozenset) else value


def _find_element(key: Keyed, members: SetElements) -> Element | MissingField:
    """Return the element that holds the key; UNKNOWN where that depends on a part not known."""
    known = tuple(part for part in key if not isinstance(part, MissingField))
    if len(known) == len(key):
        return members.lookup(known) or ABSENT
    like = members.matching_pattern(
        tuple(None if isinstance(part, MissingField) else part for part in key)
    )
    possible = any(_may_hold(key_parts(element.key), key) for element in like)
    return UNKNOWN if possible else ABSENT


def _may_hold(parts: tuple[Expr, ...], key: Keyed) -> bool:
    if len(parts) != len(key):
        return True
    pairs = zip(parts, key, strict=True)
    return all(
        isinstance(value, MissingField) or pattern_matches(part, value) for part, value in pairs
    )


def _any_true(truths: Iterable[bool | None]) -> bool | None:
    values = list(truths)
    return True if True in values else None if None in values else False


def _all_true(truths: Iterable[bool | None]) -> bool | None:
    values = list(truths)
    return False if False in values else None if None in values else True


def _ordered(left: Plain, op: str, right: Plain) -> bool | None:
    left_number, right_number = _number(left), _number(right)
    if left_number is None or right_number is None:
        return None
    return {
        "<": left_number < right_number,
        ">": left_number > right_number,
        "<=": left_number <= right_number,
        ">=": left_number >= right_number,
    }[op]


def _number(value: Plain) -> int | None:
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        try:
            return int(address(value))
        except ValueError:
            return None
    return None


def _bits(op: str, left: Plain, right: Plain) -> Plain:
    if isinstance(left, MissingField) or isinstance(right, MissingField):
        return ABSENT if ABSENT in (left, right) else UNKNOWN
    left_number, right_number = _number(left), _number(right)
    if left_number is None or right_number is None:
        return UNKNOWN
    result = {
        "and": left_number & right_number,
        "or": left_number | right_number,
        "xor": left_number ^ right_number,
        "lshift": left_number << min(right_number, 128),
        "rshift": left_number >> min(right_number, 128),
    }[op]
    if isinstance(left, str):  # an address stays one
        whole = type(address(left))
        return str(whole(result & (1 << address(left).max_prefixlen) - 1))
    return result & 0xFFFFFFFF

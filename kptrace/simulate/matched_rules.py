"""The rules that a packet matches, over all its branches, in the kernel's order: ``matched_rules``.

A jump into a chain in which nothing matched is left out: it did nothing. Where branches part (one
chain for each backend), the rules of the second branch stand behind those of the first, before
whatever both match again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import groupby
from typing import TypeVar

from kptrace.model import Branch, MatchedRule, RuleRef
from kptrace.rules.model.expressions import Verdict
from kptrace.rules.model.ruleset import Rule, Ruleset, Table

_HookRule = tuple[str, RuleRef]
Key = TypeVar("Key", bound=Hashable)


def matched_rules(ways: Iterable[Branch], ruleset: Ruleset) -> tuple[MatchedRule, ...]:
    """Return each rule that the branches matched once, with its counters.

    ruleset: the one that the branches were simulated in
    """
    merged: list[_HookRule] = []
    for way in ways:
        met = [(step.hook, step.rule) for step in way.steps if step.rule is not None]
        merged = merge(merged, _without_empty_jumps(met, ruleset), _position)
    return tuple(_matched_rule(hook, ref, ruleset) for hook, ref in merged)


def _without_empty_jumps(met: Sequence[_HookRule], ruleset: Ruleset) -> list[_HookRule]:
    """Return each rule once, where it matched first, without the jumps that led to nothing."""
    kept: list[_HookRule] = []
    for hook, ref in reversed(met):
        chain = _jump_target(_rule(ref, ruleset))
        if not chain or (kept and _is_in_chain(kept[-1], hook, ref, chain)):
            kept.append((hook, ref))
    return list(dict.fromkeys(kept[::-1]))


def _jump_target(rule: Rule | None) -> str:
    for part in rule.body if rule else ():
        if isinstance(part, Verdict) and part.kind in ("jump", "goto"):
            return part.chain
    return ""


def _is_in_chain(following: _HookRule, hook: str, ref: RuleRef, chain: str) -> bool:
    """Whether the next rule that did something is in the chain that ``ref`` jumps to."""
    other_hook, other = following
    same = (other.backend, other.family, other.table) == (ref.backend, ref.family, ref.table)
    return same and other_hook == hook and other.chain == chain


def merge(
    order: Sequence[Key],
    way: Sequence[Key],
    position_of: Callable[[Key], tuple[int, Hashable, int]],
) -> list[Key]:
    """Return ``order`` with what is new in ``way`` inserted, run by run.

    A run goes before what both have next, and, where it begins in a chain of which the order has
    later rules already, before these.

    position_of: (when the hook runs, the chain, the number in it)
    """
    merged = list(order)
    known = set(order)
    low = 0
    for run in _runs(way, known, position_of):
        if run[0] in known:
            low = merged.index(run[0]) + 1
            continue
        following = way[way.index(run[-1]) + 1 :]
        later = (merged.index(key) for key in following if key in known)
        at = _insert_position(
            merged, low, next(later, len(merged)), position_of(run[0]), position_of
        )
        merged[at:at] = run
        low = at + len(run)
    return merged


def _runs(
    way: Sequence[Key],
    known: AbstractSet[Key],
    position_of: Callable[[Key], tuple[int, Hashable, int]],
) -> Iterator[list[Key]]:
    """Yield known keys alone, and new ones of one hook together."""
    for (new, _), run in groupby(way, key=lambda key: (key not in known, position_of(key)[0])):
        if new:
            yield list(run)
        else:
            yield from ([key] for key in run)


def _insert_position(
    merged: Sequence[Key],
    low: int,
    high: int,
    first: tuple[int, Hashable, int],
    position_of: Callable[[Key], tuple[int, Hashable, int]],
) -> int:
    hook, chain, number = first
    for index in range(low, high):
        other_hook, other_chain, other_number = position_of(merged[index])
        if other_hook > hook or (other_chain == chain and other_number > number):
            return index
    return max(low, high)


def hook_order(hook: str) -> int:
    """Return when a hook runs. Prerouting and output are equal: no first pass meets both."""
    return _HOOKS.get(hook, 0)


_HOOKS = {"connect": -1, "prerouting": 0, "output": 0, "input": 1, "forward": 1, "postrouting": 2}


def _position(met: _HookRule) -> tuple[int, Hashable, int]:
    hook, ref = met
    return hook_order(hook), (ref.backend, ref.family, ref.table, ref.chain), ref.number


def _rule(ref: RuleRef, ruleset: Ruleset) -> Rule | None:
    if ref.backend not in ("legacy", "nft") or ref.number == 0:
        return None
    table = Table(backend=ref.backend, family=ref.family, name=ref.table)
    chain = ruleset.chain(table, ref.chain)
    if chain is None or ref.number > len(chain.rules):
        return None
    return chain.rules[ref.number - 1]


def _matched_rule(hook: str, ref: RuleRef, ruleset: Ruleset) -> MatchedRule:
    rule = _rule(ref, ruleset)
    return MatchedRule(
        table=ref.table,
        chain=ref.chain,
        number=ref.number,
        text=ref.text,
        description=ref.description,
        hook=hook,
        backend=ref.backend,
        family=ref.family,
        packets=rule.packets if rule else None,
        bytes=rule.bytes if rule else None,
    )

"""Whether the rules stayed as they were while one read them: ``spans_generations`` and ``changed``.

In: facts about rules by their names (queries.py), as they were told. kube-proxy writes rules all
the time, and a walk reads them part by part. Each fact of nf_tables holds the generation of the
whole ruleset, which each commit raises; a legacy table holds no such number, but is read as a
whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from kptrace.rules.live.queries import TABLES, RuleQuery, is_query, parse_query

_MOVING = {"bytes", "consumed", "counters", "generation", "handle", "msecs", "options", "packets"}
_MOVING |= {"position", "use"}
# a rule for another Service moves the rules behind it; those that were read are compared
_MOVING |= {"count", "number"}
_LEGACY = "rules/legacy/"
_PASSING = ("timeout", "expiration")  # an element that comes and goes with the traffic


def spans_generations(files: Mapping[str, str]) -> bool:
    """Somebody changed them between two looks: what was read may never have stood side by side."""
    return len(_generations(files)) > 1


def unchanged_since(before: Mapping[str, str], by_now: str, own: int) -> bool:
    """Nobody changed them since they were read.

    by_now: the generation, as a fact; own: how many commits were ours
    """
    if any(name.startswith(_LEGACY) for name in before):
        return False  # nobody knows
    generations = _generations(before)
    return not generations or _decoded(by_now).get("generation") == min(generations) + own


def _generations(files: Mapping[str, str]) -> set[int]:
    told = (_decoded(files[name]).get("generation") for name in files if is_query(name))
    return {one for one in told if isinstance(one, int)}


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[RuleQuery]:
    """The parts that are others than before. What merely counts packets, or comes and goes with
    them, is no change.
    """
    for name in before:
        wanted = parse_query(name)
        if wanted is None or name == TABLES or name not in after:
            continue
        if before[name] != after[name] and _lasting(before[name]) != _lasting(after[name]):
            yield wanted


def _decoded(text: str) -> Mapping[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return {}  # who reads it for its meaning says what is wrong with it


def _lasting(text: str) -> object:
    try:
        return _without_counts(_decoded(text))
    except RecursionError:
        return text


def _without_counts(tree: object) -> object:
    if isinstance(tree, dict):
        return {key: _of_key(key, tree[key]) for key in tree if key not in _MOVING}
    return [_without_counts(each) for each in tree] if isinstance(tree, list) else tree


def _of_key(key: str, value: object) -> object:
    if key == "elements" and isinstance(value, list):  # of a hash, in any order
        return sorted(repr(_without_counts(each)) for each in value if not _is_passing(each))
    return _without_counts(value)


def _is_passing(tree: object) -> bool:
    return isinstance(tree, dict) and any(name in tree for name in _PASSING)

"""Tell whether the rules of a live node changed while they were read.

kube-proxy writes rules all the time, and they are read part by part. Each fact of nf_tables
(queries.py) holds the generation of the whole ruleset, which every commit raises; a legacy table
has no such number, but is read as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from kptrace.rules.live.queries import TABLES, RuleQuery, is_query, parse_query

_MOVING = {"bytes", "consumed", "counters", "generation", "handle", "msecs", "options", "packets"}
_MOVING |= {"position", "use"}
# a rule for another Service renumbers the rules after it
_MOVING |= {"count", "number"}
_LEGACY = "rules/legacy/"
_PASSING = ("timeout", "expiration")  # an element that the traffic adds and that expires


def spans_generations(files: Mapping[str, str]) -> bool:
    """Whether the rules changed between two facts, so that the facts may contradict each other."""
    return len(_generations(files)) > 1


def unchanged_since(before: Mapping[str, str], by_now: str, own_commits: int) -> bool:
    """Whether nobody else changed the rules since they were read; False if that is not known.

    before: the facts that were read
    by_now: the fact GENERATION of now
    own_commits: the number of commits that were ours
    """
    if any(name.startswith(_LEGACY) for name in before):
        return False  # nobody knows
    generations = _generations(before)
    return not generations or _decoded(by_now).get("generation") == min(generations) + own_commits


def _generations(files: Mapping[str, str]) -> set[int]:
    generations = (_decoded(files[name]).get("generation") for name in files if is_query(name))
    return {generation for generation in generations if isinstance(generation, int)}


def changed_queries(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[RuleQuery]:
    """The queries whose facts changed. Counters and expiring elements are no change."""
    for name in before:
        query = parse_query(name)
        if query is None or name == TABLES or name not in after:
            continue
        if before[name] != after[name] and _lasting(before[name]) != _lasting(after[name]):
            yield query


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
    return [_without_counts(item) for item in tree] if isinstance(tree, list) else tree


def _of_key(key: str, value: object) -> object:
    if key == "elements" and isinstance(value, list):  # of a hash, in any order
        return sorted(repr(_without_counts(item)) for item in value if not _is_passing(item))
    return _without_counts(value)


def _is_passing(tree: object) -> bool:
    return isinstance(tree, dict) and any(name in tree for name in _PASSING)

"""Rules that were changed while they were read are told from those that only count packets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kptrace.rules.live.consistency import changed_queries, spans_generations, unchanged_since
from kptrace.rules.live.queries import TABLES

CHAIN, OTHER = "rules/nft/ip/nat/chain/A.json", "rules/nft/ip/nat/chain/B.json"
SET, LEGACY = "rules/nft/ip/k/set/s.json", "rules/legacy/ip/nat/chain/A.json"


def chain(generation: int = 7, packets: int = 0, chain: str = "B", handle: int = 3) -> str:
    expressions = [
        {"counter": {"bytes": packets * 60, "packets": packets}},
        {"immediate": {"dreg": 0, "data": {"code": -3, "chain": chain}}},
    ]
    rules = [{"number": 1, "handle": handle, "expressions": expressions}]
    facts = {"generation": generation, "chain": {"name": "A", "use": packets}, "rules": rules}
    return json.dumps(facts)


def elements(*chosen: dict[str, Any]) -> str:
    return json.dumps({"generation": 7, "set": {"name": "s"}, "elements": chosen})


def test_parts_of_several_generations_may_never_have_stood_side_by_side() -> None:
    assert not spans_generations(
        {CHAIN: chain(7), OTHER: chain(7), LEGACY: "{}", "ip-link.json": "[]"}
    )
    assert spans_generations({CHAIN: chain(7), OTHER: chain(8)})
    assert spans_generations({TABLES: json.dumps({"generation": 6}), CHAIN: chain(7)})


@pytest.mark.parametrize(("by_now", "own"), [(8, 0), (9, 1), (10, 2)])
def test_who_wrote_all_that_was_written_knows_that_the_rest_rested(by_now: int, own: int) -> None:
    read = {CHAIN: chain(8), OTHER: chain(8)}
    assert unchanged_since(read, json.dumps({"generation": by_now}), own)
    assert not unchanged_since(read, json.dumps({"generation": by_now + 1}), own)
    assert not unchanged_since(read, "", own), "nobody told"


def test_a_legacy_table_counts_no_changes() -> None:
    assert not unchanged_since({LEGACY: "{}", CHAIN: chain(8)}, json.dumps({"generation": 8}), 0)
    assert unchanged_since({"ip-link.json": "[]"}, "", 0), "there was no rule"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (chain(), chain(generation=8, packets=4, handle=9)),
        (elements({"key": "01"}, {"key": "02"}), elements({"key": "02"}, {"key": "01"})),
        (elements({"key": "01"}), elements({"key": "01"}, {"key": "02", "expiration": 5})),
        (
            elements({"key": "01", "expr": {"counter": {"packets": 1}}}),
            elements({"key": "01", "expr": {"counter": {"packets": 2}}}),
        ),
    ],
    ids=("counters", "order", "a client that is remembered", "counters of elements"),
)
def test_what_passes_with_the_traffic_is_no_change(before: str, after: str) -> None:
    assert list(changed_queries({CHAIN: before}, {CHAIN: after})) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [(chain(), chain(chain="C")), (elements({"key": "01"}), elements({"key": "02"}))],
)
def test_a_rule_or_an_element_that_is_another_is(before: str, after: str) -> None:
    (part,) = changed_queries({SET: before, CHAIN: chain()}, {SET: after, CHAIN: chain(8)})
    assert part.name == "s"


def test_all_tables_and_what_was_not_told_again_are_not_compared() -> None:
    before = {TABLES: '{"tables": [1]}', CHAIN: chain(), "ip-link.json": "[1]"}
    assert list(changed_queries(before, {TABLES: '{"tables": [2]}', "ip-link.json": "[]"})) == []


@pytest.mark.parametrize("text", ["[" * 100_000, "no JSON", '{"a":' * 900 + "1" + "}" * 900, "7"])
def test_hostile_texts(text: str) -> None:
    assert not spans_generations({CHAIN: text, OTHER: text})
    list(changed_queries({CHAIN: text}, {CHAIN: chain()}))
    list(changed_queries({CHAIN: chain()}, {CHAIN: text}))


def test_elements_that_are_no_list() -> None:
    odd = '{"elements": 7}'
    assert [part.name for part in changed_queries({SET: odd}, {SET: elements()})] == ["s"]

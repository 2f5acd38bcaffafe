"""``LiveSource`` over recorded facts: what the kernel told, beside what its tools printed of it.

The recording is tests/kernel/record_native.py's; the expected side is read by the text readers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from kptrace.model.errors import ParseError
from kptrace.rules.live.queries import TABLES
from kptrace.rules.live.source import LiveSource
from kptrace.rules.load import load_ruleset
from kptrace.rules.model.ruleset import Rule, Ruleset, Table
from kptrace.rules.model.sets import Element, SetElements

# their bytes are kept, their words are not known here
UNREAD = ("-m time", "ct label", "meta time", "meta hour", "meta day", "ip option", "osf")
UNREAD += ("more-fragments", "ip dscp map")
FILTER = Table(backend="nft", family="ip", name="filter")


@pytest.fixture(scope="module")
def recorded() -> Path:
    return Path(__file__).parents[2] / "cases" / "native" / "recorded"


@pytest.fixture(scope="module")
def facts(recorded: Path) -> dict[str, str]:
    decoded = json.loads((recorded / "facts.json").read_text())
    return {file: json.dumps(fact) for file, fact in decoded.items()}


@pytest.fixture(scope="module")
def spoken(recorded: Path) -> Ruleset:
    files = {path.name: path.read_text() for path in recorded.iterdir()}
    return load_ruleset({name: text for name, text in files.items() if name != "facts.json"})


@pytest.fixture(scope="module")
def native(facts: dict[str, str]) -> Ruleset:
    return Ruleset([LiveSource(answering(facts))])


def answering(facts: Mapping[str, str]) -> Callable[[Sequence[str]], dict[str, str]]:
    return lambda files: {file: facts[file] for file in files if file in facts}


def test_the_same_tables(spoken: Ruleset, native: Ruleset) -> None:
    assert set(native.tables()) == set(spoken.tables())
    assert {table.backend for table in native.tables()} == {"legacy", "nft"}
    assert {table.family for table in native.tables()} == {"ip", "ip6", "inet", "bridge"}


def test_every_rule(spoken: Ruleset, native: Ruleset) -> None:
    compared = 0
    for table in spoken.tables():
        for name in native.chain_names(table):
            chain, other = spoken.chain(table, name), native.chain(table, name)
            assert chain is not None
            assert other is not None
            keys = ("hook", "priority", "policy", "type", "device")
            assert [getattr(chain, key) for key in keys] == [getattr(other, key) for key in keys]
            assert len(chain.rules) == len(other.rules)
            for expected, actual in zip(chain.rules, other.rules, strict=True):
                compared += same(expected, actual)
    assert compared > 650


def same(expected: Rule, actual: Rule) -> bool:
    if any(text in expected.text for text in UNREAD):
        assert "Unknown" in repr(actual.body), expected
        return False
    for key in ("number", "text", "body", "comment", "packets", "bytes"):
        assert getattr(actual, key) == getattr(expected, key), expected.text
    return True


def test_every_set(spoken: Ruleset, native: Ruleset) -> None:
    compared = 0
    for table in (None, *spoken.tables()):
        for name in spoken.set_names(table):
            listed, other = spoken.set(table, name), native.set(table, name)
            assert listed is not None
            assert other is not None
            for key in ("kind", "type", "method", "timeout", "comment"):
                assert getattr(listed, key) == getattr(other, key), name
            assert timeless(listed.members) == timeless(other.members), name
            compared += 1
    assert compared > 25


def timeless(members: SetElements) -> list[Element]:
    return sorted((replace(element, timeout=None, expires=None) for element in members), key=repr)


def test_the_hooks_in_the_kernels_order(spoken: Ruleset, native: Ruleset) -> None:
    for family in ("ip", "ip6"):
        for hook in ("prerouting", "input", "forward", "output", "postrouting"):
            there = {(chain.table, chain.name) for chain in native.base_chains(family, hook)}
            answers = [(chain.table, chain.name) for chain in spoken.base_chains(family, hook)]
            # iptables-nft-save prints chains that the kernel does not have
            assert [chain for chain in answers if chain in there] == [
                (chain.table, chain.name) for chain in native.base_chains(family, hook)
            ]


# --- what cannot be read ------------------------------------------------------------------------


def changed(facts: dict[str, str], file: str, change: Callable[[Any], None]) -> Ruleset:
    fact = json.loads(facts[file])
    change(fact)
    return Ruleset([LiveSource(answering(facts | {file: json.dumps(fact)}))])


CHAIN = "rules/nft/ip/filter/chain/T.json"


def test_what_was_not_told_is_not_there(facts: dict[str, str]) -> None:
    less = {file: text for file, text in facts.items() if file != CHAIN}
    assert Ruleset([LiveSource(answering(less))]).chain(FILTER, "T") is None
    assert Ruleset([LiveSource(answering({}))]).tables() == ()


def test_a_fact_that_is_no_json(facts: dict[str, str]) -> None:
    for text in ("", "{", "[]", "null", '{"rules": ' + "[" * 2000):
        with pytest.raises(ParseError):
            Ruleset([LiveSource(answering(facts | {CHAIN: text}))]).chain(FILTER, "T")


@pytest.mark.parametrize(
    "rule",
    [
        {"expressions": 5},
        {"expressions": [5]},
        {"expressions": [{"match": {"name": "comment", "rev": 0, "info": "xyz"}}]},
        {"expressions": [{"match": {}}]},
        {"expressions": [{"payload": {}, "cmp": {}}]},
        {"expressions": [{"immediate": {"dreg": 0, "data": {"code": "x"}}}]},
        {"expressions": [{"lookup": {"set": "no-such", "sreg": 1}}]},
        {"expressions": [{"target": {"name": "DNAT", "rev": 2, "info": "00"}}]},
        {"expressions": [{"target": {"name": "DNAT", "rev": 2, "info": "00+99999999999"}}]},
        {"expressions": [{"cmp": {"sreg": 99, "op": 0, "data": ""}}]},
        {"expressions": [], "userdata": "zz"},
    ],
)
def test_a_hostile_rule_is_opaque_or_refused(facts: dict[str, str], rule: dict[str, Any]) -> None:
    def change(fact: Any) -> None:
        fact["rules"] = [{"number": 1, **rule}]
        fact["count"] = 1

    try:
        actual = changed(facts, CHAIN, change).chain(FILTER, "T")
    except ParseError:
        return
    assert actual is not None
    assert "Unknown" in repr(actual.rules[0].body) or actual.rules[0].body == ()


def test_numbers_of_another_machine_are_not_guessed(facts: dict[str, str]) -> None:
    def change(fact: Any) -> None:
        fact["byteorder"] = "big" if fact["byteorder"] == "little" else "little"

    with pytest.raises(ParseError, match="endian"):
        changed(facts, TABLES, change)


def test_a_rule_that_the_run_did_not_ask_for(facts: dict[str, str]) -> None:
    def change(fact: Any) -> None:
        del fact["rules"]

    chain = changed(facts, CHAIN, change).chain(FILTER, "T")
    assert chain is not None
    assert len(chain.rules) > 100
    with pytest.raises(ParseError, match="not asked for"):
        chain.rules[3]
    with pytest.raises(ParseError, match="not asked for"):
        list(chain.rules.candidates_for_destination("10.0.0.1"))

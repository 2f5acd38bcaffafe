"""``nft -j list ruleset``: JSON as nft 1.0.6 wrote it, against its own text listing."""

from __future__ import annotations

import copy
import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.nft_json import (
    CASES,
    TABLE,
    Json,
    c,
    document,
    one_rule,
    payload,
)

from kptrace.model.errors import ParseError
from kptrace.rules.model.expressions import (
    Concat,
    Const,
    Prefix,
    Range,
    Verdict,
)
from kptrace.rules.model.ruleset import Rule
from kptrace.rules.model.sets import Element, Set
from kptrace.rules.nftables.json_ruleset import NftRuleset


def test_a_rule_knows_its_handle_comment_and_counters() -> None:
    text = document(
        {
            "rule": {
                "family": "inet",
                "table": "t",
                "chain": "c",
                "handle": 9,
                "comment": "why",
                "expr": [{"counter": {"packets": 5, "bytes": 300}}, {"drop": None}],
            }
        }
    )
    chain = NftRuleset(text, "nft-ruleset.json").chain(TABLE, "c")
    assert chain is not None
    (rule,) = chain.rules
    assert (rule.number, rule.handle, rule.comment) == (1, 9, "why")
    assert (rule.packets, rule.bytes) == (5, 300)
    assert rule.text == 'counter packets 5 bytes 300 drop comment "why"'


def test_base_chains_and_dormant_tables() -> None:
    base = {
        "family": "inet",
        "table": "t",
        "name": "nat-prerouting",
        "handle": 15,
        "type": "nat",
        "hook": "prerouting",
        "prio": -100,
        "policy": "drop",
    }
    source = NftRuleset(document({"chain": base}), "nft-ruleset.json")
    (chain,) = source.base_chains(TABLE)
    assert (chain.hook, chain.priority, chain.policy, chain.type, chain.age) == (
        "prerouting",
        -100,
        "drop",
        "nat",
        (7, 15),
    )
    asleep = document({"chain": base}).replace('"handle": 7', '"handle": 7, "flags": ["dormant"]')
    assert list(NftRuleset(asleep, "nft-ruleset.json").base_chains(TABLE)) == []


# --- sets -------------------------------------------------------------------------------------


def one_set(**fields: Json) -> Set:
    kind = "map" if "map" in fields else "set"
    text = document({kind: {"family": "inet", "table": "t", "name": "s", "handle": 2, **fields}})
    actual = NftRuleset(text, "nft-ruleset.json").set(TABLE, "s")
    assert actual is not None
    return actual


def test_a_set_with_prefixes_ranges_timeouts_and_comments() -> None:
    actual = one_set(
        type="ipv4_addr",
        flags=["interval", "timeout"],
        timeout=300,
        elem=[
            {"prefix": {"addr": "10.0.0.0", "len": 8}},
            {"range": ["192.168.0.1", "192.168.0.9"]},
            {"elem": {"val": "1.1.1.1", "timeout": 60, "expires": 7, "comment": "c"}},
        ],
    )
    assert (actual.kind, actual.type, actual.flags, actual.timeout) == (
        "set",
        ("ipv4_addr",),
        ("interval", "timeout"),
        300,
    )
    assert list(actual.members) == [
        Element(key=Prefix(address="10.0.0.0", length=8)),
        Element(key=Range(low="192.168.0.1", high="192.168.0.9")),
        Element(key=c("1.1.1.1"), timeout=60, expires=7, comment="c"),
    ]
    assert actual.members.lookup(("10.9.9.9",)) is not None
    assert actual.members.lookup(("192.168.0.10",)) is None


def test_a_verdict_map_with_wrapped_keys() -> None:
    key = {"elem": {"val": {"concat": ["10.96.1.2", "tcp", 80]}, "comment": "default/empty"}}
    actual = one_set(
        type=["ipv4_addr", "inet_proto", "inet_service"],
        map="verdict",
        elem=[[key, {"goto": {"target": "reject-chain"}}]],
    )
    assert actual.kind == "vmap"
    element = actual.members.lookup(("10.96.1.2", "tcp", 80))
    assert element is not None
    assert element.data == Verdict(kind="goto", chain="reject-chain")
    assert element.comment == "default/empty"
    assert actual.members.lookup(("10.96.1.2", "udp", 80)) is None


def test_a_data_map_with_a_catch_all_and_protocols_by_number() -> None:
    marks = one_set(type="inet_proto", map="mark", elem=[[4, 5], ["*", 6]])
    assert marks.kind == "map"
    four, rest = marks.members.lookup(("ipip",)), marks.members.lookup(("tcp",))
    assert four is not None
    assert rest is not None
    assert (four.data, rest.data) == (c(5), c(6))


def test_interface_names_may_end_in_a_star() -> None:
    actual = one_set(type="ifname", elem=["cali*", "eth0"])
    assert actual.members.lookup(("cali12",)) is not None
    assert actual.members.lookup(("eth01",)) is None


def test_types_by_expression() -> None:
    actual = one_set(
        type={"typeof": {"concat": [payload("ip6", "saddr"), payload("tcp", "dport")]}},
        elem=[{"concat": ["fd00::1", 80]}],
    )
    assert actual.type == ("ipv6_addr", "inet_service")


def test_elements_listed_apart() -> None:
    text = document(
        {"set": {"family": "inet", "table": "t", "name": "s", "type": "ipv4_addr"}},
        {"element": {"family": "inet", "table": "t", "name": "s", "elem": ["1.1.1.1"]}},
    )
    actual = NftRuleset(text, "nft-ruleset.json").set(TABLE, "s")
    assert actual is not None
    assert actual.members.lookup(("1.1.1.1",)) is not None


# --- broken -----------------------------------------------------------------------------------

BROKEN = [
    ("", "truncated"),
    ("{", "truncated"),
    ("[]", "object"),
    ("{}", "nftables"),
    ('{"nftables": [{"rule": {}}]}', "missing"),
    (document({"rule": {"family": "inet", "table": "t", "chain": "gone", "expr": []}}), "gone"),
    (document({"rule": {"family": "ip", "table": "t", "chain": "c", "expr": []}}), "table ip t"),
    (document({"rule": {"family": "inet", "table": "t", "chain": "c", "expr": 5}}), "expr"),
    (document({"set": {"family": "inet", "table": "t", "name": "s", "type": 5}}), "set s"),
    (
        document(
            {"map": {"family": "inet", "table": "t", "name": "s", "type": "mark", "map": "mark",
                     "elem": [1]}}
        ),
        "set s",
    ),
    ("Error: Could not process rule\n", "malformed"),
]  # fmt: skip


def read_all(text: str) -> list[Rule]:
    source = NftRuleset(text, "nft-ruleset.json")
    actual: list[Rule] = []
    for table in source.tables():
        source.base_chains(table)
        for name in source.set_names(table):
            source.set(table, name)
        for name in source.chain_names(table):
            chain = source.chain(table, name)
            actual += chain.rules if chain else ()
    return actual


@pytest.mark.parametrize(("text", "said"), BROKEN)
def test_broken_json_is_said(text: str, said: str) -> None:
    with pytest.raises(ParseError, match=re.escape(said)):
        read_all(text)


def test_the_line_of_broken_json() -> None:
    with pytest.raises(ParseError) as caught:
        read_all('{"nftables": [\n{"table": {"family": "ip", "name": "t"}},\n{"chain": !}]}')
    assert caught.value.line == 3


def test_json_that_is_too_deep() -> None:
    deep = '{"&": [1, ' * 3000 + "1" + "]}" * 3000
    rule = document({"rule": {"family": "inet", "table": "t", "chain": "c", "expr": "HERE"}})
    with pytest.raises(ParseError):
        read_all(rule.replace('"HERE"', f"[{deep}]"))


# --- real nodes -------------------------------------------------------------------------------


def read(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


def listed(text: str) -> dict[tuple[str, str, str], list[str]]:
    """The rules of ``nft list ruleset``: (family, table, chain) -> lines."""
    actual: dict[tuple[str, str, str], list[str]] = {}
    table = ("", "")
    rules: list[str] | None = None
    for line in map(str.strip, text.split("\n")):
        if start := re.fullmatch(r"table (\S+) (\S+) \{", line):
            table = (start[1], start[2])
        elif start := re.fullmatch(r"chain (\S+) \{", line):
            rules = actual.setdefault((*table, start[1]), [])
        elif line == "}" or re.fullmatch(r"(set|map) \S+ \{", line):
            rules = None
        elif rules is not None and line and not line.startswith(("type ", "comment ")):
            rules.append(line)
    return actual


def pairs(dumps: Path) -> Iterator[tuple[Path, Path]]:
    for path in sorted([*dumps.glob("*nftables*/**/nft-ruleset.json*")]):
        text = path.with_name("nft-ruleset.txt")
        yield path, text if text.exists() else path.with_name("nft-ruleset.txt.gz")


def test_every_rule_of_every_dump_as_nft_itself_lists_it(dumps: Path) -> None:
    met = 0
    for path, text in pairs(dumps):
        source = NftRuleset(read(path), path.name)
        expected = listed(read(text))
        for table in source.tables():
            for name in source.chain_names(table):
                chain = source.chain(table, name)
                assert chain is not None
                own = expected.pop((table.family, table.name, name))
                assert [rule.text for rule in chain.rules] == own
                met += len(own)
                assert not [rule for rule in chain.rules if "Unknown" in repr(rule.body)]
        assert not expected, path
    assert met > 20_000


def test_every_element_of_every_dump_is_found_by_its_own_key(dumps: Path) -> None:
    met = 0
    for path, _ in pairs(dumps):
        source = NftRuleset(read(path), path.name)
        for table in source.tables():
            for name in source.set_names(table):
                actual = source.set(table, name)
                assert actual is not None
                for element in actual.members:
                    parts = element.key.parts if isinstance(element.key, Concat) else (element.key,)
                    key = tuple(part.value for part in parts if isinstance(part, Const))
                    assert len(key) == len(actual.type)
                    assert actual.members.lookup(key) == element
                    met += 1
    assert met > 10_000


# --- anything at all --------------------------------------------------------------------------

STATEMENTS = [given_json for given_json, _, _ in CASES]
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def places(value: Json, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside: list[tuple[Any, Json]] = []
    if isinstance(value, dict | list):
        inside = list(value.items() if isinstance(value, dict) else enumerate(value))
    actual = [path]
    for key, item in inside:
        actual += places(item, (*path, key))
    return actual


@given(st.sampled_from(STATEMENTS), st.data())
def test_a_mangled_statement_keeps_its_rule(statement: Json, data: st.DataObject) -> None:
    mangled = {"expr": copy.deepcopy(statement)}
    where = data.draw(st.sampled_from(places(mangled)[1:]))
    inner: Json = mangled
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = data.draw(JUNK)
    rule = one_rule(mangled["expr"])
    assert len(rule.body) == 1
    assert isinstance(rule.text, str)


@given(st.text())
def test_any_text_at_all(text: str) -> None:
    with pytest.raises(ParseError):
        read_all(text)

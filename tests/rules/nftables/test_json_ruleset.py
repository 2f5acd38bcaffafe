"""``nft -j list ruleset``: JSON as nft 1.0.6 wrote it, against its own text listing."""

from __future__ import annotations

import copy
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kptrace.model.errors import ParseError
from kptrace.rules.model.expressions import (
    AnonymousMap,
    AnonymousSet,
    BitwiseExpr,
    Comparison,
    Concat,
    Const,
    Count,
    Dnat,
    Expr,
    Fib,
    Field,
    Hash,
    InterfaceWildcard,
    Limit,
    Log,
    MapElement,
    MapLookup,
    Masquerade,
    NoEffect,
    NoTrack,
    NumGen,
    Part,
    Payload,
    Prefix,
    Range,
    Redirect,
    Reject,
    SetField,
    SetRef,
    SetUpdate,
    Snat,
    Tproxy,
    UnknownExpr,
    UnknownStatement,
    Verdict,
    VerdictMap,
)
from kptrace.rules.model.ruleset import Rule, Table
from kptrace.rules.model.sets import Element, Set
from kptrace.rules.nftables.json_ruleset import NftRuleset

Json = Any
TABLE = Table(backend="nft", family="inet", name="t")


def f(key: str) -> Field:
    return Field(key=key)


def c(value: str | int) -> Const:
    return Const(value=value)


def equal(key: str, value: str | int) -> Comparison:
    return Comparison(left=f(key), op="==", right=c(value))


def names(*values: str | int) -> AnonymousSet:
    return AnonymousSet(items=tuple(c(value) for value in values))


def bits(op: str, left: Expr, right: int) -> BitwiseExpr:
    return BitwiseExpr(op=op, left=left, right=c(right))  # type: ignore[arg-type]


def document(*objects: Json, family: str = "inet") -> str:
    head: list[Json] = [
        {"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
        {"table": {"family": family, "name": "t", "handle": 7}},
        {"chain": {"family": family, "table": "t", "name": "c", "handle": 1}},
    ]
    return json.dumps({"nftables": [*head, *objects]})


def one_rule(*statements: Json, family: str = "inet") -> Rule:
    rule = {"family": family, "table": "t", "chain": "c", "handle": 3, "expr": list(statements)}
    source = NftRuleset(document({"rule": rule}, family=family), "nft-ruleset.json")
    chain = source.chain(source.tables()[0], "c")
    assert chain is not None
    return chain.rules[0]


def payload(protocol: str, name: str) -> Json:
    return {"payload": {"protocol": protocol, "field": name}}


def meta(key: str) -> Json:
    return {"meta": {"key": key}}


def match(left: Json, right: Json, op: str = "==") -> Json:
    return {"match": {"op": op, "left": left, "right": right}}


NUMGEN = {"numgen": {"mode": "random", "mod": 2, "offset": 0}}
CASES: list[tuple[Json, str, Part]] = [
    (match(payload("ip", "saddr"), "10.0.0.1"), "ip saddr 10.0.0.1", equal("ip saddr", "10.0.0.1")),
    (
        match(payload("ip", "saddr"), {"prefix": {"addr": "10.0.0.0", "len": 8}}, "!="),
        "ip saddr != 10.0.0.0/8",
        Comparison(left=f("ip saddr"), op="!=", right=Prefix(address="10.0.0.0", length=8)),
    ),
    (
        match(payload("tcp", "dport"), {"set": [80, {"range": [8000, 8080]}]}),
        "tcp dport { 80, 8000-8080 }",
        Comparison(
            left=f("tcp dport"),
            op="==",
            right=AnonymousSet(items=(c(80), Range(low=8000, high=8080))),
        ),
    ),
    (
        match(payload("ip", "daddr"), "@cluster-ips"),
        "ip daddr @cluster-ips",
        Comparison(left=f("ip daddr"), op="==", right=SetRef(name="cluster-ips")),
    ),
    (
        match({"concat": [payload("ip", "saddr"), payload("th", "dport")]}, "@pairs"),
        "ip saddr . th dport @pairs",
        Comparison(
            left=Concat(parts=(f("ip saddr"), f("th dport"))), op="==", right=SetRef(name="pairs")
        ),
    ),
    (match(meta("l4proto"), "tcp"), "meta l4proto tcp", equal("meta l4proto", "tcp")),
    (match(payload("ip", "protocol"), 4), "ip protocol 4", equal("ip protocol", "ipip")),
    (match(meta("iifname"), "lo"), 'iifname "lo"', equal("meta iifname", "lo")),
    (
        match(meta("oifname"), "cali*", "!="),
        'oifname != "cali*"',
        Comparison(left=f("meta oifname"), op="!=", right=InterfaceWildcard(start="cali")),
    ),
    (
        match({"ct": {"key": "state"}}, "new", "in"),
        "ct state new",
        Comparison(left=f("ct state"), op="in", right=names("new")),
    ),
    (
        match({"ct": {"key": "state"}}, ["established", "related"], "in"),
        "ct state established,related",
        Comparison(left=f("ct state"), op="in", right=names("established", "related")),
    ),
    (
        match({"ct": {"key": "state"}}, {"set": ["established", "new"]}),
        "ct state { established, new }",
        Comparison(left=f("ct state"), op="==", right=names("established", "new")),
    ),
    (
        match({"ct": {"key": "state"}}, "invalid", "!"),
        "ct state ! invalid",
        Comparison(left=f("ct state"), op="not in", right=names("invalid")),
    ),
    (
        match({"ct": {"key": "ip daddr", "dir": "original"}}, "1.1.1.1"),
        "ct original ip daddr 1.1.1.1",
        equal("ct original ip daddr", "1.1.1.1"),
    ),
    (
        match({"&": [meta("mark"), 0x4000]}, 0, "!="),
        "meta mark & 0x00004000 != 0x00000000",
        Comparison(left=bits("and", f("meta mark"), 0x4000), op="!=", right=c(0)),
    ),
    (
        match(payload("tcp", "flags"), "syn"),
        "tcp flags == syn",
        equal("tcp flags", 2),
    ),
    (
        match({"&": [payload("tcp", "flags"), ["fin", "syn", "rst", "ack"]]}, "syn"),
        "tcp flags syn / fin,syn,rst,ack",
        Comparison(left=bits("and", f("tcp flags"), 1 | 2 | 4 | 16), op="==", right=c(2)),
    ),
    (
        match(payload("tcp", "flags"), "syn", "in"),
        "tcp flags syn",
        Comparison(left=bits("and", f("tcp flags"), 2), op="!=", right=c(0)),
    ),
    (match(payload("icmp", "type"), "echo-request"), "icmp type echo-request",
        equal("icmp type", 8)),
    (match(payload("icmpv6", "type"), "nd-neighbor-solicit"), "icmpv6 type nd-neighbor-solicit",
        equal("icmpv6 type", 135)),
    (
        match({"fib": {"result": "type", "flags": ["saddr"]}}, "local"),
        "fib saddr type local",
        Comparison(left=Fib(result="type", flags=("saddr",)), op="==", right=c("local")),
    ),
    (
        match({"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, False),
        "fib saddr . iif oif missing",
        Comparison(left=Fib(result="check", flags=("saddr", "iif")), op="==", right=c(0)),
    ),
    (
        match({"payload": {"base": "th", "offset": 16, "len": 16}}, 80),
        "@th,16,16 80",
        equal("th dport", 80),
    ),
    (
        match({"payload": {"base": "th", "offset": 32, "len": 16}}, 80),
        "@th,32,16 80",
        Comparison(left=Payload(base="th", offset=32, length=16), op="==", right=c(80)),
    ),
    (
        {"vmap": {"key": {"concat": [payload("ip", "daddr"), meta("l4proto"),
                                     payload("th", "dport")]}, "data": "@service-ips"}},
        "ip daddr . meta l4proto . th dport vmap @service-ips",
        VerdictMap(
            key=Concat(parts=(f("ip daddr"), f("meta l4proto"), f("th dport"))),
            map=SetRef(name="service-ips"),
        ),
    ),
    (
        {"vmap": {"key": NUMGEN, "data": {"set": [[0, {"goto": {"target": "a"}}],
                                                  [1, {"drop": None}]]}}},
        "numgen random mod 2 vmap { 0 : goto a, 1 : drop }",
        VerdictMap(
            key=NumGen(mode="random", mod=2),
            map=AnonymousMap(
                items=(
                    MapElement(key=c(0), data=Verdict(kind="goto", chain="a")),
                    MapElement(key=c(1), data=Verdict(kind="drop")),
                )
            ),
        ),
    ),
    (
        {"dnat": {"addr": "10.244.1.11", "port": 8080}},
        "dnat to 10.244.1.11:8080",
        Dnat(addr=c("10.244.1.11"), port=c(8080)),
    ),
    (
        {"dnat": {"family": "ip6", "addr": "fd00::1", "port": 80}},
        "dnat ip6 to [fd00::1]:80",
        Dnat(addr=c("fd00::1"), port=c(80), family="ip6"),
    ),
    # kube-proxy 1.36: the map gives address and port, and there is no "port"
    (
        {"dnat": {"family": "ip", "addr": {"map": {"key": NUMGEN, "data": {"set": [
            [0, {"concat": ["10.244.1.11", 8080]}], [1, {"concat": ["10.244.2.11", 8080]}]]}}}}},
        "dnat ip to numgen random mod 2 map { 0 : 10.244.1.11 . 8080, 1 : 10.244.2.11 . 8080 }",
        Dnat(
            addr=MapLookup(
                key=NumGen(mode="random", mod=2),
                map=AnonymousMap(
                    items=(
                        MapElement(key=c(0), data=Concat(parts=(c("10.244.1.11"), c(8080)))),
                        MapElement(key=c(1), data=Concat(parts=(c("10.244.2.11"), c(8080)))),
                    )
                ),
            ),
            family="ip",
        ),
    ),
    (
        {"snat": {"family": "ip", "addr": "1.1.1.1", "port": {"range": [1000, 2000]},
                  "flags": "fully-random"}},
        "snat ip to 1.1.1.1:1000-2000 fully-random",
        Snat(
            addr=c("1.1.1.1"),
            port=Range(low=1000, high=2000),
            flags=("fully-random",),
            family="ip",
        ),
    ),
    ({"masquerade": {"flags": "fully-random"}}, "masquerade fully-random",
        Masquerade(flags=("fully-random",))),
    ({"masquerade": None}, "masquerade", Masquerade()),
    ({"redirect": {"port": 8080}}, "redirect to :8080", Redirect(port=c(8080))),
    ({"reject": {"type": "icmpx", "expr": "port-unreachable"}}, "reject",
        Reject(reply="icmpx port-unreachable")),
    ({"reject": {"type": "icmp", "expr": "port-unreachable"}},
        "reject with icmp port-unreachable", Reject(reply="icmp port-unreachable")),
    ({"reject": {"type": "tcp reset"}}, "reject with tcp reset", Reject(reply="tcp reset")),
    (
        {"mangle": {"key": meta("mark"), "value": {"|": [meta("mark"), 16384]}}},
        "meta mark set meta mark | 0x00004000",
        SetField(field=f("meta mark"), value=bits("or", f("meta mark"), 0x4000)),
    ),
    (
        {"mangle": {"key": {"ct": {"key": "mark"}}, "value": meta("mark")}},
        "ct mark set meta mark",
        SetField(field=f("ct mark"), value=f("meta mark")),
    ),
    (
        {"set": {"op": "update", "elem": payload("ip", "saddr"), "set": "@affinity-x"}},
        "update @affinity-x { ip saddr }",
        SetUpdate(op="update", set=SetRef(name="affinity-x"), key=f("ip saddr")),
    ),
    (
        {"set": {"op": "add", "elem": {"elem": {"val": payload("ip", "saddr"), "timeout": 10800}},
                 "set": "@s"}},
        "add @s { ip saddr timeout 3h }",
        SetUpdate(op="add", set=SetRef(name="s"), key=f("ip saddr"), timeout=10800),
    ),
    (
        {"vmap": {"key": {"jhash": {"expr": payload("ip", "saddr"), "mod": 3}},
                  "data": {"set": [[0, {"accept": None}]]}}},
        "jhash ip saddr mod 3 vmap { 0 : accept }",
        VerdictMap(
            key=Hash(kind="jhash", mod=3, key=f("ip saddr")),
            map=AnonymousMap(items=(MapElement(key=c(0), data=Verdict(kind="accept")),)),
        ),
    ),
    ({"jump": {"target": "services"}}, "jump services", Verdict(kind="jump", chain="services")),
    ({"return": None}, "return", Verdict(kind="return")),
    ({"queue": {"num": 3, "flags": "bypass"}}, "queue flags bypass to 3", Verdict(kind="queue")),
    ({"counter": {"packets": 5, "bytes": 300}}, "counter packets 5 bytes 300", Count()),
    ({"counter": None}, "counter", Count()),
    ({"counter": "named"}, 'counter name "named"', Count(name="named")),
    ({"limit": {"rate": 5, "per": "second", "burst": 10}},
        "limit rate 5/second burst 10 packets", Limit(rate="5/second", burst=10)),
    ({"log": {"prefix": "x y", "group": 5}}, 'log prefix "x y" group 5',
        Log(prefix="x y", group=5)),
    ({"notrack": None}, "notrack", NoTrack()),
    ({"tproxy": {"family": "ip", "addr": "127.0.0.1", "port": 15001}},
        "tproxy ip to 127.0.0.1:15001", Tproxy(addr=c("127.0.0.1"), port=c(15001))),
    ({"flow": {"op": "add", "flowtable": "@ft"}}, "flow add @ft",
        NoEffect(text='flow {"flowtable": "@ft", "op": "add"}')),
    # what is not known keeps its JSON
    ({"osf": {"x": 1}}, '{"osf": {"x": 1}}', UnknownStatement(text='{"osf": {"x": 1}}')),
    ({"xt": {"type": "match", "name": "statistic"}},
        '{"xt": {"name": "statistic", "type": "match"}}',
        UnknownStatement(text='{"xt": {"name": "statistic", "type": "match"}}')),
    ({"xt": {"type": "target", "name": "DNAT"}}, '{"xt": {"name": "DNAT", "type": "target"}}',
        UnknownStatement(text='{"xt": {"name": "DNAT", "type": "target"}}', match=False)),
    (match({"osf": {"key": "name"}}, "Linux"), '{"osf": {"key": "name"}} Linux',
        Comparison(left=UnknownExpr(text='{"osf": {"key": "name"}}'), op="==", right=c("Linux"))),
]  # fmt: skip


@pytest.mark.parametrize(("given_json", "text", "part"), CASES, ids=[text for _, text, _ in CASES])
def test_statement(given_json: Json, text: str, part: Part) -> None:
    rule = one_rule(given_json)
    assert rule.text == text
    assert rule.body == (part,)


def test_the_default_reject_of_each_family_is_printed_bare() -> None:
    port = {"reject": {"type": "icmp", "expr": "port-unreachable"}}
    assert one_rule(port, family="ip").text == "reject"
    port6 = {"reject": {"type": "icmpv6", "expr": "port-unreachable"}}
    assert one_rule(port6, family="ip6").text == "reject"


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
    found = NftRuleset(text, "nft-ruleset.json").set(TABLE, "s")
    assert found is not None
    return found


def test_a_set_with_prefixes_ranges_timeouts_and_comments() -> None:
    found = one_set(
        type="ipv4_addr",
        flags=["interval", "timeout"],
        timeout=300,
        elem=[
            {"prefix": {"addr": "10.0.0.0", "len": 8}},
            {"range": ["192.168.0.1", "192.168.0.9"]},
            {"elem": {"val": "1.1.1.1", "timeout": 60, "expires": 7, "comment": "c"}},
        ],
    )
    assert (found.kind, found.type, found.flags, found.timeout) == (
        "set",
        ("ipv4_addr",),
        ("interval", "timeout"),
        300,
    )
    assert list(found.members) == [
        Element(key=Prefix(address="10.0.0.0", length=8)),
        Element(key=Range(low="192.168.0.1", high="192.168.0.9")),
        Element(key=c("1.1.1.1"), timeout=60, expires=7, comment="c"),
    ]
    assert found.members.lookup(("10.9.9.9",)) is not None
    assert found.members.lookup(("192.168.0.10",)) is None


def test_a_verdict_map_with_wrapped_keys() -> None:
    key = {"elem": {"val": {"concat": ["10.96.1.2", "tcp", 80]}, "comment": "default/empty"}}
    found = one_set(
        type=["ipv4_addr", "inet_proto", "inet_service"],
        map="verdict",
        elem=[[key, {"goto": {"target": "reject-chain"}}]],
    )
    assert found.kind == "vmap"
    element = found.members.lookup(("10.96.1.2", "tcp", 80))
    assert element is not None
    assert element.data == Verdict(kind="goto", chain="reject-chain")
    assert element.comment == "default/empty"
    assert found.members.lookup(("10.96.1.2", "udp", 80)) is None


def test_a_data_map_with_a_catch_all_and_protocols_by_number() -> None:
    marks = one_set(type="inet_proto", map="mark", elem=[[4, 5], ["*", 6]])
    assert marks.kind == "map"
    four, rest = marks.members.lookup(("ipip",)), marks.members.lookup(("tcp",))
    assert four is not None
    assert rest is not None
    assert (four.data, rest.data) == (c(5), c(6))


def test_interface_names_may_end_in_a_star() -> None:
    found = one_set(type="ifname", elem=["cali*", "eth0"])
    assert found.members.lookup(("cali12",)) is not None
    assert found.members.lookup(("eth01",)) is None


def test_types_by_expression() -> None:
    found = one_set(
        type={"typeof": {"concat": [payload("ip6", "saddr"), payload("tcp", "dport")]}},
        elem=[{"concat": ["fd00::1", 80]}],
    )
    assert found.type == ("ipv6_addr", "inet_service")


def test_elements_listed_apart() -> None:
    text = document(
        {"set": {"family": "inet", "table": "t", "name": "s", "type": "ipv4_addr"}},
        {"element": {"family": "inet", "table": "t", "name": "s", "elem": ["1.1.1.1"]}},
    )
    found = NftRuleset(text, "nft-ruleset.json").set(TABLE, "s")
    assert found is not None
    assert found.members.lookup(("1.1.1.1",)) is not None


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
    found: list[Rule] = []
    for table in source.tables():
        source.base_chains(table)
        for name in source.set_names(table):
            source.set(table, name)
        for name in source.chain_names(table):
            chain = source.chain(table, name)
            found += chain.rules if chain else ()
    return found


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
    found: dict[tuple[str, str, str], list[str]] = {}
    table = ("", "")
    rules: list[str] | None = None
    for line in map(str.strip, text.split("\n")):
        if start := re.fullmatch(r"table (\S+) (\S+) \{", line):
            table = (start[1], start[2])
        elif start := re.fullmatch(r"chain (\S+) \{", line):
            rules = found.setdefault((*table, start[1]), [])
        elif line == "}" or re.fullmatch(r"(set|map) \S+ \{", line):
            rules = None
        elif rules is not None and line and not line.startswith(("type ", "comment ")):
            rules.append(line)
    return found


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
                found = source.set(table, name)
                assert found is not None
                for element in found.members:
                    parts = element.key.parts if isinstance(element.key, Concat) else (element.key,)
                    key = tuple(part.value for part in parts if isinstance(part, Const))
                    assert len(key) == len(found.type)
                    assert found.members.lookup(key) == element
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
    found = [path]
    for key, each in inside:
        found += places(each, (*path, key))
    return found


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

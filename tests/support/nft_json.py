"""Statements of ``nft -j`` with the text that nft prints for them and the parts that they are."""

from __future__ import annotations

import json
from typing import Any

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

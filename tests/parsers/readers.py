"""Every reader of what others wrote, in one form, with examples to begin from.

``READERS``: name -> Reader. ``read`` takes any bytes; what is wrong with them it says as one of
``refusals``, whatever else it raises is a bug. It reads to the end: lazy readers are asked for all.
A reader that keeps things gives their number, in and out, which must be equal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from kptrace import protocol
from kptrace.agent.netlink import conntrack
from kptrace.agent.netlink import socket as netlink
from kptrace.agent.netlink.wireguard import device, told
from kptrace.bpf.btf import BadBtf, Btf
from kptrace.kube.objects.cluster_state import read_cluster_state
from kptrace.kube.objects.resolver import parse_resolv_conf
from kptrace.model import Netns, Trace
from kptrace.model.errors import KptraceError
from kptrace.model.family import Family
from kptrace.model.targets import parse_target
from kptrace.packet.headers import dissect
from kptrace.packet.probe_id import ProbeMatcher
from kptrace.protocol.recording import unpack
from kptrace.rules.byte_reader import TruncatedData
from kptrace.rules.ipset.save import IpsetSave
from kptrace.rules.iptables.legacy_table import Bounds, XtTable
from kptrace.rules.iptables.save import IptablesSave
from kptrace.rules.iptables.text import read_iptables
from kptrace.rules.ipvs.ip_vs_conn import with_persistent_clients
from kptrace.rules.ipvs.ipvsadm import read_ipvs_list, read_ipvs_save
from kptrace.rules.live.queries import TABLES, parse_query
from kptrace.rules.load import load_ruleset
from kptrace.rules.model.ruleset import Ruleset, RulesetSource
from kptrace.rules.nftables.json_ruleset import NftRuleset
from kptrace.rules.nftables.text_ruleset import read_nft_text
from kptrace.simulate.snapshot import iproute2
from kptrace.simulate.snapshot.wg_show import read_wireguard

Read = Callable[[bytes], tuple[int, int] | None]
CASES = Path(__file__).parent.parent / "cases"
_RULE = re.compile(r"(?:\[\d+:\d+\] )?-A ")


class Reader(NamedTuple):
    read: Read
    seeds: tuple[bytes, ...]
    refusals: tuple[type[Exception], ...] = (KptraceError,)


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


# --- rulesets ---------------------------------------------------------------------------------


def _all_of(source: RulesetSource) -> int:
    """How many rules and sets there are, each read."""
    rules = sets = 0
    for table in source.tables():
        for name in source.chain_names(table):
            chain = source.chain(table, name)
            rules += len([rule.body for rule in chain.rules]) if chain else 0
        source.base_chains(table)
        sets += sum(_set(source, table, name) for name in source.set_names(table))
    return rules + sets + sum(_set(source, None, name) for name in source.set_names(None))


def _set(source: RulesetSource, table: object, name: str) -> int:
    actual = source.set(table, name)  # type: ignore[arg-type]
    if actual is not None:
        actual.members.lookup(("10.96.0.1", "tcp", 80))
    return int(actual is not None)


def _iptables(data: bytes) -> tuple[int, int]:
    text = _text(data)
    source = IptablesSave(text, "iptables-save.txt", "nft", "ip")
    return sum(bool(_RULE.match(line)) for line in text.split("\n")), _all_of(source)


def _iptables_forms(data: bytes) -> None:
    """``iptables -S``, ``-L``, restore input: no rule of a line that is read may get lost."""
    _all_of(read_iptables(_text(data), "pasted", "nft", "ip"))


def _nft_text(data: bytes) -> None:
    _all_of(read_nft_text(_text(data), "nft-ruleset.txt"))


def _ipvs_list(data: bytes) -> None:
    read_ipvs_list(_text(data), "ipvsadm-Ln.txt")


def _nft(data: bytes) -> tuple[int, int]:
    source = NftRuleset(_text(data), "nft-ruleset.json")
    told = [_kind(item) for item in json.loads(_text(data))["nftables"]]
    rules = sum(kind == "rule" for kind, _ in told)
    sets = {
        tuple(value.get(key) for key in ("family", "table", "name"))
        for kind, value in told
        if kind in ("set", "map")
    }  # a set that is told twice is one
    return rules + len(sets), _all_of(source)


def _kind(item: dict[str, dict[str, str]]) -> tuple[str, dict[str, str]]:
    """nft writes each object with one key; where there are more, the first of these counts."""
    kinds = ("table", "chain", "rule", "set", "map", "element")
    return next(((kind, item[kind]) for kind in kinds if item.get(kind)), ("", {}))


def _ipset(data: bytes) -> tuple[int, int]:
    text = _text(data)
    source = IpsetSave(text, "ipset-save.txt")
    return sum(line.startswith("create ") for line in text.split("\n")), _all_of(source)


def _ipvs(data: bytes) -> None:
    read_ipvs_save(_text(data), "ipvsadm-Sn.txt")


def _facts(data: bytes) -> None:
    """What an agent told of rules, one by one: {name: text}."""
    try:
        files = msgspec.json.decode(data, type=dict[str, str])
    except ValueError:
        return
    ruleset = load_ruleset({TABLES: "{}", **files})
    _walked(ruleset)


def _walked(ruleset: Ruleset) -> None:
    for table in ruleset.tables():
        for name in ruleset.chain_names(table):
            chain = ruleset.chain(table, name)
            for rule in chain.rules if chain else ():
                assert isinstance(rule.text, str)
        for name in ruleset.set_names(table):
            actual = ruleset.set(table, name)
            assert actual is None or actual.members.lookup(("10.96.0.1",)) or True
    for family in ("ip", "ip6"):
        ruleset.base_chains(family, "prerouting")


def _legacy(data: bytes) -> None:
    """The blob of getsockopt, with its bounds somewhere in it."""
    bounds = Bounds(hooks=((0, 0, len(data) // 2), (4, len(data) // 3, len(data))))
    blob = XtTable(data, bounds, "ip")
    blob.kernel_chains()
    for name in (*blob.names(), "PREROUTING"):
        blob.rules(name)


# --- the rest of a node -----------------------------------------------------------------------


def _iproute(read: Callable[[str, str], object]) -> Read:
    def run(data: bytes) -> None:
        read(_text(data), "ip.json")

    return run


def _rules4(text: str, name: str) -> object:
    return iproute2.read_rules(text, name, Family.IPV4)


def _headers(data: bytes) -> None:
    seen = dissect(data)
    if seen is not None:
        ProbeMatcher(()).recognise(seen)


def _netlink(data: bytes) -> None:
    for message in netlink.messages(data):
        for _, value in netlink.attribute_list(message.body[4:]):
            netlink.attributes(value)
    conntrack.entry(Netns(node="n"), data)


def _btf(data: bytes) -> None:
    btf = Btf(data, ("sk_buff",))
    btf.offset("sk_buff", "len")


def _documents(data: bytes) -> None:
    for name in ("services", "endpointslices", "nodes", "pods"):
        read_cluster_state({f"{name}.json": data})


def _protocol(data: bytes) -> None:
    protocol.decode_reply(data)


def _requests(data: bytes) -> None:
    protocol.decode_request(data)


def _run(data: bytes) -> None:
    unpack({"run.json": data}, "run.tar.gz")


def _target(data: bytes) -> None:
    parse_target(_text(data), "shop")


def _query(data: bytes) -> None:
    """A name that is understood is the name of what was understood."""
    name = _text(data)
    actual = parse_query(name)
    assert actual is None or parse_query(actual.file) == actual


def _wireguard(data: bytes) -> None:
    """Whatever the kernel says, the text that is made of it can be read."""
    read_wireguard(told("wg0", device([data])))


def _ip_vs_conn(data: bytes) -> None:
    for service in with_persistent_clients(
        read_ipvs_save(_TEXTS["ipvs"].decode(), "x"), _text(data)
    ):
        service.client_binding("10.250.0.4")


def _resolv_conf(data: bytes) -> None:
    parse_resolv_conf(_text(data))


def _trace(data: bytes) -> None:
    msgspec.json.decode(data, type=Trace)


# --- the table --------------------------------------------------------------------------------


def _files(*patterns: str) -> tuple[bytes, ...]:
    actual = [path for pattern in patterns for path in sorted(CASES.glob(pattern))]
    return tuple(path.read_bytes()[:20000] for path in actual) or (b"",)


_GROUND = "differential/_ground/router"
_NODE = "kube-proxy/node-a"
_SAVED = "differential/*/router"
_IPTABLES_FORMS, _NFT_FORMS = "../rules/iptables/forms", "../rules/nftables/forms"
_TEXTS: Mapping[str, bytes] = {
    "ipvs": b"-A -t 10.96.0.1:80 -s rr -p 300\n-a -t 10.96.0.1:80 -r 10.244.1.5:8080 -m -w 1\n",
    "ipvs-list": b"TCP  10.96.0.1:80 rr persistent 300\n  -> 10.244.1.5:8080  Masq  1  3  0\n",
    "resolv.conf": b"nameserver 10.96.0.10\nsearch shop.svc.cluster.local\noptions ndots:5\n",
    "target": b"svc/web:http/tcp",
    "wanted": b"rules/nft/ip/nat/chain/KUBE-SERVICES/by-destination/10.96.0.10.json",
    "reply": b'{"type":"done","id":1}',
    "request": b'{"type":"read-files","id":2,"netns":{"node":"a"},"files":["iptables-save.txt"]}',
    "headers": bytes.fromhex(
        "4500003c000140004006000a0a0100020a6000010fa0005000000007000000005002fa0000000000"
    ),
    "netlink": bytes.fromhex("1c000000000a0000010000000000000002000000080001000a010002"),
    "btf": bytes.fromhex("9feb01001800000000000000000000000000000001000000"),
    "wg-show": b"interface: wg0\n  listening port: 51820\n  fwmark: 0x200000\n\npeer: AAAA=\n"
    b"  endpoint: [fd00::12]:51820\n  allowed ips: 10.244.2.0/24, fd00:2::/64\n",
    "wireguard": bytes.fromhex(
        "000100000600060000ca0000340008803000008024000100" + "01" * 32 + "08000980"
    ),
    "ip_vs_conn": b"TCP 0AFA0004 0000 0A600001 0050 0AF40909 1F90 ASSURED         299\n",
    "facts": b'{"rules/tables.json": "{}", "rules/ipset/sets.json": "{}"}',
}

READERS: Mapping[str, Reader] = {
    "iptables-save": Reader(_iptables, _files(f"{_SAVED}/ip*-save.txt", f"{_NODE}/ip*-save.txt")),
    "iptables-forms": Reader(_iptables_forms, _files(f"{_IPTABLES_FORMS}/*.txt")),
    "nft-text": Reader(_nft_text, _files(f"{_NFT_FORMS}/*.txt")),
    "ipvs-list": Reader(_ipvs_list, (_TEXTS["ipvs-list"],)),
    "nft-json": Reader(_nft, _files(f"{_SAVED}/nft-ruleset.json", f"{_NODE}/nft-ruleset.json")),
    "ipset-save": Reader(_ipset, _files(f"{_SAVED}/ipset-save.txt")),
    "ipvsadm": Reader(_ipvs, (_TEXTS["ipvs"],)),
    "facts": Reader(_facts, (_TEXTS["facts"],)),
    "legacy-blob": Reader(_legacy, (bytes(2000),), (TruncatedData,)),
    "ip-link": Reader(_iproute(iproute2.read_links), _files(f"{_GROUND}/ip-link.json")),
    "ip-addr": Reader(_iproute(iproute2.read_addresses), _files(f"{_GROUND}/ip-addr.json")),
    "ip-route": Reader(_iproute(iproute2.read_routes), _files(f"{_GROUND}/ip*-route.json")),
    "ip-rule": Reader(_iproute(_rules4), _files(f"{_GROUND}/ip-rule.json")),
    "ip-neigh": Reader(_iproute(iproute2.read_neighbours), _files(f"{_GROUND}/ip-neigh.json")),
    "bridge-fdb": Reader(_iproute(iproute2.read_fdb), _files(f"{_GROUND}/bridge-fdb.json")),
    "sysctl": Reader(_iproute(iproute2.read_sysctls), _files(f"{_GROUND}/sysctl.txt")),
    "headers": Reader(_headers, (_TEXTS["headers"],), ()),
    "netlink": Reader(_netlink, (_TEXTS["netlink"],), ()),
    "btf": Reader(_btf, (_TEXTS["btf"],), (BadBtf, KeyError)),
    "documents": Reader(_documents, _files("kube-proxy/api/*.json")),
    "reply": Reader(_protocol, (_TEXTS["reply"],), protocol.UNREADABLE),
    "request": Reader(_requests, (_TEXTS["request"],), protocol.UNREADABLE),
    "run": Reader(_run, (b'{"version": 1}',)),
    "trace": Reader(_trace, (b"{}",), protocol.UNREADABLE),
    "target": Reader(_target, (_TEXTS["target"],)),
    "wanted": Reader(_query, (_TEXTS["wanted"],), ()),
    "resolv.conf": Reader(_resolv_conf, (_TEXTS["resolv.conf"],)),
    "wg-show": Reader(_iproute(read_wireguard), (_TEXTS["wg-show"],)),
    "wireguard": Reader(_wireguard, (_TEXTS["wireguard"],), ()),
    "ip_vs_conn": Reader(_ip_vs_conn, (_TEXTS["ip_vs_conn"],), ()),
}


def check(name: str, data: bytes) -> None:
    """Read it; AssertionError or whatever it raised where that is a bug."""
    reader = READERS[name]
    try:
        told = reader.read(data)
    except reader.refusals:
        return
    assert told is None or told[0] == told[1], f"{name}: {told[0]} in, {told[1]} out"


checks = {name: partial(check, name) for name in READERS}

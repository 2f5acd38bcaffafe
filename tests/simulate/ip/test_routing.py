"""Routing decisions, as ``ip route get`` gave them for the same tables (fib_rules, fib_trie)."""

from __future__ import annotations

import json

import pytest

from kptrace.model import Flow, Netns
from kptrace.simulate.ip.routing import (
    RouteLookupResult,
    RouteQuery,
    address_type,
    interface_address,
    lookup,
    masquerade_address,
    route_input,
    source_address,
)
from kptrace.simulate.snapshot.snapshot import Snapshot, read_snapshot

ADDRESSES = [
    {"ifname": "lo", "addr_info": [{"family": "inet", "local": "127.0.0.1", "prefixlen": 8,
                                    "scope": "host"}]},
    {"ifname": "eth0", "addr_info": [
        {"family": "inet", "local": "10.9.0.1", "prefixlen": 24},
        {"family": "inet", "local": "10.9.0.9", "prefixlen": 24, "secondary": True},
        {"family": "inet", "local": "192.168.7.1", "prefixlen": 16},
        {"family": "inet6", "local": "fd02::1", "prefixlen": 64},
        {"family": "inet6", "local": "fe80::1", "prefixlen": 64, "scope": "link"}]},
    {"ifname": "eth1", "addr_info": [{"family": "inet", "local": "10.8.0.1", "prefixlen": 24}]},
    {"ifname": "tun", "addr_info": []},
]  # fmt: skip
ROUTES = [
    {"dst": "default", "gateway": "10.9.0.254", "dev": "eth0", "metric": 100},
    {"dst": "default", "gateway": "10.8.0.254", "dev": "eth1", "metric": 50},
    {"dst": "10.9.0.0/24", "dev": "eth0", "prefsrc": "10.9.0.1", "scope": "link"},
    {"dst": "10.8.0.0/24", "dev": "eth1", "prefsrc": "10.8.0.1", "scope": "link"},
    {"dst": "10.5.0.0/16", "gateway": "10.9.0.2", "dev": "eth0", "metrics": [{"mtu": 1300}]},
    {"dst": "10.5.1.0/24", "type": "blackhole"},
    {"dst": "10.5.2.0/24", "type": "unreachable"},
    {"dst": "10.5.3.0/24", "type": "prohibit"},
    {"dst": "10.6.0.0/16", "nexthops": [
        {"gateway": "10.9.0.2", "dev": "eth0", "weight": 3},
        {"gateway": "10.8.0.2", "dev": "eth1", "weight": 1}]},
    {"dst": "10.7.0.0/16", "gateway": "192.168.9.9", "dev": "eth0"},
    {"dst": "10.10.0.0/16", "dev": "tun"},
    {"dst": "10.5.0.0/16", "gateway": "10.8.0.9", "dev": "eth1", "table": "100"},
    {"dst": "10.5.9.0/24", "type": "throw", "table": "100"},
    {"dst": "10.9.0.1", "type": "local", "dev": "eth0", "table": "local", "prefsrc": "10.9.0.1"},
    {"dst": "10.9.0.255", "type": "broadcast", "dev": "eth0", "table": "local"},
    {"dst": "127.0.0.0/8", "type": "local", "dev": "lo", "table": "local"},
    {"dst": "fd02::/64", "dev": "eth0", "metric": 256},
    {"dst": "fd02::1", "type": "local", "dev": "eth0", "table": "local", "metric": 0},
    {"dst": "fe80::/64", "dev": "eth0", "metric": 256},
]  # fmt: skip
RULES = [
    {"priority": 0, "src": "all", "table": "local"},
    {"priority": 10, "src": "all", "fwmark": "0x200", "fwmask": "0xf00", "table": "100"},
    {"priority": 20, "src": "10.99.0.0", "srclen": 16, "action": "prohibit"},
    {"priority": 30, "src": "all", "iif": "eth1", "table": "main", "suppress_prefixlen": 0},
    {"priority": 40, "src": "all", "iif": "eth1", "action": "unreachable"},
    {"priority": 32766, "src": "all", "table": "main"},
]


def snapshot(sysctls: str = "net.ipv4.ip_forward = 1\n", **files: object) -> Snapshot:
    texts = {"ip-addr.json": ADDRESSES, "ip-route.json": ROUTES, "ip-rule.json": RULES} | files
    return read_snapshot(
        Netns(node="n"),
        {name: json.dumps(value) for name, value in texts.items()} | {"sysctl.txt": sysctls},
    )


def ask(
    dst: str, src: str = "", iif: str = "", mark: int | None = 0, oif: str = ""
) -> RouteLookupResult:
    flow = Flow(protocol="tcp", src=src, dst=dst, sport=1, dport=80)
    return lookup(snapshot(), RouteQuery(flow=flow, iif=iif, mark=mark, oif=oif))


@pytest.mark.parametrize(
    ("dst", "text"),
    [
        ("8.8.8.8", "default via 10.8.0.254 dev eth1 metric 50"),  # the lower metric
        ("10.9.0.7", "10.9.0.0/24 dev eth0"),
        ("10.5.4.4", "10.5.0.0/16 via 10.9.0.2 dev eth0"),
        ("10.9.0.1", "local 10.9.0.1 dev eth0"),
        ("127.1.2.3", "local 127.0.0.0/8 dev lo"),
        ("fd02::9", "fd02::/64 dev eth0 metric 256"),
        ("fd02::1", "local fd02::1 dev eth0"),
        ("fd03::1", "no route"),
    ],
)
def test_the_longest_match(dst: str, text: str) -> None:
    assert ask(dst).text == text


@pytest.mark.parametrize(
    ("dst", "kind"),
    [
        ("10.5.1.1", "blackhole"),
        ("10.5.2.1", "unreachable"),
        ("10.5.3.1", "prohibit"),
        ("10.9.0.255", "broadcast"),
        ("fd03::1", "none"),
    ],
)
def test_types(dst: str, kind: str) -> None:
    found = ask(dst)
    assert found.type == kind
    assert found.usable == (kind == "broadcast")


def test_policy_rules() -> None:
    assert ask("10.5.4.4", mark=0x2FF).text == "10.5.0.0/16 via 10.8.0.9 dev eth1 table 100"
    assert ask("10.5.9.1", mark=0x200).text == "10.5.0.0/16 via 10.9.0.2 dev eth0"  # throw
    assert ask("8.8.8.8", src="10.99.1.1").type == "prohibit"
    assert ask("10.5.4.4", iif="eth1").text == "10.5.0.0/16 via 10.9.0.2 dev eth0"
    assert ask("8.8.8.8", iif="eth1").type == "unreachable"  # a default route is suppressed


def test_a_mark_that_nobody_knows_may_lead_elsewhere() -> None:
    assert ask("10.5.4.4").certain
    unsure = ask("10.5.4.4", mark=None)
    assert unsure.text == "10.5.0.0/16 via 10.9.0.2 dev eth0"
    assert not unsure.certain
    assert ask("10.9.0.1", mark=None).certain, "the local table is asked before"


def test_a_rule_that_nobody_can_evaluate_makes_it_uncertain() -> None:
    rules = [*RULES, {"priority": 5, "src": "all", "uid_start": 7, "uid_end": 7, "table": "100"}]
    made = snapshot(**{"ip-rule.json": rules})
    taken = lookup(made, RouteQuery(flow=Flow(protocol="tcp", src="", dst="10.5.4.4")))
    assert (taken.text, taken.certain) == ("10.5.0.0/16 via 10.9.0.2 dev eth0", False)
    untouched = lookup(made, RouteQuery(flow=Flow(protocol="tcp", src="", dst="10.9.0.7")))
    assert untouched.certain


def test_multipath_and_output_interface() -> None:
    both = ask("10.6.0.1")
    assert [(hop.interface, hop.weight) for hop in both.nexthops] == [("eth0", 3), ("eth1", 1)]
    assert [hop.interface for hop in ask("10.6.0.1", oif="eth1").nexthops] == ["eth1"]
    assert ask("8.8.8.8", oif="eth0").text == "default via 10.9.0.254 dev eth0 metric 100"


@pytest.mark.parametrize(
    ("dst", "source"),
    [
        ("10.9.0.7", "10.9.0.1"),  # the route's own
        ("10.5.4.4", "10.9.0.1"),  # of the gateway's network
        ("10.7.0.1", "192.168.7.1"),
        ("8.8.8.8", "10.8.0.1"),
        ("10.10.0.1", "10.9.0.1"),  # the device has none: the first of another one
        ("127.0.0.1", "127.0.0.1"),
        ("fd02::9", "fd02::1"),
        ("fe80::9", "fe80::1"),
    ],
)
def test_source_address(dst: str, source: str) -> None:
    found = ask(dst, oif="eth0" if dst == "fe80::9" else "")
    assert source_address(snapshot(), found, found.nexthops[0], dst) == source


def test_masquerade_address() -> None:
    made = snapshot()
    hop = ask("10.7.0.1").nexthops[0]
    assert masquerade_address(made, "eth0", hop, "10.7.0.1") == "192.168.7.1"
    assert masquerade_address(made, "eth0", None, "203.0.113.1") == "10.9.0.1"
    assert masquerade_address(made, "eth0", None, "fd02::9") == "fd02::1"
    assert interface_address(made, "tun") == "10.9.0.1"


def incoming(src: str, dst: str, iif: str, sysctls: str) -> RouteLookupResult:
    rules = {"ip-rule.json": RULES[:1] + RULES[-1:]}
    flow = Flow(protocol="tcp", src=src, dst=dst)
    return route_input(snapshot(sysctls, **rules), RouteQuery(flow=flow, iif=iif))


def test_forwarding() -> None:
    on = "net.ipv4.ip_forward = 1\n"
    assert incoming("10.9.0.7", "10.8.0.7", "eth0", on).fault is None
    off = incoming("10.9.0.7", "10.8.0.7", "eth0", "net.ipv4.ip_forward = 0\n")
    assert (off.fault, off.description) == ("ip-forward-off", "net.ipv4.ip_forward=0")
    one = incoming("10.9.0.7", "10.8.0.7", "eth0", on + "net.ipv4.conf.eth0.forwarding = 0\n")
    assert (one.fault, one.description) == ("ip-forward-off", "net.ipv4.conf.eth0.forwarding=0")
    other = incoming("10.9.0.7", "10.8.0.7", "eth0", on + "net.ipv4.conf.eth1.forwarding = 0\n")
    assert other.fault is None
    assert incoming("10.9.0.7", "10.9.0.1", "eth0", "net.ipv4.ip_forward = 0\n").local


@pytest.mark.parametrize(
    ("source", "sysctls", "fault"),
    [
        ("10.9.0.7", "net.ipv4.conf.all.rp_filter = 1", None),
        ("10.8.0.7", "net.ipv4.conf.all.rp_filter = 1", "rp-filter"),  # comes back by eth1
        ("10.8.0.7", "net.ipv4.conf.eth0.rp_filter = 1", "rp-filter"),
        ("10.8.0.7", "net.ipv4.conf.all.rp_filter = 1\nnet.ipv4.conf.eth0.rp_filter = 2", None),
        ("10.8.0.7", "net.ipv4.conf.all.rp_filter = 0", None),
        ("10.5.1.7", "net.ipv4.conf.all.rp_filter = 2", "rp-filter"),  # a blackhole is no way back
        ("10.9.0.1", "net.ipv4.conf.all.rp_filter = 0", "martian"),  # its own address
        ("10.9.0.1", "net.ipv4.conf.eth0.accept_local = 1", None),
    ],
)
def test_reverse_path(source: str, sysctls: str, fault: str | None) -> None:
    found = incoming(source, "10.9.0.9", "eth0", f"net.ipv4.ip_forward = 1\n{sysctls}\n")
    assert found.fault == fault


def test_loopback_addresses_do_not_come_in() -> None:
    assert incoming("10.9.0.7", "127.0.0.1", "eth0", "a = 1").fault == "martian"
    allowed = incoming("10.9.0.7", "127.0.0.1", "eth0", "net.ipv4.conf.eth0.route_localnet = 1")
    assert (allowed.fault, allowed.local) == (None, True)


def test_address_type() -> None:
    made = snapshot()
    kinds = {
        "10.9.0.1": "local",
        "10.9.0.255": "broadcast",
        "10.9.0.7": "unicast",
        "10.5.1.1": "unicast",  # only the local table is asked
        "224.0.0.1": "multicast",
        "127.0.0.1": "local",
        "fd02::1": "local",
        "fd02::9": "unicast",
        "fd03::1": "unreachable",
    }
    assert {text: address_type(made, text) for text in kinds} == kinds
    assert address_type(made, "10.9.0.1", "eth1") == "unicast"


def test_a_dump_without_the_local_table_gets_it_from_the_addresses() -> None:
    made = snapshot(**{"ip-route.json": ROUTES[:5]})
    assert address_type(made, "10.8.0.1") == "local"
    assert lookup(made, RouteQuery(flow=Flow(protocol="tcp", src="", dst="10.8.0.1"))).local

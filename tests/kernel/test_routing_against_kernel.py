"""Routing against the kernel: random tables and rules, each answer that of ``ip route get``.

A namespace with three veths is filled with random routes (prefixes that overlap, metrics, dead
ends, a second table, policy rules) and read back through the same dump files as a node's. What
the kernel answers for random packets, sent from here or come in by an interface, must be what
``lookup`` and ``route_input`` say.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator

import pytest

from kptrace.model import Flow, Netns
from kptrace.simulate.ip.routing import RouteQuery, lookup, route_input, source_address
from kptrace.simulate.snapshot.snapshot import Snapshot, read_snapshot

pytestmark = pytest.mark.kernel

ROUNDS, PACKETS = 6, 40
LINKS = {"w0": "10.1.0.1/24", "w1": "10.2.0.1/24", "w2": "10.3.0.1/16"}
GATEWAYS = {"w0": "10.1.0.9", "w1": "10.2.0.9", "w2": "10.3.0.9"}


def ip(netns: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    argv = ["ip", "-n", netns, *words]
    return subprocess.run(argv, check=check, capture_output=True, text=True)


@pytest.fixture
def netns() -> Iterator[str]:
    name = f"kptrace-route-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        ip(name, "link", "set", "lo", "up")
        for index, (link, own) in enumerate(LINKS.items()):
            ip(name, "link", "add", link, "type", "veth", "peer", "name", f"p{index}")
            for end in (link, f"p{index}"):
                ip(name, "link", "set", end, "up")
            ip(name, "addr", "add", own, "dev", link)
        argv = ["ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv4.ip_forward=1"]
        subprocess.run(argv, check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def fill(netns: str, chance: random.Random) -> None:
    """Random routes and rules in place of the last round's."""
    for table in ("main", "100"):
        ip(netns, "route", "flush", "table", table, "proto", "boot", check=False)
    while ip(netns, "rule", "del", "priority", "50", check=False).returncode == 0:
        pass
    for _ in range(14):
        table = chance.choice(["main", "main", "100"])
        words = ["route", "add", "table", table, *route(chance)]
        ip(netns, *words, "metric", str(chance.choice([0, 5, 9])), check=False)
    for _ in range(2):
        ip(netns, "rule", "add", "priority", "50", *rule(chance), check=False)


def route(chance: random.Random) -> list[str]:
    destination = f"10.{chance.choice([1, 2, 7, 7, 8])}.{chance.choice([0, 4, 5])}.0"
    prefix = f"{destination}/{chance.choice([16, 22, 24, 24, 30])}"
    length = int(prefix.rpartition("/")[2])
    octets = [int(one) for one in destination.split(".")]
    whole = sum(one << shift for one, shift in zip(octets, (24, 16, 8, 0), strict=True))
    whole = whole >> (32 - length) << (32 - length)
    prefix = ".".join(str(whole >> s & 255) for s in (24, 16, 8, 0)) + f"/{length}"
    if chance.random() < 0.1:
        prefix = "default"
    kind = chance.random()
    if kind < 0.3:
        return [chance.choice(["blackhole", "unreachable", "prohibit", "throw"]), prefix]
    link = chance.choice(list(LINKS))
    if kind < 0.5:
        return [prefix, "dev", link]
    return [prefix, "via", GATEWAYS[link], "dev", link]


def rule(chance: random.Random) -> list[str]:
    selector = chance.choice(
        [
            ["fwmark", "0x10/0xf0"],
            ["from", "10.9.0.0/16"],
            ["to", "10.7.0.0/16"],
            ["iif", "w1"],
            ["not", "from", "10.9.0.0/17"],
        ]
    )
    action = chance.choice([["lookup", "100"], ["lookup", "100"], ["prohibit"]])
    return [*selector, *action]


def read(netns: str) -> Snapshot:
    files = {
        name: ip(netns, "-j", *words).stdout
        for name, words in {
            "ip-link.json": ("-d", "link", "show"),
            "ip-addr.json": ("-d", "addr", "show"),
            "ip-route.json": ("route", "show", "table", "all"),
            "ip-rule.json": ("rule", "show"),
        }.items()
    }
    return read_snapshot(Netns(node="n"), files)


def kernel(netns: str, flow: Flow, mark: int, iif: str) -> tuple[str, str, str]:
    """(device, gateway, source) or ("", "", "") where there is no way."""
    words = ["-j", "route", "get", flow.dst]
    words += ["from", flow.src] if flow.src else []
    words += ["iif", iif] if iif else []
    words += ["mark", str(mark)] if mark else []
    got = ip(netns, *words, check=False)
    if got.returncode:
        return "", "", ""
    found = json.loads(got.stdout)[0]
    if found.get("type") in ("blackhole", "unreachable", "prohibit"):
        return "", "", ""
    own = "" if iif else found.get("prefsrc", "")
    local = found.get("type") == "local"
    return "local" if local else found["dev"], found.get("gateway", ""), own


def ours(snapshot: Snapshot, flow: Flow, mark: int, iif: str) -> tuple[str, str, str]:
    query = RouteQuery(flow=flow, mark=mark, iif=iif)
    found = route_input(snapshot, query) if iif else lookup(snapshot, query)
    if not found.usable:
        return "", "", ""
    hop = found.nexthops[0]
    own = "" if iif or flow.src else source_address(snapshot, found, hop, flow.dst)
    return "local" if found.local else hop.interface, hop.gateway, own


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_every_decision_is_the_kernels(netns: str, seed: int) -> None:
    chance = random.Random(seed)
    fill(netns, chance)
    snapshot = read(netns)
    told = ip(netns, "route", "show", "table", "all").stdout + ip(netns, "rule").stdout
    for _ in range(PACKETS):
        octets = (
            chance.choice([1, 2, 3, 7, 7, 8]),
            chance.choice([0, 4, 5, 6]),
            chance.randint(1, 3),
        )
        dst = f"10.{octets[0]}.{octets[1]}.{octets[2]}"
        iif = chance.choice(["", "", "w0", "w1"])
        src = chance.choice(["10.9.1.1", "10.9.200.1"]) if iif else ""
        mark = chance.choice([0, 0, 0x10, 0x13, 0x20])
        flow = Flow(protocol="udp", src=src, dst=dst)
        wanted = kernel(netns, flow, mark, iif)
        assert ours(snapshot, flow, mark, iif) == wanted, (flow, hex(mark), iif, told)

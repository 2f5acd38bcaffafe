"""What is read ahead in a namespace is what is read there when it is asked for, or is not used."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from kptrace.agent import netns as namespace
from kptrace.agent.netns import run_in_netns
from kptrace.agent.nftables.list_cache import BASE_CHAINS, rules_of
from kptrace.agent.nftables.prefetch import Prefetcher
from kptrace.agent.state.rule_queries import RuleReader
from kptrace.rules.live.queries import TABLES, RuleQuery

pytestmark = pytest.mark.kernel

NAME = f"kptrace-ahead-{os.getpid()}"
SERVICES = RuleQuery(kind="chain", backend="nft", family="ip", table="nat", name="KUBE-SERVICES")
FILES = (TABLES, SERVICES.file, SERVICES.part_query("by-destination", "10.96.0.7").file)
RULES = [
    "*nat",
    ":KUBE-SERVICES - [0:0]",
    "-A PREROUTING -j KUBE-SERVICES",
    *(f"-A KUBE-SERVICES -d 10.96.0.{last}/32 -p tcp -j ACCEPT" for last in range(200)),
    "COMMIT\n",
]


@pytest.fixture
def netns() -> Iterator[str]:
    path = namespace.create(NAME)
    try:
        ran("iptables-nft-restore", text="\n".join(RULES))
        yield path
    finally:
        namespace.delete(NAME)


def ran(*words: str, text: str = "") -> None:
    words = ("ip", "netns", "exec", NAME, *words)
    subprocess.run(words, input=text, text=True, check=True)


def read_ahead(netns: str) -> Prefetcher:
    """Its threads stand where the one stands that began them."""
    begun = run_in_netns(
        netns, lambda: Prefetcher(BASE_CHAINS, rules_of("ip", "nat", "KUBE-SERVICES"))
    )
    for thread in threading.enumerate():
        if thread.name == "ahead":
            thread.join(20)
    return begun


def told(rulesets: RuleReader) -> list[dict[str, Any]]:
    try:
        return [json.loads(str(text)) for text in rulesets.read(FILES).values()]
    finally:
        rulesets.close()


def test_it_is_the_same(netns: str) -> None:
    ahead = told(RuleReader(netns, read_ahead(netns)))
    assert ahead == told(RuleReader(netns))
    tables, services, toward = ahead
    assert [chain["name"] for chain in tables["base chains"]] == ["PREROUTING"]
    assert services["count"] == 200
    assert [rule["number"] for rule in toward["rules"]] == [8]


def test_what_was_changed_since_is_read_anew(netns: str) -> None:
    begun = read_ahead(netns)
    ran("iptables-nft", "-t", "nat", "-I", "KUBE-SERVICES", "-d", "10.96.0.7", "-j", "RETURN")
    ran("nft", "add chain ip nat mine { type nat hook postrouting priority 50; }")
    after = told(RuleReader(netns, begun))
    assert after == told(RuleReader(netns))
    tables, services, toward = after
    assert [chain["name"] for chain in tables["base chains"]] == ["PREROUTING", "mine"]
    assert services["count"] == 201
    assert [rule["number"] for rule in toward["rules"]] == [1, 9]

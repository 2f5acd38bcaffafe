"""What the check ``service_proxy`` concludes from the kernel's reports.

The reports are those that real runs show for the fault; that the kernel really sends them is the
kernel tier's to prove.
"""

from __future__ import annotations

from typing import Any

import pytest
from support.diagnose_cases import CLIENT, FILTER, NAT, VIP, A, only, rules

from kptrace.diagnose.checks import (
    service_proxy,
)
from kptrace.model import (
    Endpoint,
    Flow,
    Packet,
)


@pytest.mark.parametrize("source", ["nft", "legacy"])
def test_nobody_behind_the_service(probe: Any, source: str) -> None:
    vip = Packet(flow=VIP, flags="S")
    hits = probe.hits(
        A,
        vip,
        ("filter", "FORWARD", 1, "jump"),
        ("filter", "KUBE-SERVICES", 1, "drop"),
        backend=source,
    )
    told = [*hits, probe.icmp(CLIENT, "eth0", "in", "10.244.1.1")]
    case = probe(
        2, told=told, files=rules(A, FILTER, source), endpoints=(), result="refused", entry=None
    )
    found = only(service_proxy.diagnose(case))
    assert (found.cause, found.node, found.object) == ("no-endpoints", "a", "Service shop/web")


def test_nobody_local(probe: Any) -> None:
    vip = Packet(flow=VIP, flags="S")
    hits = probe.hits(
        A, vip, ("filter", "FORWARD", 1, "jump"), ("filter", "KUBE-SERVICES", 2, "drop")
    )
    case = probe(2, told=hits, files=rules(A, FILTER), entry=None)
    assert only(service_proxy.diagnose(case)).cause == "no-local-endpoints"


def test_a_backend_that_is_no_endpoint(probe: Any, way: Any) -> None:
    dead = Flow(protocol="tcp", src="10.244.1.10", sport=40000, dst="10.244.2.99", dport=8080)
    taps = (*way[:2], (A, "cni0", "in", dead, False))
    hits = probe.hits(
        A,
        Packet(flow=VIP, flags="S"),
        ("nat", "PREROUTING", 1, "jump"),
        ("nat", "KUBE-SEP-X", 1, "accept"),
    )
    found = only(service_proxy.diagnose(probe(taps, told=hits, files=rules(A, NAT), entry=dead)))
    assert (found.cause, found.node, found.object) == ("stale-dnat", "a", "nat KUBE-SEP-X 1")
    assert "10.244.2.99:8080" in found.summary
    assert any("10.244.2.20:8080" in line for line in found.evidence)


def test_a_terminating_endpoint_is_still_one(probe: Any) -> None:
    going = Endpoint(
        address="10.244.2.20", port=8080, port_name="http", ready=False, terminating=True
    )
    assert not tuple(service_proxy.diagnose(probe(10, endpoints=(going,))))


def test_nothing_translates_it(probe: Any, way: Any) -> None:
    taps = (*way[:2], (A, "cni0", "in", VIP, False), (A, "eth0", "out", VIP, False))
    found = only(service_proxy.diagnose(probe(taps, entry=VIP)))
    assert (found.cause, found.node) == ("proxy-rules-missing", "a")
    assert "10.96.1.1:80" in found.object


def test_untranslated_with_nobody_to_send_to_is_another_matter(probe: Any, way: Any) -> None:
    taps = (*way[:2], (A, "eth0", "out", VIP, False))
    assert not tuple(service_proxy.diagnose(probe(taps, entry=VIP, endpoints=())))

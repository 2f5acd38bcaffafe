"""The nftables text where a kernel is not needed to judge it; the kernel's own comparison with
real nodes is tests/kernel/test_proxy_rules.py."""

from __future__ import annotations

from kptrace.lab.dataplane.kubeproxy import nftables
from kptrace.lab.dataplane.kubeproxy.service_port import ProxyNode
from kptrace.model import Endpoint, Service, ServicePort

WEB = Service(
    namespace="ns1",
    name="svc1",
    type="ClusterIP",
    cluster_ips=("10.96.0.50", "fd00:10:96::50"),
    ports=(ServicePort(name="p80", protocol="tcp", port=80, target_port="80"),),
)
POD = Endpoint(address="10.180.0.1", port=80, port_name="p80", node="node-a")
POD6 = Endpoint(address="fd00::1", port=80, port_name="p80", node="node-a")
BARE = ProxyNode(name="node-a", addresses=("172.30.0.11", "fd00:30::11"))
FULL = ProxyNode(
    name="node-a",
    addresses=BARE.addresses,
    cluster_cidrs=("10.244.0.0/16",),
    service_cidrs=("10.96.0.0/16", "10.97.0.0/16", "fd00:10:96::/112"),
)
CHAIN = "service-ULMVA6XW-ns1/svc1/tcp/p80"


def lines(services: list[Service], endpoints: list[Endpoint], node: ProxyNode) -> list[str]:
    text = nftables.render(services, {WEB.key: endpoints}, node, "ip")
    return [line.strip() for line in text.splitlines()]


def test_one_rule_chooses_an_endpoint_and_translates_to_it() -> None:
    found = lines([WEB], [POD], BARE)
    rule = found[found.index(f"chain {CHAIN} {{") + 1]
    assert rule == (
        "meta l4proto tcp dnat ip addr . port to numgen random mod 1 map { 0 : 10.180.0.1 . 80 }"
    )
    assert f"elements = {{ 10.96.0.50 . tcp . 80 : goto {CHAIN} }}" in found
    assert "elements = { 10.180.0.1 . 10.180.0.1 . tcp . 80 }" in found  # its own hairpin


def test_no_endpoints_given_is_the_state_without_endpoints() -> None:
    found = lines([WEB], [], BARE)
    assert (
        'elements = { 10.96.0.50 . tcp . 80 comment "ns1/svc1:p80" : goto reject-chain }' in found
    )
    assert not [line for line in found if line.startswith("chain service-U")]


def test_flags_that_are_absent_leave_their_rules_out() -> None:
    bare, full = lines([WEB], [POD], BARE), lines([WEB], [POD], FULL)
    masquerade, unallocated = "masquerade clusterIP traffic", "unallocated ClusterIPs"
    assert not [line for line in bare if masquerade in line or unallocated in line]
    assert [line for line in full if masquerade in line]
    assert [line for line in full if "ip daddr { 10.96.0.0/16, 10.97.0.0/16 } drop" in line]


def test_ipv6_affinity_writes_brackets_in_rules_and_dots_in_names() -> None:
    sticky = Service(
        namespace="ns1",
        name="svc1",
        type="ClusterIP",
        cluster_ips=WEB.cluster_ips,
        ports=WEB.ports,
        affinity_seconds=90,
    )
    text = nftables.render([sticky], {sticky.key: [POD, POD6]}, BARE, "ip6")
    assert "dnat to [fd00::1]:80" in text
    assert "__fd00..1/80 {" in text
    assert "timeout 90s" in text
    assert "10.180.0.1" not in text

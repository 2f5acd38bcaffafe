"""The lab's iptables rules are those of a real kube-proxy 1.36, chain by chain.

The one liberty: kube-proxy iterates Go maps, so in the chains that all Services share (``SHARED``)
the order of rules of different Services means nothing and two runs of one version differ in it.
There rules are compared as sorted lists, but for the last rule of KUBE-SERVICES, which says itself
that it must be last. Everything else is compared rule for rule, in order, nothing normalised: the
dumps come from a kernel with nfacct objects, and the renderer is told so (``nfacct=True``).
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kptrace.kube.objects.cluster_state import ClusterState, read_cluster_state, read_folder
from kptrace.lab.dataplane.kubeproxy import iptables
from kptrace.lab.dataplane.kubeproxy.service_port import ProxyNode
from kptrace.model import Endpoint, Service, ServicePort
from kptrace.rules.iptables.save import IptablesSave

Family = Literal["ip", "ip6"]
Chains = dict[tuple[str, str], list[str]]

CLUSTER_CIDRS = ("10.244.0.0/16", "fd00:10:244::/48")
SHARED = {"KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-PROXY-FIREWALL"}
SAVES: Mapping[Family, str] = {"ip": "iptables-save.txt", "ip6": "ip6tables-save.txt"}
FAMILIES: tuple[Family, ...] = ("ip", "ip6")
NODES = ("node-a", "node-b")


def proxy_node(documents: ClusterState, name: str, *, nfacct: bool = True) -> ProxyNode:
    node = documents.node(name)
    assert node
    return ProxyNode(
        name=name,
        addresses=node.addresses,
        zone=node.zone,
        cluster_cidrs=CLUSTER_CIDRS,
        service_cidrs=documents.service_cidrs,
        nfacct=nfacct,
    )


def chains(save: str) -> Chains:
    """Rules by table and chain, in order; the kernel's chains only where they hold a rule."""
    found: Chains = {}
    table = ""
    for line in save.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":KUBE-"):
            found[table, line[1:].split()[0]] = []
        elif line.startswith("-A "):
            _, chain, rule = line.split(" ", 2)
            found.setdefault((table, chain), []).append(rule)
    return found


def comparable(found: Chains) -> Chains:
    return {
        (table, chain): sorted(rules) if chain in SHARED else rules
        for (table, chain), rules in found.items()
    }


def compare(api: Path, node_folder: Path, family: Family) -> None:
    documents = read_folder(api)
    node = proxy_node(documents, node_folder.name)
    text = iptables.render(documents.services, documents.endpoints, node, family)
    real = chains((node_folder / SAVES[family]).read_text())
    assert comparable(chains(text)) == comparable(real)
    assert chains(text)["nat", "KUBE-SERVICES"][-1] == real["nat", "KUBE-SERVICES"][-1]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("dump", ["iptables-nft-default", "iptables-legacy-default"])
def test_every_rule_of_a_real_node(dumps: Path, dump: str, node: str, family: Family) -> None:
    compare(dumps / "_api-matrix", dumps / dump / node, family)


@pytest.mark.slow
def test_every_rule_of_ten_thousand_services(dumps: Path) -> None:
    """Above 1,000 endpoints: 61,021 chains without the comments that name endpoints."""
    api = dumps / "_api-scale-10k"
    documents = read_cluster_state(
        {
            f"{kind}.json": gzip.decompress((api / f"{kind}-10k.json.gz").read_bytes())
            for kind in ("services", "endpointslices")
        }
    )
    node = ProxyNode(
        name="node-a",
        addresses=("172.30.0.11",),
        zone="zone-a",
        cluster_cidrs=("10.200.0.0/14",),
        nfacct=True,
    )
    save = dumps / "scale-iptables-legacy-10k" / "iptables-save.txt.gz"
    real = chains(gzip.decompress(save.read_bytes()).decode())
    text = iptables.render(documents.services, documents.endpoints, node, "ip")
    written = comparable(chains(text))
    differing = [key for key, rules in comparable(real).items() if written.get(key) != rules]
    assert differing == []
    assert written.keys() == real.keys()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("node", NODES)
def test_every_rule_of_the_committed_case(cases: Path, node: str, family: Family) -> None:
    compare(cases / "kube-proxy" / "api", cases / "kube-proxy" / node, family)


def test_without_nfacct_objects_only_their_rules_differ(cases: Path) -> None:
    """syncProxyRules asks first: the drop of invalid packets loses its match, the localhost
    NodePort rules are not written at all."""
    case = cases / "kube-proxy"
    documents = read_folder(case / "api")
    node = proxy_node(documents, "node-a", nfacct=False)
    text = iptables.render(documents.services, documents.endpoints, node, "ip")
    real = chains((case / "node-a" / SAVES["ip"]).read_text())
    match = " -m nfacct --nfacct-name  ct_state_invalid_dropped_pkts"
    expected = {
        key: [rule.replace(match, "") for rule in rules if "-m nfacct" not in rule or match in rule]
        for key, rules in real.items()
    }
    assert comparable(chains(text)) == comparable(expected)


def test_a_second_load_does_not_double_the_jumps(cases: Path) -> None:
    documents = read_folder(cases / "kube-proxy" / "api")
    node = proxy_node(documents, "node-a")
    first = iptables.render(documents.services, documents.endpoints, node, "ip")
    again = iptables.render(documents.services, documents.endpoints, node, "ip", jumps=False)
    jumps = {("filter", "INPUT"), ("filter", "FORWARD"), ("filter", "OUTPUT")}
    jumps |= {("nat", "PREROUTING"), ("nat", "OUTPUT"), ("nat", "POSTROUTING")}
    assert set(chains(first)) - set(chains(again)) == jumps
    assert ":INPUT" not in again


# --- states that the dumps do not hold ----------------------------------------------------------

WEB = Service(
    namespace="shop",
    name="web",
    type="ClusterIP",
    cluster_ips=("10.96.0.50",),
    ports=(ServicePort(name="http", protocol="tcp", port=80, target_port="8080"),),
)
POD = Endpoint(address="10.244.1.5", port=8080, port_name="http", node="node-a")
BARE = ProxyNode(name="node-a", addresses=("172.30.0.11",))


def test_no_endpoints_given_is_the_state_without_endpoints() -> None:
    found = chains(iptables.render([WEB], {}, BARE, "ip"))
    assert found["filter", "KUBE-SERVICES"] == [
        '-d 10.96.0.50/32 -p tcp -m comment --comment "shop/web:http has no endpoints"'
        " -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable"
    ]
    assert not [chain for _, chain in found if chain.startswith("KUBE-SVC")]


def test_without_cluster_cidr_nothing_is_masqueraded_on_the_way_to_a_cluster_ip() -> None:
    found = chains(iptables.render([WEB], {WEB.key: [POD]}, BARE, "ip"))
    rules = [rule for (_, chain), rules in found.items() if "SVC" in chain for rule in rules]
    assert len(rules) == 1
    assert "KUBE-MARK-MASQ" not in rules[0]


def test_above_a_thousand_endpoints_no_comment_names_them() -> None:
    """The threshold of kube-proxy: more than 1,000 endpoints in the cluster, not exactly 1,000."""

    def rendered(count: int) -> str:
        pods = [
            Endpoint(address=f"10.244.{i // 250}.{i % 250 + 1}", port=8080, port_name="http")
            for i in range(count)
        ]
        return iptables.render([WEB], {WEB.key: pods}, BARE, "ip")

    assert "shop/web:http -> 10.244.0.1:8080" in rendered(1000)
    large = rendered(1001)
    assert " -> " not in large
    assert '--comment "shop/web:http"' not in large
    assert "shop/web:http cluster IP" in large


# --- what is written can be read ----------------------------------------------------------------

name = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
protocols = st.sampled_from(["tcp", "udp", "sctp"])
numbers = st.integers(1, 65535)
booleans = st.booleans()


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Service, tuple[Endpoint, ...]]:
    port = ServicePort(
        name=draw(st.one_of(st.just(""), name)),
        protocol=draw(protocols),
        port=draw(numbers),
        target_port="8080",
        node_port=draw(st.one_of(st.just(0), st.integers(30000, 32767))),
    )
    service = Service(
        namespace=draw(name),
        name=draw(name),
        type=draw(st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"])),
        cluster_ips=("10.96.0.9", "fd00:10:96::9"),
        external_ips=draw(st.sampled_from([(), ("192.0.2.7",), ("192.0.2.7", "2001:db8::7")])),
        load_balancer_ips=draw(st.sampled_from([(), ("192.0.2.8",), ("2001:db8::8",)])),
        source_ranges=draw(st.sampled_from([(), ("172.30.0.0/24", "2001:db8:1::/48")])),
        ports=(port,),
        affinity_seconds=draw(st.sampled_from([0, 1, 10800])),
        internal_policy=draw(st.sampled_from(["Cluster", "Local"])),
        external_policy=draw(st.sampled_from(["Cluster", "Local"])),
        health_check_node_port=draw(st.sampled_from([0, 31000])),
    )
    endpoints = tuple(
        Endpoint(
            address=draw(st.sampled_from(["10.244.1.{}", "fd00:10:244:1::{}"])).format(number),
            port=draw(numbers),
            protocol=port.protocol,
            port_name=port.name,
            node=draw(st.sampled_from(["", *NODES])),
            ready=draw(booleans),
            serving=draw(booleans),
            terminating=draw(booleans),
        )
        for number in range(1, draw(st.integers(0, 5)) + 1)
    )
    return service, endpoints


@given(world=worlds(), family=st.sampled_from(FAMILIES), nfacct=booleans)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_what_is_written_reads_without_opaque_parts(
    world: tuple[Service, tuple[Endpoint, ...]], family: Family, nfacct: bool
) -> None:
    service, endpoints = world
    node = ProxyNode(
        name="node-a",
        addresses=("172.30.0.11", "fd00:30::11"),
        cluster_cidrs=CLUSTER_CIDRS,
        nfacct=nfacct,
    )
    text = iptables.render([service], {service.key: endpoints}, node, family)
    save = IptablesSave(text, "rendered", "nft", family)
    known = {(table.name, chain) for table in save.tables() for chain in save.chain_names(table)}
    for table in save.tables():
        for chain in save.chain_names(table):
            found = save.chain(table, chain)
            assert found
            for rule in found.rules:
                assert "opaque" not in repr(rule.body).lower(), rule.text
                target = rule.text.rpartition(" -j ")[2].split(" ")[0]
                assert not target.startswith("KUBE-") or (table.name, target) in known

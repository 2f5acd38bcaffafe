"""The names are the real ones: every chain and set that kube-proxies gave a Service."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kptrace.kube.objects.cluster_state import ClusterState, read_folder
from kptrace.model import Endpoint, Service, ServicePort
from kptrace.rules.kubeproxy.chain_names import (
    PortName,
    endpoint_text,
    iptables_chain,
    iptables_endpoint_chain,
    nftables_chain,
    nftables_endpoint_name,
    read_nftables_name,
    service_port_name,
)

WEB = Service(namespace="ns1", name="svc1", type="ClusterIP", cluster_ips=("172.30.0.41",))
P80 = ServicePort(name="p80", protocol="tcp", port=80, target_port="80")
UNNAMED = ServicePort(name="", protocol="udp", port=53, target_port="53")
EP = Endpoint(address="10.180.0.1", port=80, port_name="p80")


def test_a_port_without_a_name_leaves_no_colon() -> None:
    assert service_port_name(WEB, P80) == "ns1/svc1:p80"
    assert service_port_name(WEB, UNNAMED) == "ns1/svc1"


def test_names_of_nftables_mode_in_kube_proxys_own_comments() -> None:
    """The two examples that pkg/proxy/nftables gives for its functions."""
    assert nftables_chain("service", WEB, P80) == "service-ULMVA6XW-ns1/svc1/tcp/p80"
    name = nftables_endpoint_name("endpoint", WEB, P80, EP)
    assert name == "endpoint-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80"


def test_the_best_known_chains_of_iptables_mode() -> None:
    """Every cluster with the usual names has these: kubernetes:https and kube-dns."""
    kubernetes = Service(namespace="default", name="kubernetes", type="ClusterIP")
    dns = Service(namespace="kube-system", name="kube-dns", type="ClusterIP")
    https = ServicePort(name="https", protocol="tcp", port=443, target_port="6443")
    udp = ServicePort(name="dns", protocol="udp", port=53, target_port="53")
    assert iptables_chain("SVC", kubernetes, https) == "KUBE-SVC-NPX46M4PTMTKRN6Y"
    assert iptables_chain("SVC", dns, udp) == "KUBE-SVC-TCOU7JCQXEZGVUNU"


def test_a_name_that_is_too_long_is_cut_at_240_and_cannot_be_read() -> None:
    long = Service(namespace="n" * 63, name="s" * 63, type="ClusterIP")
    port = ServicePort(name="p" * 63, protocol="sctp", port=1, target_port="1")
    six = Endpoint(address="fd00:1111:2222:3333:4444:5555:6666:7777", port=65535)
    base = nftables_endpoint_name("affinity", long, port, six).removeprefix("affinity-")
    assert len(base) == 240
    assert base.endswith("...")
    assert read_nftables_name(f"affinity-{base}") is None
    assert read_nftables_name(nftables_chain("service", long, port))


def test_ipv6_is_read_back_with_its_colons() -> None:
    six = Endpoint(address="fd00:10:244:1::11", port=8080)
    name = nftables_endpoint_name("endpoint", WEB, P80, six)
    assert ":" not in name
    assert read_nftables_name(name) == PortName(
        kind="endpoint",
        namespace="ns1",
        name="svc1",
        protocol="tcp",
        port="p80",
        address="fd00:10:244:1::11",
        endpoint_port=8080,
    )


@pytest.mark.parametrize(
    "text",
    [
        "services",
        "reject-chain",
        "service-ips",
        "service-ULMVA6XW-ns1/svc1/tcp",
        "service-ULMVA6XX-ns1/svc1/tcp/p80",  # the hash is another's
        "other-ULMVA6XW-ns1/svc1/tcp/p80",
        "",
    ],
)
def test_other_names_say_nothing(text: str) -> None:
    assert read_nftables_name(text) is None


# --- against what real kube-proxies wrote -------------------------------------------------------


def api(dumps: Path) -> ClusterState:
    return read_folder(dumps / "_api-matrix")


def ports(documents: ClusterState) -> Iterator[tuple[Service, ServicePort]]:
    return ((service, port) for service in documents.services for port in service.ports)


def test_iptables_dispatch_of_every_service_goes_to_the_computed_chain(dumps: Path) -> None:
    """The comment names the Service port, the target is the hash: both by the real kube-proxy."""
    chains = {}
    for service, port in ports(api(dumps)):
        name = service_port_name(service, port)
        chains[name] = {iptables_chain(kind, service, port) for kind in ("SVC", "SVL")}
    seen = set()
    for node in ("node-a", "node-b"):
        for family in ("iptables", "ip6tables"):
            text = (dumps / "iptables-legacy-default" / node / f"{family}-save.txt").read_text()
            pairs = re.findall(r'KUBE-SERVICES .*"(\S+) cluster IP".* -j (KUBE-\S+)', text)
            assert pairs
            for name, chain in pairs:
                assert chain in chains[name]
                seen.add(name)
    # 44 ports in the API; headless and other-proxy are not programmed, five have no endpoints
    assert len(seen) == 37


def test_iptables_endpoint_chains_are_the_computed_ones(dumps: Path) -> None:
    documents = api(dumps)
    computed = {
        f"{service_port_name(service, port)} -> {endpoint_text(kind_)}": iptables_endpoint_chain(
            service, port, kind_
        )
        for service, port in ports(documents)
        for kind_ in documents.endpoints.get(service.key, ())
        if kind_.port_name == port.name
    }
    text = (dumps / "iptables-nft-default" / "node-b" / "iptables-save.txt").read_text()
    pairs = set(re.findall(r'--comment "(\S+ -> \S+)".* -j (KUBE-SEP-\S+)', text))
    assert len(pairs) > 50
    assert {computed[arrow] for arrow, _ in pairs} == {chain for _, chain in pairs}
    assert all(computed[arrow] == chain for arrow, chain in pairs)


def test_every_name_of_nftables_mode_reads_back_to_its_service(dumps: Path) -> None:
    known = {
        (service.namespace, service.name, port.protocol, port.name)
        for service, port in ports(api(dumps))
    }
    read = set()
    for node in ("node-a", "node-b"):
        ruleset = json.loads((dumps / "nftables-default" / node / "nft-ruleset.json").read_text())
        for item in ruleset["nftables"]:
            ((kind, value),) = item.items()
            if kind in ("chain", "set") and "/" in value["name"]:
                meaning = read_nftables_name(value["name"])
                assert meaning, value["name"]
                assert (meaning.namespace, meaning.name, meaning.protocol, meaning.port) in known
                read.add(meaning.kind)
    assert read == {"service", "local", "external", "firewall", "endpoint", "affinity"}

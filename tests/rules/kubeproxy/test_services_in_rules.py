"""The Services that the rules alone name, against those of the API that they were made from."""

from __future__ import annotations

from pathlib import Path

import pytest

from kptrace.kube.objects.cluster_state import ClusterState, read_folder
from kptrace.model import Service
from kptrace.rules.kubeproxy.expected_endpoints import why_not_programmed
from kptrace.rules.kubeproxy.services_in_rules import services_of
from kptrace.rules.load import load_ruleset

MODES = {
    "iptables": ("iptables-save.txt", "ip6tables-save.txt"),
    "nftables": ("nft-ruleset.json",),
}


@pytest.fixture
def api(cases: Path) -> ClusterState:
    return read_folder(cases / "kube-proxy" / "api")


def services_by_key(cases: Path, mode: str) -> dict[str, Service]:
    folder = cases / "kube-proxy" / "node-a"
    ruleset = load_ruleset({name: (folder / name).read_text() for name in MODES[mode]})
    return {service.key: service for service in services_of(ruleset)}


@pytest.mark.parametrize("mode", MODES)
def test_every_service_with_its_addresses_and_ports(
    cases: Path, api: ClusterState, mode: str
) -> None:
    actual = services_by_key(cases, mode)
    expected = {item.key: item for item in api.services if not why_not_programmed(item)}
    assert set(actual) == set(expected)
    for key, service in expected.items():
        assert set(actual[key].cluster_ips) == set(service.cluster_ips)
        assert set(actual[key].external_ips) == set(service.external_ips)
        assert set(actual[key].load_balancer_ips) == set(service.load_balancer_ips)
        ports = {(p.name, p.protocol, p.port, p.node_port) for p in actual[key].ports}
        assert ports == {(p.name, p.protocol, p.port, p.node_port) for p in service.ports}


@pytest.mark.parametrize("mode", MODES)
def test_one_service_alone(cases: Path, mode: str) -> None:
    folder = cases / "kube-proxy" / "node-a"
    ruleset = load_ruleset({name: (folder / name).read_text() for name in MODES[mode]})
    assert services_of(ruleset, "default/lb") == (services_by_key(cases, mode)["default/lb"],)


def test_the_order_is_that_of_the_names(cases: Path) -> None:
    assert list(services_by_key(cases, "iptables")) == sorted(services_by_key(cases, "iptables"))


def test_ports_without_a_name_as_kube_proxy_wrote_them_until_1_20() -> None:
    """The name then ends in a colon."""
    text = (
        "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n"
        "-A KUBE-SERVICES -d 10.96.44.7/32 -p tcp -m comment "
        '--comment "shop/front: cluster IP" -m tcp --dport 80 -j KUBE-SVC-XUDWKGP6R752JHRO\n'
        '-A KUBE-NODEPORTS -p tcp -m comment --comment "shop/front:" -m tcp --dport 30444 '
        "-j KUBE-XLB-XUDWKGP6R752JHRO\nCOMMIT\n"
    )
    (service,) = services_of(load_ruleset({"iptables-save.txt": text}))
    assert (service.key, service.cluster_ips) == ("shop/front", ("10.96.44.7",))
    (port,) = service.ports
    assert (port.name, port.protocol, port.port, port.node_port) == ("", "tcp", 80, 30444)


def test_hostile_comments_name_nothing() -> None:
    line = (
        '-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment "{}" -m tcp --dport 80 -j X'
    )
    comments = ("../etc/passwd cluster IP", "a/b c cluster IP", "web cluster IP", "a/b", "a/b/c")
    rules = "\n".join(line.format(comment) for comment in comments)
    text = f"*nat\n:KUBE-SERVICES - [0:0]\n:X - [0:0]\n{rules}\nCOMMIT\n"
    assert services_of(load_ruleset({"iptables-save.txt": text})) == ()

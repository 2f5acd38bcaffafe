"""What both proxies are told about a Service port."""

from __future__ import annotations

from msgspec.structs import replace

from kptrace.lab.dataplane.kubeproxy.service_port import ProxiedPort, ProxyNode, proxied_ports
from kptrace.model import Endpoint, Service, ServicePort

LB = Service(
    namespace="shop",
    name="lb",
    type="LoadBalancer",
    cluster_ips=("10.96.0.5",),
    load_balancer_ips=("192.0.2.10",),
    source_ranges=("198.51.100.0/24", "172.30.0.0/24"),
    ports=(ServicePort(name="", protocol="tcp", port=80, target_port="80", node_port=30080),),
    external_policy="Local",
    health_check_node_port=31000,
)
NODE = ProxyNode(name="node-a", addresses=("172.30.0.11", "fd00:30::11"))
REMOTE = Endpoint(address="10.244.2.5", port=80, node="node-b")
LOCAL = Endpoint(address="10.244.1.5", port=80, node="node-a")


def port(service: Service, *endpoints: Endpoint) -> ProxiedPort:
    (found,) = proxied_ports([service], {service.key: endpoints}, NODE, "ip")
    return found


def test_a_family_without_a_cluster_ip_has_no_port() -> None:
    assert list(proxied_ports([LB], {}, NODE, "ip6")) == []
    assert list(proxied_ports([replace(LB, proxy_name="other")], {}, NODE, "ip")) == []


def test_nobody_somebody_elsewhere_somebody_here() -> None:
    def state(*endpoints: Endpoint) -> tuple[bool, bool, bool, bool]:
        found = port(LB, *endpoints)
        return (
            found.has_endpoints,
            found.has_internal_endpoints,
            found.has_external_endpoints,
            found.uses_external_chain,
        )

    assert state() == (False, False, False, False)
    assert state(REMOTE) == (True, True, False, True)
    assert state(LOCAL) == (True, True, True, True)


def test_the_load_balancers_own_address_may_come_in_where_the_node_is_in_range() -> None:
    found = port(LB, LOCAL)
    assert found.uses_firewall
    assert found.allowed_sources("172.30.0.11")[-1] == "192.0.2.10"
    assert found.allowed_sources("172.31.0.11") == LB.source_ranges
    assert not port(LB).uses_firewall


def test_only_a_local_load_balancer_has_a_health_check() -> None:
    assert port(LB).health_check_port == 31000
    assert port(replace(LB, external_policy="Cluster")).health_check_port == 0
    assert port(replace(LB, type="NodePort")).health_check_port == 0


def test_the_nodes_address_and_cidr_by_family() -> None:
    assert (NODE.address("ip"), NODE.address("ip6")) == ("172.30.0.11", "fd00:30::11")
    assert (NODE.cluster_cidr("ip"), NODE.cluster_cidr("ip6")) == ("", "")

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from kptrace.lab import workloads
from kptrace.lab.address_plan import SERVICE_NETWORK, cluster_ips, plan
from kptrace.model.errors import UsageError


def test_numbers_are_those_of_the_recorded_nodes() -> None:
    """From the recorded nodes' ip-addr.json, ip-route.json and nodes.json."""
    node = plan().node("node-b")
    assert node.addresses == ("172.30.0.12", "fd00:30::12")
    assert node.pod_cidrs == ("10.244.2.0/24", "fd00:10:244:2::/64")
    assert node.gateways == ("10.244.2.1", "fd00:10:244:2::1")
    assert node.tunnel_addresses[0] == "10.244.2.0"
    assert node.vtep_macs[0] == "02:00:00:00:00:02"
    assert node.bridge_mac == "0a:58:0a:f4:02:01"
    assert plan().pod_mtu == 1450
    assert plan(network="host-gw").pod_mtu == 1500


@pytest.mark.parametrize("nodes", [2, 3, 9])
def test_nothing_is_given_twice(nodes: int) -> None:
    made = plan("x", nodes)
    addresses = [address for pod in made.pods for address in pod.addresses]
    addresses += [address for node in made.nodes for address in (*node.addresses, *node.gateways)]
    addresses += [ip for service in workloads.SERVICES for ip in cluster_ips(service)]
    assert len(set(addresses)) == len(addresses)
    macs = [pod.mac for pod in made.pods] + [node.bridge_mac for node in made.nodes]
    macs += [mac for node in made.nodes for mac in node.vtep_macs]
    assert len(set(macs)) == len(macs)
    assert len(set(made.namespaces)) == len(made.namespaces) == 1 + nodes + len(made.pods)
    assert len({pod.interface for pod in made.pods}) == len(made.pods)
    assert all(len(pod.interface) <= 15 for pod in made.pods)


def test_addresses_lie_in_their_networks() -> None:
    made = plan(nodes=9)
    for pod in made.pods:
        for address, cidr in zip(pod.addresses, made.node(pod.node).pod_cidrs, strict=True):
            assert ip_address(address) in ip_network(cidr)
    ips = [ip for service in workloads.SERVICES for ip in cluster_ips(service)]
    assert all(any(ip_address(ip) in ip_network(net) for net in SERVICE_NETWORK) for ip in ips)


def test_where_the_pods_are() -> None:
    made = plan()
    nodes = {pod.name: pod.node for pod in made.pods}
    assert nodes["client"] == "node-a"
    assert nodes["client-b"] == "node-b"
    assert nodes["near-1"] == "node-a"
    assert nodes["remote-1"] == "node-b"
    assert {nodes[f"web-{number}"] for number in (1, 2, 3)} == {"node-a", "node-b"}
    assert made.pod("shop/client").netns == "kpt-default-shop.client"


def test_every_target_port_is_listened_on() -> None:
    made = plan()
    for service in workloads.SERVICES:
        for pod in made.backends(service):
            names = {listener.name for listener in pod.listeners}
            assert {port.target for port in service.ports} <= names


def test_labs_whose_names_begin_alike_share_no_namespace() -> None:
    names = ("a", "a-shop", "a-node", "a-node-a", "a-underlay", "a-kube-system")
    spaces = [space for name in names for space in plan(name, 9).namespaces]
    assert len(set(spaces)) == len(spaces)


@pytest.mark.parametrize("name", ["", "A", "a b", "../x", "a/b", "-a", "a-", "a.b", "a" * 33, "é"])
def test_bad_name(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a lab's name"):
        plan(name)


def test_bad_values_say_what_is_possible() -> None:
    with pytest.raises(UsageError, match="2 to 9 nodes"):
        plan(nodes=1)
    with pytest.raises(
        UsageError, match="--proxy 'ipvz' is none of: iptables, iptables-legacy, nft"
    ):
        plan(proxy="ipvz")
    with pytest.raises(UsageError, match="--network 'udp' is none of: vxlan, host-gw"):
        plan(network="udp")

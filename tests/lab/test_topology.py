from __future__ import annotations

import json

from kptrace.lab import topology
from kptrace.lab.address_plan import plan


def links(network: str, which: int = 0) -> tuple[str, ...]:
    return topology.recipes(plan(network=network))[1][which].links


def test_vxlan_is_what_flannel_makes() -> None:
    """The addresses, flags and MACs of a recorded node's ip-route, ip-neigh and bridge-fdb."""
    lines = links("vxlan")
    assert "route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink" in lines
    neighbour = "neigh replace 10.244.2.0 dev flannel.1 lladdr 02:00:00:00:00:02 nud permanent"
    assert neighbour in lines
    assert "addr add 10.244.1.0/32 dev flannel.1" in lines
    (device,) = [line for line in lines if line.startswith("link add flannel.1 ")]
    assert device == (
        "link add flannel.1 address 02:00:00:00:00:01 mtu 1450 type vxlan id 1"
        " local 172.30.0.11 dev eth0 dstport 8472 nolearning"
    )
    fdb = topology.recipes(plan())[1][0].fdb
    assert fdb[0] == "fdb replace 02:00:00:00:00:02 dev flannel.1 dst 172.30.0.12 self permanent"


def test_host_gw_has_routes_and_no_device() -> None:
    lines = links("host-gw", 1)
    assert "route add 10.244.1.0/24 via 172.30.0.11 dev eth0" in lines
    assert "route add fd00:10:244:1::/64 via fd00:30::11 dev eth0" in lines
    assert not [line for line in lines if "flannel" in line]
    assert topology.recipes(plan(network="host-gw"))[1][1].fdb == ()


def test_routes_to_every_other_node() -> None:
    recipe = topology.recipes(plan(nodes=4))[1][1]
    routes = [line for line in recipe.links if line.startswith("route add 10.244.")]
    assert [line.split()[2] for line in routes] == [
        "10.244.1.0/24", "10.244.3.0/24", "10.244.4.0/24",
    ]  # fmt: skip


def test_every_bridge_port_has_hairpin() -> None:
    lines = links("vxlan")
    ports = [line.split()[2] for line in lines if " master cni0" in line]
    assert len(ports) == len(plan().pods_on("node-a"))
    for port in ports:
        assert f"link set {port} type bridge_slave hairpin on" in lines


def test_no_line_can_be_two() -> None:
    """A newline or a quote in a batch would be another command."""
    text = json.dumps([one.links for step in topology.recipes(plan(nodes=9)) for one in step])
    assert not {"\\n", "'", ";", "\\"} & set(text.replace('"', ""))


def test_resolv_conf_of_a_pod() -> None:
    pod = plan().pod("kube-system/coredns-1")
    assert topology.resolv_conf(pod, "10.96.0.10") == (
        "nameserver 10.96.0.10\n"
        "search kube-system.svc.cluster.local svc.cluster.local cluster.local\n"
        "options ndots:5\n"
    )

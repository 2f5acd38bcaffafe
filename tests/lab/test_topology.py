"""The network objects of a lab: what Flannel and the bridge plugin leave on a node."""

from __future__ import annotations

from kptrace.lab import topology
from kptrace.lab.address_plan import plan
from kptrace.lab.network_objects import (
    AddAddress,
    AddFdbEntry,
    AddLink,
    AddNeighbour,
    AddRoute,
    NetworkObject,
    SetHairpin,
    SetLink,
)


def node_objects(network: str, number: int = 0, nodes: int = 2) -> tuple[NetworkObject, ...]:
    lab_plan = plan(nodes=nodes, network=network)
    return topology.node_setup(lab_plan, lab_plan.nodes[number]).objects


def test_vxlan_is_what_flannel_makes() -> None:
    """The addresses, flags and MACs of a recorded node's ip-route, ip-neigh and bridge-fdb."""
    objects = node_objects("vxlan")
    device, mac = "flannel.1", "02:00:00:00:00:02"
    assert (
        AddRoute(destination="10.244.2.0/24", gateway="10.244.2.0", device=device, onlink=True)
        in objects
    )
    assert AddNeighbour(address="10.244.2.0", device=device, mac=mac) in objects
    assert AddFdbEntry(mac=mac, device=device, destination="172.30.0.12") in objects
    assert AddAddress(device=device, address="10.244.1.0/32") in objects
    assert (
        AddLink(
            name=device,
            kind="vxlan",
            mac="02:00:00:00:00:01",
            mtu=1450,
            vni=1,
            local="172.30.0.11",
            lower="eth0",
            port=8472,
            learning=False,
        )
        in objects
    )


def test_host_gw_has_routes_and_no_device() -> None:
    objects = node_objects("host-gw", 1)
    assert AddRoute(destination="10.244.1.0/24", gateway="172.30.0.11", device="eth0") in objects
    route6 = AddRoute(destination="fd00:10:244:1::/64", gateway="fd00:30::11", device="eth0")
    assert route6 in objects
    assert not [item for item in objects if "flannel" in str(item)]
    assert not [item for item in objects if isinstance(item, AddFdbEntry)]


def test_routes_to_every_other_node() -> None:
    objects = node_objects("vxlan", 1, nodes=4)
    routes = [item.destination for item in objects if isinstance(item, AddRoute)]
    assert [destination for destination in routes if destination.startswith("10.244.")] == [
        "10.244.1.0/24", "10.244.3.0/24", "10.244.4.0/24",
    ]  # fmt: skip


def test_every_bridge_port_has_hairpin() -> None:
    objects = node_objects("vxlan")
    ports = [item.name for item in objects if isinstance(item, SetLink) and item.master == "cni0"]
    assert len(ports) == len(plan().pods_on("node-a"))
    assert [item.port for item in objects if isinstance(item, SetHairpin)] == ports


def test_resolv_conf_of_a_pod() -> None:
    pod = plan().pod("kube-system/coredns-1")
    assert topology.resolv_conf(pod, "10.96.0.10") == (
        "nameserver 10.96.0.10\n"
        "search kube-system.svc.cluster.local svc.cluster.local cluster.local\n"
        "options ndots:5\n"
    )

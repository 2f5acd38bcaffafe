"""The Cilium-like lab on paper: what goes together, names, links, rules."""

from __future__ import annotations

import pytest

from kptrace.lab import topology
from kptrace.lab.address_plan import plan
from kptrace.lab.dataplane.cilium import network as cilium
from kptrace.lab.network_objects import AddFdbEntry, AddLink, Peer
from kptrace.model.errors import UsageError


@pytest.mark.parametrize(
    ("proxy", "network"),
    [("cilium", "vxlan"), ("cilium", "calico-direct"), ("iptables", "cilium-vxlan")],
)
def test_the_proxy_and_the_network_go_together(proxy: str, network: str) -> None:
    with pytest.raises(UsageError, match="do not go together"):
        plan("x", 2, proxy, network)


def test_a_name_fits_a_device() -> None:
    names = {pod.interface for pod in plan("x", 2, "cilium", "cilium-vxlan").pods}
    assert len(names) == len(plan("x").pods)
    assert all(name.startswith("lxc") and len(name) == 15 for name in names)


@pytest.mark.parametrize("network", ["cilium-vxlan", "cilium-direct"])
def test_a_tunnel_only_where_there_is_one(network: str) -> None:
    lab_plan = plan("x", 3, "cilium", network)
    objects = topology.node_setup(lab_plan, lab_plan.nodes[0]).objects
    tunnelled = network == "cilium-vxlan"
    assert any("cilium_vxlan" in str(item) for item in objects) == tunnelled
    entries = [item for item in objects if isinstance(item, AddFdbEntry)]
    assert len(entries) == (2 if tunnelled else 0)
    assert AddLink(name="cilium_host", kind="veth", peer=Peer(name="cilium_net")) in objects
    assert not any("cni0" in str(item) for item in objects)
    assert lab_plan.pod_mtu == (1450 if tunnelled else 1500)


def test_pods_masquerade_towards_the_world_alone() -> None:
    text = cilium.rules(plan("x", 2, "cilium", "cilium-direct").nodes[0], 0)
    (masquerade,) = [line for line in text.splitlines() if "MASQUERADE" in line]
    assert "-s 10.244.1.0/24 ! -d 10.244.0.0/16 ! -o cilium_+" in masquerade

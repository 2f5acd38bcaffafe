"""The bridge plugin alone: static routes, and a masquerading chain a pod."""

from __future__ import annotations

import re

from kptrace.lab import manifests, topology
from kptrace.lab.address_plan import plan
from kptrace.lab.dataplane import bridge
from kptrace.lab.network_objects import AddRoute

PLAN = plan(network="bridge")


def test_routes_are_via_the_nodes_and_no_device_carries_them() -> None:
    objects = topology.node_setup(PLAN, PLAN.node("node-b")).objects
    assert AddRoute(destination="10.244.1.0/24", gateway="172.30.0.11", device="eth0") in objects
    route6 = AddRoute(destination="fd00:10:244:1::/64", gateway="fd00:30::11", device="eth0")
    assert route6 in objects
    assert not [item for item in objects if "flannel" in str(item)]
    assert PLAN.pod_mtu == 1500


def test_nobody_annotates_the_nodes() -> None:
    assert '"annotations": {}' in manifests.documents(PLAN)["nodes.json"]


def test_each_pod_has_a_chain_named_as_the_plugins_name_it() -> None:
    """28 characters; ``printf 'pods%s' "$(printf shop/client | sha256sum | cut -c-64)"`` through
    sha512sum begins with 11b27b5c5519cdc676e52d1b.
    """
    assert bridge.chain(PLAN.pod("shop/client")) == "CNI-11b27b5c5519cdc676e52d1b"
    text = bridge.masquerading(PLAN, PLAN.node("node-a"), 0)
    chains = re.findall(r"^:(CNI-[0-9a-f]{24}) ", text, re.MULTILINE)
    assert len(set(chains)) == len(PLAN.pods_on("node-a"))
    assert "-A POSTROUTING -s 10.244.1.10 " in text
    assert f"-A {chains[0]} -d 10.244.1.0/24 " in text
    assert "! -d ff00::/8" in bridge.masquerading(PLAN, PLAN.node("node-a"), 1)

"""The bridge plugin alone: static routes, and a masquerading chain a pod."""

from __future__ import annotations

import re

from kptrace.lab import manifests, topology
from kptrace.lab.address_plan import plan
from kptrace.lab.dataplane import bridge

MADE = plan(network="bridge")


def test_routes_are_via_the_nodes_and_no_device_carries_them() -> None:
    links = topology.node(MADE, MADE.node("node-b")).links
    assert "route add 10.244.1.0/24 via 172.30.0.11 dev eth0" in links
    assert "route add fd00:10:244:1::/64 via fd00:30::11 dev eth0" in links
    assert not [line for line in links if "flannel" in line]
    assert MADE.pod_mtu == 1500


def test_nobody_annotates_the_nodes() -> None:
    assert '"annotations": {}' in manifests.documents(MADE)["nodes.json"]


def test_each_pod_has_a_chain_named_as_the_plugins_name_it() -> None:
    """28 characters; ``printf 'pods%s' "$(printf shop/client | sha256sum | cut -c-64)"`` through
    sha512sum begins with 11b27b5c5519cdc676e52d1b.
    """
    assert bridge.chain(MADE.pod("shop/client")) == "CNI-11b27b5c5519cdc676e52d1b"
    text = bridge.masquerading(MADE, MADE.node("node-a"), 0)
    chains = re.findall(r"^:(CNI-[0-9a-f]{24}) ", text, re.MULTILINE)
    assert len(set(chains)) == len(MADE.pods_on("node-a"))
    assert "-A POSTROUTING -s 10.244.1.10 " in text
    assert f"-A {chains[0]} -d 10.244.1.0/24 " in text
    assert "! -d ff00::/8" in bridge.masquerading(MADE, MADE.node("node-a"), 1)

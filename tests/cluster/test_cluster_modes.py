"""Modes and backends of a running cluster: there are the rules and routes of that mode alone."""

from __future__ import annotations

import json

import pytest
from cluster.ground.cluster import Cluster
from cluster.ground.connection import from_node, from_pod
from cluster.ground.plan import BACKENDS, Backend

# where the rules of kube-proxy are in each mode: the question, and the sign of them in its answer
SIGNS = {
    "iptables": ("iptables-nft-save", "-A KUBE-SERVICES"),
    "iptables-legacy": ("iptables-legacy-save", "-A KUBE-SERVICES"),
    "nftables": ("nft list tables", "table ip kube-proxy"),
}
LARGER_THAN_A_PACKET = 100_000


def of_mode(cluster: Cluster, node: str) -> set[str]:
    """The modes of which there are rules on a node."""
    machine = cluster.nodes[node].machine
    found = set()
    for mode, (question, sign) in SIGNS.items():
        if sign in machine.attempt(*question.split()).stdout:
            found.add(mode)
    return found


def test_only_the_rules_of_the_mode_are_there(proxied: Cluster) -> None:
    for node in proxied.nodes:
        assert of_mode(proxied, node) == {proxied.proxy}
        told = proxied.nodes[node].machine.run("curl", "-s", "http://127.0.0.1:10249/proxyMode")
        assert told == proxied.proxy.removesuffix("-legacy")


@pytest.mark.parametrize("backend", BACKENDS[::-1])
def test_pods_reach_each_other_by_the_backend(cluster: Cluster, backend: Backend) -> None:
    cluster.change(backend=backend)
    node = cluster.nodes["node-a"].machine
    route = json.loads(node.run("ip", "-j", "route", "get", "10.244.2.1"))[0]
    links = {link["ifname"] for link in json.loads(node.run("ip", "-j", "link", "show"))}
    if backend == "host-gw":
        assert (route["dev"], route["gateway"]) == ("eth0", cluster.plan.nodes[1].addresses[0])
        assert "flannel.1" not in links
    else:
        assert route["dev"] == "flannel.1"
    assert from_pod(cluster, "client", "http://remote").node == "node-b"
    assert from_pod(cluster, "client-b", "http://near").node == "node-a"
    address = cluster.kubectl.json("get", "service", "-n", "shop", "remote")["spec"]["clusterIP"]
    assert from_node(cluster, "node-a", f"http://{address}").node == "node-b"
    fetched = cluster.kubectl(
        *("exec", "-n", "shop", "client", "--"),
        *("curl", "-s", f"http://remote/bytes/{LARGER_THAN_A_PACKET}"),
    )
    assert len(fetched) == LARGER_THAN_A_PACKET

"""``kptrace check`` and ``snapshot`` of a real cluster: nothing is sent, nothing is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cluster.cli import Cli, Told, until
from cluster.ground.cluster import Cluster

EXPLAINED = ("web", "nodeport", "remote-local", "dual", "empty")
TUNNEL_BLOCKED = ("INPUT", "-p", "udp", "--dport", "8472", "-j", "DROP")
DIFFERENT = ("packets", "bytes", "nodes")  # rules count on while we ask; the nodes that are known


@pytest.fixture
def cli(cluster: Cluster) -> Cli:
    return Cli(cluster)


def faults(told: Told) -> list[tuple[str, str]]:
    """The causes with their nodes."""
    findings = json.loads(told.out)["findings"]
    return [(one["cause"], one["node"]) for one in findings if one["severity"] == "error"]


def checked(cli: Cli) -> list[tuple[str, str]]:
    told = cli("check", "-o", "json")
    found = faults(told)
    assert told.code == (1 if found else 0), told.out or told.err
    return found


def test_a_healthy_cluster(proxied: Cluster) -> None:
    cli = Cli(proxied)
    told = cli("check")
    assert told.code == 0, told.out or told.err
    heading, node_a, node_b = told.out.splitlines()[:3]
    assert "2 nodes, " in heading
    assert "NOTHING BROKEN" in heading
    assert node_a.split()[:2] == ["node-a", "proxy"]
    assert node_b.split()[:2] == ["node-b", "proxy"]
    assert "Paths between pods of different nodes simulated: 4, 4 arrive." in told.out
    assert cli.left() == []


def test_what_a_snapshot_explains_the_cluster_does(proxied: Cluster, tmp_path: Path) -> None:
    """From a pod that is named: without, the rules are explained by the example of any pod, and a
    snapshot knows more of them than what one Service's question reads. So it is with nodes.
    """
    cli, bundle = Cli(proxied), str(tmp_path / "taken.tar.gz")
    taken = cli("snapshot", "-o", bundle)
    assert taken.code == 0, taken.err
    assert "2 nodes, " in taken.out
    for number, name in enumerate(EXPLAINED):
        source = ("client", "client-b")[number % 2]
        asked = ("explain", f"svc/{name}", "-n", "shop", "--from", f"pod/{source}", "-o", "json")
        live, saved = cli(*asked), cli(*asked, "--bundle", bundle)
        assert live.code == saved.code, live.err or saved.err
        assert uncounted(json.loads(saved.out)) == uncounted(json.loads(live.out))
    assert faults(cli("check", "--bundle", bundle, "-o", "json")) == []
    assert cli.left() == []


def uncounted(told: Any) -> Any:
    if isinstance(told, dict):
        return {name: uncounted(one) for name, one in told.items() if name not in DIFFERENT}
    return [uncounted(one) for one in told] if isinstance(told, list) else told


def test_one_node_alone(cli: Cli, tmp_path: Path) -> None:
    bundle = tmp_path / "taken"
    told = cli("snapshot", "-o", str(bundle), "--node", "node-b")
    assert told.code == 0, told.err
    assert (bundle / "node-b").is_dir()
    assert not (bundle / "node-a").exists()
    (node,) = json.loads(cli("check", "--node", "node-b", "-o", "json").out)["nodes"]
    assert node["name"] == "node-b"
    assert cli.left() == []


@pytest.mark.parametrize(
    "command", [("check",), ("snapshot",), ("explain", "svc/web", "-n", "shop")]
)
def test_a_node_that_there_is_not(cli: Cli, tmp_path: Path, command: tuple[str, ...]) -> None:
    """No pod is made for it: one that is bound to such a node stays for long."""
    told = cli(*command, "--node", "node-z")
    assert told.code == 3
    assert "no node node-z" in told.err
    assert cli.pods() == []
    assert cli.left() == []


def test_a_backend_replaced_while_kube_proxy_is_out(cluster: Cluster, cli: Cli) -> None:
    node = cluster.nodes["node-a"]
    assert checked(cli) == []
    node.stop("kube-proxy")
    try:
        cluster.kubectl("delete", "pod", "-n", "shop", "-l", "app=remote")
        cluster.kubectl("wait", "-n", "shop", "--for=condition=Ready", "pod", "-l", "app=remote")
        found = until(lambda: checked(cli), "the other backend")
        assert ("stale-dnat", "node-a") in found
        assert {node for _, node in found} == {"node-a"}
    finally:
        node.start("kube-proxy")
    until(lambda: not checked(cli), "kube-proxy's rules")
    assert cli.left() == []


def test_a_firewall_on_a_node_drops_the_tunnel(cluster: Cluster, cli: Cli) -> None:
    machine = cluster.nodes["node-b"].machine
    machine.run("iptables", "-I", *TUNNEL_BLOCKED)
    try:
        assert checked(cli) == [("tunnel-port-blocked", "node-b")]
    finally:
        machine.run("iptables", "-D", *TUNNEL_BLOCKED)
    assert checked(cli) == []


def test_a_node_that_is_not_there_is_told_and_the_rest_looked_at(
    cluster: Cluster, cli: Cli
) -> None:
    """NotReady by its own word: a kubelet that stopped is noticed only after most of a minute."""
    status = ("patch", "node", "node-b", "--subresource=status", "--type=strategic", "-p")
    node = cluster.nodes["node-b"]
    node.stop("kubelet")
    try:
        condition = {"type": "Ready", "status": "Unknown", "reason": "Stopped"}
        cluster.kubectl(*status, json.dumps({"status": {"conditions": [condition]}}))

        def looked() -> Any:  # kube-proxy needs a moment to leave that node's pods out
            told = cli("check", "-o", "json")
            return told.code == 4 and json.loads(told.out)

        made = until(looked, "one node to be found wanting")
        assert [one["name"] for one in made["nodes"]] == ["node-a"]
        assert [one["node"] for one in made["unavailable"]] == ["node-b"]
    finally:
        node.start("kubelet")
    until(lambda: ready(cluster, "node-b"), "the kubelet to report")
    assert cli.left() == []


def ready(cluster: Cluster, node: str) -> bool:
    conditions = cluster.kubectl.json("get", "node", node)["status"]["conditions"]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

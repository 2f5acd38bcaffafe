"""As root on a node: its own agent is a process, the others' are pods; and without an API server.

From the same kubeconfig as on a workstation, in the namespaces of the node's own processes.
"""

from __future__ import annotations

import json

import pytest
from cluster.cli import Cli
from cluster.ground.cluster import Cluster
from cluster.ground.connection import from_pod

REMOTE = ("svc/remote", "-n", "shop", "--from", "pod/client")


@pytest.fixture
def cli(cluster: Cluster) -> Cli:
    return Cli(cluster)


def test_only_the_other_node_gets_a_pod(cli: Cli) -> None:
    told = cli.on_node("node-a", *REMOTE, "--keep", "-o", "json")
    try:
        assert told.code == 0, told.err
        assert {hop["node"] for hop in told.trace["hops"]} == {"node-a", "node-b"}
        assert [one["spec"]["nodeName"] for one in cli.pods()] == ["node-b"]
    finally:
        removed = cli("clean", "-n", "shop")
    assert removed.out.count("removed pod") == 1
    assert cli.left() == []


def test_it_says_what_is_said_from_a_workstation(cli: Cli) -> None:
    here, there = cli.on_node("node-a", *REMOTE, "-o", "json"), cli(*REMOTE, "-o", "json")
    assert (here.code, there.code) == (0, 0), here.err or there.err
    for trace in (here.trace, there.trace):
        assert [one for one in trace["evidence"]["sources"] if one["unavailable"]] == []
    assert way(here.trace) == way(there.trace)
    assert cli.left() == []


def way(trace: dict[str, object]) -> list[tuple[str, str, str]]:
    hops = trace["hops"]
    assert isinstance(hops, list)
    return [(hop["node"], hop["interface"], hop["action"]) for hop in hops]


def test_a_backend_of_the_node_needs_no_pod_at_all(cli: Cli) -> None:
    told = cli.on_node("node-a", "svc/near", "-n", "shop", "--from", "pod/client", "--keep")
    assert told.code == 0, told.err
    assert "DELIVERED" in told.out.splitlines()[0]
    assert cli.pods() == []


def test_check_and_explain(cli: Cli) -> None:
    told = cli.on_node("node-b", "check", "-o", "json")
    assert told.code == 0, told.out or told.err
    assert [one["name"] for one in json.loads(told.out)["nodes"]] == ["node-a", "node-b"]
    explained = cli.on_node("node-b", "explain", "svc/remote", "-n", "shop", "-o", "json")
    assert explained.code == 0, explained.err
    assert cli.left() == []


def test_without_an_api_server_names_come_from_the_rules(proxied: Cluster) -> None:
    cli = Cli(proxied)
    met = from_pod(proxied, "client", "http://remote")
    told = cli.on_node("node-a", *REMOTE, "--offline", "-o", "json")
    assert told.code == 0, told.err
    trace = told.trace
    assert trace["outcome"] == "delivered"
    assert trace["resolution"]["service"]["name"] == "remote"
    address = proxied.kubectl.json("get", "pod", met.pod, "-n", "shop")["status"]["podIP"]
    assert [one["address"] for one in trace["resolution"]["endpoints"]] == [address]
    assert "agent" in {one["name"] for one in trace["evidence"]["sources"] if one["unavailable"]}


def test_while_the_api_server_is_stopped(cluster: Cluster, cli: Cli) -> None:
    cluster.control.machine.stop("kube-apiserver")
    try:
        refused = cli.on_node("node-a", *REMOTE)
        assert refused.code == 3
        assert "cannot be reached" in refused.err
        told = cli.on_node("node-a", *REMOTE, "--offline")
        checked = cli.on_node("node-a", "check", "--offline")
    finally:
        cluster.control.start("kube-apiserver")
        cluster.control.wait()
    assert told.code == 0, told.err
    assert "DELIVERED" in told.out.splitlines()[0]
    assert checked.code == 0, checked.out or checked.err

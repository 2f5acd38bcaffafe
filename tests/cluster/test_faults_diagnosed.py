"""What breaks in real clusters, broken in a real one: the report names the cause and the node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cluster.cli import Cli, until
from cluster.ground.cluster import Cluster

REMOTE = ("svc/remote", "-n", "shop", "--from", "pod/client")


@pytest.fixture
def cli(cluster: Cluster) -> Cli:
    return Cli(cluster)


def diagnosed(cli: Cli) -> tuple[str, list[tuple[str, str]]]:
    """The outcome, and the causes with their nodes, the first the most important."""
    told = cli(*REMOTE, "-o", "json")
    assert told.code == 1, told.out or told.err
    trace = told.trace
    return trace["outcome"], [(one["cause"], one["node"]) for one in trace["findings"]]


def ready(cluster: Cluster, namespace: str, service: str) -> list[str]:
    """The addresses of a Service's ready endpoints."""
    label = f"kubernetes.io/service-name={service}"
    slices = cluster.kubectl.json("get", "endpointslices", "-n", namespace, "-l", label)["items"]
    behind = [one for some in slices for one in some["endpoints"] or ()]
    return [address for one in behind if one["conditions"]["ready"] for address in one["addresses"]]


def scaled(cluster: Cluster, count: int) -> None:
    cluster.kubectl("scale", "-n", "kube-system", "deployment/coredns", f"--replicas={count}")
    until(lambda: len(ready(cluster, "kube-system", "kube-dns")) == count, "CoreDNS' endpoints")


@contextmanager
def without_dns(cluster: Cluster) -> Iterator[None]:
    deployment = cluster.kubectl.json("get", "deployment", "-n", "kube-system", "coredns")
    try:
        scaled(cluster, 0)
        yield
    finally:
        scaled(cluster, deployment["spec"]["replicas"])


def test_coredns_scaled_to_zero(cluster: Cluster, cli: Cli) -> None:
    with without_dns(cluster):

        def told() -> Any:  # kube-proxy needs a moment, too
            outcome, causes = diagnosed(cli)
            return outcome == "unresolved" and causes

        (first, *_) = until(told, "DNS to be out")
        assert first[0] in ("dns-unreachable", "dns-refused", "dns-timeout")


def test_a_backend_replaced_while_kube_proxy_is_out(cluster: Cluster, cli: Cli) -> None:
    node = cluster.nodes["node-a"]
    (old,) = ready(cluster, "shop", "remote")
    node.stop("kube-proxy")
    try:
        cluster.kubectl("delete", "pod", "-n", "shop", "-l", "app=remote")
        until(lambda: ready(cluster, "shop", "remote") not in ([], [old]), "another backend")
        _, causes = diagnosed(cli)
        assert causes[0] == ("stale-dnat", "node-a")
    finally:
        node.start("kube-proxy")


def test_a_firewall_drops_the_tunnel(cluster: Cluster, cli: Cli) -> None:
    rule = ("INPUT", "-p", "udp", "--dport", "8472", "-j", "DROP")
    machine = cluster.nodes["node-b"].machine
    machine.run("iptables", "-I", *rule)
    try:
        outcome, causes = diagnosed(cli)
        assert outcome == "dropped"
        assert causes[0] == ("tunnel-port-blocked", "node-b")
    finally:
        machine.run("iptables", "-D", *rule)


def test_forward_policy_drop(cluster: Cluster, cli: Cli) -> None:
    """flanneld's own rules accept what pods send; without it, as with other CNIs, the policy is
    what decides.
    """
    node = cluster.nodes["node-b"]
    accepts = [
        line.removeprefix("-A ").split()
        for line in node.machine.run("iptables", "-S", "FORWARD").splitlines()
        if line.startswith("-A FORWARD") and line.endswith("-j FLANNEL-FWD")
    ]
    node.stop("flanneld")
    try:
        node.machine.run("iptables", "-P", "FORWARD", "DROP")
        node.machine.run("iptables", "-F", "FLANNEL-FWD")
        outcome, causes = diagnosed(cli)
        assert accepts
        assert outcome == "dropped"
        assert causes[0] == ("forward-policy-drop", "node-b")
    finally:
        node.machine.run("iptables", "-P", "FORWARD", "ACCEPT")
        node.start("flanneld")

    def again() -> bool:  # flanneld writes its rules anew
        return "ACCEPT" in node.machine.run("iptables", "-S", "FLANNEL-FWD")

    until(again, "flanneld's rules")


def test_a_wrong_target_port(cluster: Cluster, cli: Cli) -> None:
    def aim(port: int | str) -> None:
        patch = [{"op": "replace", "path": "/spec/ports/0/targetPort", "value": port}]
        cluster.kubectl("patch", "-n", "shop", "svc/remote", "--type=json", "-p", json.dumps(patch))

    aim(8099)
    try:

        def told() -> Any:
            done = cli(*REMOTE, "-o", "json")
            return done.code == 1 and done.trace

        trace = until(told, "the rules to follow")
        assert trace["outcome"] == "refused"
        assert trace["findings"][0]["cause"] == "no-listener"
        assert "8099" in trace["findings"][0]["summary"]
    finally:
        aim("http")
        until(lambda: cli(*REMOTE, "-o", "json").code == 0, "the rules to follow back")

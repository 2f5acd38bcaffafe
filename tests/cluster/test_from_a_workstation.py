"""``kubectl kptrace`` from outside: what it starts, what it reads, what it says, what it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from cluster.cli import Cli
from cluster.ground.cluster import Cluster

SERVICES = ["web", "remote", "near", "echo", "headless", "nodeport", "sticky"]


@pytest.fixture
def cli(cluster: Cluster) -> Cli:
    return Cli(cluster)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service(cli: Cli, name: str) -> None:
    told = cli(f"svc/{name}", "-n", "shop", "--from", "pod/client", "-o", "json")
    assert told.code == 0, told.err
    assert told.trace["outcome"] == "delivered"
    assert cli.left() == []


def test_the_text_names_pods_nodes_and_the_clusters_dns(cli: Cli) -> None:
    told = cli("svc/remote", "-n", "shop", "--from", "pod/client")
    assert told.code == 0, told.err
    first = told.out.splitlines()[0]
    assert "svc/remote (shop)" in first
    assert "from pod/client on node-a" in first
    assert "DELIVERED" in first
    for words in ("node-a\n", "node-b\n", "DNAT", "remote.shop.svc.cluster.local", "10.96.0.10"):
        assert words in told.out
    assert "No events lost" in told.out


def test_two_agents_do_and_they_have_no_more_rights_than_are_said(cli: Cli) -> None:
    seen: dict[str, dict[str, object]] = {}
    with cli.running("svc/remote", "-n", "shop", "--from", "pod/client", "--keep") as run:
        told = run.end()
    try:
        assert told.code == 0, told.err
        pods = cli.pods()
        seen = {one["spec"]["nodeName"]: one for one in pods}
        assert sorted(seen) == ["node-a", "node-b"]
        assert len({one["metadata"]["labels"]["kptrace.io/run"] for one in pods}) == 1
        for one in pods:
            (container,) = one["spec"]["containers"]
            assert not container["securityContext"].get("privileged")
            assert not container.get("volumeMounts")  # no token, no socket of a runtime
    finally:
        removed = cli("clean", "-n", "shop")
    assert removed.code == 0, removed.err
    assert removed.out.count("removed pod shop/kptrace-") == 2
    assert cli.left() == []


def test_without_from_a_source_is_chosen_and_named(cli: Cli) -> None:
    told = cli("svc/web", "-n", "shop")
    assert told.code == 0, told.err
    assert "from pod/client" in told.out
    assert "source chosen: a ready pod of shop that is no backend" in told.out


def test_from_a_node(cli: Cli) -> None:
    told = cli("svc/remote", "-n", "shop", "--from", "node/node-a", "-o", "json")
    assert told.code == 0, told.err
    assert told.trace["source"]["netns"] == {"node": "node-a", "pod": ""}


def test_it_reads_what_it_needs_and_no_more(cluster: Cluster, cli: Cli) -> None:
    log = cluster.home.log("control") / "audit.log"
    before = log.stat().st_size
    assert cli("svc/web", "-n", "shop", "--from", "pod/client").code == 0
    with log.open() as file:
        file.seek(before)
        asked = [json.loads(line) for line in file if '"kptrace' in line or "OpenAPI" in line]
    # the library's name for itself; kubectl and controllers have theirs
    ours = [one["requestURI"] for one in asked if "python" in one.get("userAgent", "").lower()]
    assert ours, "the audit log does not know us"
    for uri in ours:
        path, _, query = uri.partition("?")
        everything = path in ("/api/v1/services", "/api/v1/pods", "/api/v1/nodes")
        assert not everything or "Selector=" in query, uri


def test_an_image_with_python_alone_will_do(cluster: Cluster, cli: Cli) -> None:
    client = cluster.kubectl.json("get", "pod", "client", "-n", "shop")
    image = client["spec"]["containers"][0]["image"]
    told = cli("svc/remote", "-n", "shop", "--from", "pod/client", "--image", image, "-o", "json")
    assert told.code == 0, told.err
    assert told.trace["outcome"] == "delivered"


def test_a_dry_run_can_be_applied_and_starts_nothing(cluster: Cluster, cli: Cli) -> None:
    told = cli("svc/remote", "-n", "shop", "--from", "pod/client", "--dry-run")
    assert told.code == 0, told.err
    assert cli.pods() == []
    pages = list(yaml.safe_load_all(told.out))
    assert [page["kind"] for page in pages] == ["Pod", "Pod", "ClusterRole", "Role"]
    cluster.kubectl("apply", "--dry-run=server", "-f", "-", given=told.out.replace("RUN", "run"))


def test_kubectl_finds_the_plugin(cli: Cli, tmp_path: Path) -> None:
    kubectl = cli.as_plugin(tmp_path)
    assert "kubectl-kptrace" in kubectl("plugin", "list").out
    assert "Usage: kubectl kptrace trace" in kubectl("kptrace", "trace", "--help").out
    traced = kubectl("kptrace", "svc/web", "-n", "shop", "--from", "pod/client")
    assert "DELIVERED" in traced.out


def test_explain_reads_the_nodes_rules(cli: Cli) -> None:
    told = cli("explain", "svc/remote", "-n", "shop", "--node", "node-b", "-o", "json")
    assert told.code == 0, told.err
    assert told.trace["node"] == "node-b"
    kinds = {entry["kind"] for port in told.trace["ports"] for entry in port["entries"]}
    assert "clusterIP" in kinds
    assert cli.left() == []


def test_resolve(cli: Cli) -> None:
    told = cli("resolve", "svc/web", "-n", "shop", "--from", "pod/client")
    assert told.code == 0, told.err
    assert "web.shop.svc.cluster.local" in told.out

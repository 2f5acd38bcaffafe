"""The third depth: users who may read and start nothing, against a real API server's own words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.cli import ROOT, Cli, until
from cluster.ground.cluster import Cluster

RBAC = Path(ROOT, "plugins", "kubectl", "rbac.yaml")
NAME = "kptrace-alone"
FROM = ("-n", "shop", "--from", "pod/client")


@pytest.fixture(scope="module")
def reader(cluster: Cluster) -> Iterator[Cli]:
    """May read what kptrace-read allows, and no more."""
    cluster.kubectl("apply", "-f", RBAC)
    role = (NAME, "--clusterrole=kptrace-read", f"--user={NAME}")
    cluster.kubectl("create", "clusterrolebinding", *role)
    made = Cli(cluster, cluster.user(NAME))
    try:
        yield made
        assert made.left() == []
    finally:
        cluster.kubectl("delete", "clusterrolebinding", NAME)
        cluster.kubectl("delete", "-f", RBAC)


@pytest.fixture
def made(cluster: Cluster) -> Iterator[Any]:
    """Objects for one test, in namespace shop."""
    texts: list[str] = []

    def make(**one: Any) -> None:
        one["metadata"] = {"namespace": "shop", **one["metadata"]}
        texts.append(json.dumps(one))
        cluster.kubectl("apply", "-f", "-", given=texts[-1])

    yield make
    for text in texts:
        cluster.kubectl("delete", "--wait=false", "-f", "-", given=text)


def service(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    port = {"port": 80, "targetPort": "http"}
    whole = {"selector": {"app": "web"}, "ports": [port], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": whole}


def test_who_may_only_read(cluster: Cluster, reader: Cli) -> None:
    told = reader("svc/web", *FROM)
    assert (told.code, told.err) == (4, "")
    words = " ".join(told.out.split())
    for said in (
        "svc/web (shop) from pod/client on node-a INCONCLUSIVE",
        "only the API was asked for this: no packet was sent",
        "3 endpoints, 3 ready",
        "nodes that are Ready: node-a, node-b",
        "rules and routes, capture, rule trace, drop reasons, conntrack, DNS on node-a: "
        f"{NAME} is not allowed to: create pods in namespace shop",
        "and no container in pod shop/client instead",
        "Network: Flannel (VXLAN).",
    ):
        assert said in words
    granted = told.out.partition("For `kubectl apply -f -`:\n")[2]
    try:
        cluster.kubectl("apply", "-f", "-", given=granted)
        again = reader("svc/web", *FROM)
        assert again.code == 0, again.err
    finally:
        cluster.kubectl("delete", "-f", "-", given=granted)


def test_the_report_is_replayed(reader: Cli, tmp_path: Path) -> None:
    saved = str(tmp_path / "run.tar.gz")
    first = reader("svc/web", *FROM, "--save", saved)
    again = reader("replay", saved)
    assert (again.out, again.code) == (first.out, first.code)


def test_resolve_tells_the_apis_part(reader: Cli) -> None:
    told = reader("resolve", "svc/web", *FROM)
    assert (told.code, told.err) == (4, "")
    assert "3 endpoints, 3 ready" in told.out
    assert f"not asked: {NAME} is not allowed to: create pods" in " ".join(told.out.split())


def test_all_checks_of_a_file_stay_open(reader: Cli, tmp_path: Path) -> None:
    file = tmp_path / "checks.yaml"
    file.write_text("checks:\n- target: svc/web\n- {target: svc/empty, expect: no-endpoints}\n")
    told = reader("verify", str(file), "-n", "shop", "-o", "json")
    assert told.code == 4, told.err
    results = json.loads(told.out)["results"]
    assert [each["status"] for each in results] == ["inconclusive", "passed"]


@pytest.mark.parametrize(
    ("name", "spec", "outcome", "proof"),
    [
        ("nobody", {"selector": {"app": "x"}}, "no-endpoints", "app=x matches no pod"),
        (
            "misnamed",
            {"ports": [{"port": 80, "targetPort": "htpp"}]},
            "no-endpoints",
            "no container of these pods declares targetPort htpp/tcp",
        ),
        (
            "here",
            {"selector": {"app": "remote"}, "internalTrafficPolicy": "Local"},
            "dropped",
            "on node-b",
        ),
        ("alone", {"clusterIP": "None", "selector": {"app": "x"}}, "", ""),
    ],
)
def test_what_the_api_proves_is_what_becomes_of_a_packet(
    reader: Cli, made: Any, name: str, spec: dict[str, Any], outcome: str, proof: str
) -> None:
    made(**service(f"{NAME}-{name}", spec))
    target = f"svc/{NAME}-{name}"

    def judged() -> bool:
        """The controller has written its EndpointSlice."""
        label = f"kubernetes.io/service-name={NAME}-{name}"
        return bool(
            reader.kubectl.json("get", "endpointslices", "-n", "shop", "-l", label)["items"]
        )

    until(judged, "an EndpointSlice")
    told = reader(target, *FROM, "-o", "json")
    if not outcome:  # there is nothing to send to
        assert told.code == 3
        assert "is headless and has no endpoint" in told.err
        return
    assert told.code == 1, told.err
    (finding,) = [one for one in told.trace["findings"] if one["severity"] == "error"]
    assert (told.trace["outcome"], told.trace["hops"]) == (outcome, [])
    assert proof in " ".join(finding["evidence"])
    with_agents = Cli(reader.cluster)(target, *FROM, "-o", "json", "--expect", outcome)
    assert with_agents.code == 0, with_agents.out + with_agents.err


def test_a_policy_is_told_and_proves_nothing(reader: Cli, made: Any) -> None:
    """Flannel enforces none: the packet gets through."""
    rules = {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]}
    kind = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    made(**kind, metadata={"name": NAME}, spec=rules)
    told = reader("svc/web", *FROM, "-o", "json")
    assert told.code == 4, told.err
    (finding,) = [one for one in told.trace["findings"] if one["cause"] == "policy-drop"]
    assert finding["severity"] == "warning"
    assert f"shop/{NAME}" in finding["summary"]
    assert Cli(reader.cluster)("svc/web", *FROM).code == 0


def test_who_may_act_in_his_own_namespace_only(cluster: Cluster) -> None:
    """No right for nodes, as with the roles `edit` and `view`."""
    user = Cli(cluster, cluster.user(f"{NAME}-dev"))
    role = (f"{NAME}-dev", "--clusterrole=view", f"--user={NAME}-dev")
    cluster.kubectl("create", "rolebinding", "-n", "shop", *role)
    try:
        told = user("svc/web", *FROM)
        assert (told.code, told.err) == (4, "")
        words = " ".join(told.out.split())
        assert "is not allowed to: get nodes, list nodes, create pods in namespace shop" in words
        assert "3 endpoints, 3 ready" in words
        assert "the API's nodes" in words
    finally:
        cluster.kubectl("delete", "rolebinding", "-n", "shop", f"{NAME}-dev")


def test_pod_security_that_refuses_pod_and_container(cluster: Cluster) -> None:
    """``restricted`` on the sender's own namespace, which the agents' is too."""
    label = "pod-security.kubernetes.io/enforce"
    cli = Cli(cluster)
    before = cluster.kubectl.json("get", "pod", "client", "-n", "shop")
    cluster.kubectl("label", "namespace", "shop", f"{label}=restricted", "--overwrite")
    try:
        told = cli("svc/web", *FROM)
        assert (told.code, told.err) == (4, "")
        words = " ".join(told.out.split())
        assert "Pod Security of namespace shop refuses the agent's pod: violates" in words
        assert "Pod Security of namespace shop refuses a container in pod shop/client" in words
        assert "kubectl label namespace shop" in words
    finally:
        cluster.kubectl("label", "namespace", "shop", f"{label}-")
    after = cluster.kubectl.json("get", "pod", "client", "-n", "shop")
    assert after["spec"] == before["spec"]
    assert cli.left() == []


def test_explain_and_check_put_no_container_into_anybodys_pod(cluster: Cluster) -> None:
    """They send nothing, so a container in a pod would be of no use, and it cannot be removed."""
    name = f"{NAME}-guarded"
    before = _guests(cluster)
    cluster.kubectl("create", "namespace", name)
    label = "pod-security.kubernetes.io/enforce"
    try:
        cluster.kubectl("label", "namespace", name, f"{label}=restricted")
        for command in (("explain", "svc/web", "-n", "shop"), ("check",)):
            told = Cli(cluster)(*command, "--agent-namespace", name)
            assert told.code == 3
            assert "refuses the agent's pod" in told.err
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")
    assert _guests(cluster) == before


def _guests(cluster: Cluster) -> int:
    pods = cluster.kubectl.json("get", "pods", "-A")["items"]
    return sum(len(one["spec"].get("ephemeralContainers", ())) for one in pods)

"""A run where no agent can be had: by rights, by Pod Security; what is read then, and what not."""

from __future__ import annotations

from typing import Any

import pytest

from kptrace.environment.cluster import ClusterEnvironment
from kptrace.kube.agents.manifest import AgentPodOptions
from kptrace.kube.client.client import Client
from kptrace.model import Outcome, Trace, TraceRequest
from kptrace.model.errors import (
    ClusterUnreachableError,
    NotFoundError,
    ObservationError,
    PermissionDeniedError,
)
from kptrace.model.targets import parse_target
from kptrace.resolve.resolve import resolve_target
from kptrace.trace import trace as story

CORE = "/api/v1/namespaces"
PODS = f"{CORE}/shop/pods"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"
POLICIES = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies"
GUESTS = f"{PODS}/client/ephemeralcontainers"
READY = [{"type": "Ready", "status": "True"}]
NO_CREATE = 'pods is forbidden: User "jane" cannot create resource "pods" in namespace "shop"'
NO_PATCH = 'pods is forbidden: User "jane" cannot patch resource "pods/ephemeralcontainers"'
NO_NODES = 'nodes is forbidden: User "jane" cannot get resource "nodes" at the cluster scope'
RESTRICTED = (
    'pods "kptrace-1-1" is forbidden: violates PodSecurity "restricted:latest": host namespaces '
    "(hostNetwork=true, hostPID=true)"
)


@pytest.fixture
def shop(api: Any) -> Any:
    api.put(f"{CORE}/shop", labels={"team": "blue"})
    api.put(
        f"{CORE}/shop/services/web",
        {"clusterIP": "10.96.1.1", "selector": {"app": "web"}, "ports": [{"port": 80}]},
    )
    target = {"kind": "Pod", "name": "web-1", "namespace": "shop"}
    api.put(
        f"{SLICES}/web-x7",
        labels={"kubernetes.io/service-name": "web"},
        addressType="IPv4",
        ports=[{"name": "", "port": 80, "protocol": "TCP"}],
        endpoints=[{"addresses": ["10.244.2.20"], "nodeName": "b", "targetRef": target}],
    )
    for name, node, address, labels in (
        ("web-1", "b", "10.244.2.20", {"app": "web"}),
        ("client", "a", "10.244.1.10", {}),
    ):
        status = {"phase": "Running", "podIP": address, "conditions": READY}
        api.put(f"{PODS}/{name}", {"nodeName": node}, labels=labels, status=status)
    for name in ("a", "b"):
        api.put(f"/api/v1/nodes/{name}", {}, status={"conditions": READY})
    api.refuse("GET", POLICIES, 404, "not found")
    return api


@pytest.fixture
def reader(shop: Any) -> Any:
    """Who may read, and no more."""
    shop.refuse("POST", PODS, 403, NO_CREATE, "Forbidden")
    shop.refuse("PATCH", GUESTS, 403, NO_PATCH, "Forbidden")
    shop.allowed = lambda asked: asked["verb"] in ("get", "list")
    return shop


def asked(target: str = "svc/web", source: str = "pod/client") -> TraceRequest:
    return TraceRequest(target=parse_target(target, "shop"), source=source, namespace="shop")


def ground(client: Client, question: TraceRequest, **more: bool) -> ClusterEnvironment:
    return ClusterEnvironment(
        client, question, AgentPodOptions(namespace="shop"), lambda _: None, **more
    )


def traced(client: Client, source: str = "pod/client") -> Trace:
    question = asked(source=source)
    with ground(client, question) as where:
        return story.trace_and_report(question, where, 1, lambda _: None)[1]


def test_who_may_only_read_is_told_what_the_api_tells(reader: Any, client: Client) -> None:
    made = traced(client)
    assert made.outcome is Outcome.INCONCLUSIVE
    layer = made.evidence.sources[0]
    assert layer.unavailable.startswith("jane is not allowed to: create pods in namespace shop")
    assert "not allowed to patch pods/ephemeralcontainers" in layer.unavailable
    assert "kind: Role" in layer.manifest
    assert reader.paths("PATCH") == [GUESTS]  # which was tried, and is the least


def test_a_node_has_no_pod_to_put_a_container_into(reader: Any, client: Client) -> None:
    layer = traced(client, "node/a").evidence.sources[0]
    assert "ephemeralcontainers" not in layer.unavailable
    assert GUESTS not in reader.paths("PATCH")


def test_who_sends_nothing_puts_no_container_into_a_pod(reader: Any, client: Client) -> None:
    question = asked()
    with ground(client, question, sends=False) as where:
        where.api()
        with pytest.raises(PermissionDeniedError, match="create pods"):
            where.agent("a")
    assert reader.paths("PATCH") == []


def test_pod_security_refuses_both(shop: Any, client: Client) -> None:
    shop.refuse("POST", PODS, 403, RESTRICTED, "Forbidden")
    shop.refuse("PATCH", GUESTS, 403, RESTRICTED, "Forbidden")
    layer = traced(client).evidence.sources[0]
    assert layer.unavailable.startswith("Pod Security of namespace shop refuses the agent's pod")
    assert "refuses a container in pod shop/client" in layer.unavailable
    assert "kubectl label namespace shop" in layer.hint
    assert layer.manifest == ""


def test_no_right_for_nodes(shop: Any, client: Client) -> None:
    """As most have it who may act in their own namespace only."""
    for path in ("/api/v1/nodes", "/api/v1/nodes/a", "/api/v1/nodes/b"):
        shop.refuse("GET", path, 403, NO_NODES, "Forbidden")
    shop.allowed = lambda asked: asked["resource"] != "nodes"
    made = traced(client)
    assert made.outcome is Outcome.INCONCLUSIVE
    layers = {layer.name: layer for layer in made.evidence.sources}
    assert layers["capture"].unavailable == "jane is not allowed to: get nodes, list nodes"
    assert "the API's nodes" in layers
    assert shop.paths("POST").count(PODS) == 0  # what is missing is told, and nothing is started


def test_without_the_service_there_is_nothing_to_tell(reader: Any, client: Client) -> None:
    reader.refuse("GET", f"{CORE}/shop/services/web", 403, NO_CREATE, "Forbidden")
    reader.allowed = lambda asked: asked["resource"] != "services"
    with pytest.raises(PermissionDeniedError, match="get services in namespace shop"):
        traced(client)


def test_what_the_user_named_is_not_there(shop: Any, client: Client) -> None:
    shop.refuse("POST", PODS, 404, 'namespaces "shop" not found', "NotFound")
    with pytest.raises(NotFoundError, match="no namespace shop to start agents in"):
        traced(client)


def test_a_server_that_is_gone_is_no_report(
    reader: Any, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise ClusterUnreachableError("no answer")

    monkeypatch.setattr(ClusterEnvironment, "agent", gone)
    with pytest.raises(ClusterUnreachableError):
        traced(client)


def test_a_name_is_resolved_by_the_api_alone(reader: Any, client: Client) -> None:
    question = asked()
    with ground(client, question) as where:
        made = resolve_target(question, where, 1, lambda _: None)
    assert made.resolution.address == "10.96.1.1"
    assert made.servers == ()
    assert made.dns_skipped_reason.startswith("jane is not allowed to: create pods")
    assert [layer.node for layer in made.unavailable] == ["a"]


# --- what stands around ---------------------------------------------------------------------------


def test_what_stands_around_is_read_only_then(shop: Any, client: Client) -> None:
    question = asked()
    with ground(client, question) as where:
        where.api()
        assert POLICIES not in shop.paths()
        texts = where.api_only_documents()
    assert POLICIES in shop.paths()
    assert {"namespaces.json", "daemons.json"} <= set(texts)
    assert "blue" in texts["namespaces.json"]


def test_what_may_not_be_read_is_told(reader: Any, client: Client) -> None:
    words = 'networkpolicies is forbidden: User "jane" cannot list resource "networkpolicies"'
    reader.refuse("GET", POLICIES, 403, words, "Forbidden")
    layers = {layer.name: layer for layer in traced(client).evidence.sources}
    told = layers["NetworkPolicies of namespace shop"]
    assert (told.unavailable, told.node) == ("not allowed to read them", "")
    assert "kptrace-read" in told.hint


def test_kube_proxys_pods_of_these_nodes_alone(shop: Any, client: Client) -> None:
    for name, node in (("near", "a"), ("elsewhere", "z")):
        path = f"{CORE}/kube-system/pods/kube-proxy-{name}"
        shop.put(path, {"nodeName": node}, labels={"k8s-app": "kube-proxy"})
    with ground(client, asked()) as where:
        text = where.api_only_documents()["daemons.json"]
    assert "kube-proxy-near" in text
    assert "kube-proxy-elsewhere" not in text


def test_any_other_refusal_is_no_answer(shop: Any, client: Client) -> None:
    shop.refuse("GET", f"{CORE}/shop/services/web", 500, "etcd is slow")
    with pytest.raises(ObservationError, match="etcd is slow"):
        traced(client)


def test_what_the_api_told_is_told_again_until_it_is_forgotten(shop: Any, client: Client) -> None:
    path = f"{SLICES}/web-x7"
    with ground(client, asked()) as where:
        assert "10.244.2.20" in where.api()["endpointslices.json"]
        shop.put(
            path,
            labels={"kubernetes.io/service-name": "web"},
            addressType="IPv4",
            ports=[{"name": "", "port": 80, "protocol": "TCP"}],
            endpoints=[{"addresses": ["10.244.2.99"], "nodeName": "b"}],
        )
        assert "10.244.2.20" in where.api()["endpointslices.json"]
        assert where.forget()
        assert "10.244.2.99" in where.api()["endpointslices.json"]

"""Runs that sent nothing: what the API alone proves, what it leaves open, and what is missing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from kptrace.diagnose.checks.service_proxy import nobody_words
from kptrace.kube.objects.cluster_state import UNREAD, NonApiSource, read_cluster_state
from kptrace.kube.objects.resolve import choose_source, resolve
from kptrace.model import EvidenceSource, Outcome, Trace, TraceRequest
from kptrace.model.targets import parse_target
from kptrace.protocol.recording import AGENT, Recording, pack, unpack
from kptrace.trace.trace import report

WHY = "jane is not allowed to: create pods in namespace shop"


def pod(name: str, node: str, ready: bool = True, ports: Any = (), **labels: str) -> dict[str, Any]:
    condition = {"type": "Ready", "status": str(ready)}
    return {
        "metadata": {"name": name, "namespace": "shop", "labels": labels},
        "spec": {"nodeName": node, "containers": [{"ports": list(ports)}]},
        "status": {"phase": "Running", "podIP": "10.244.1.10", "conditions": [condition]},
    }


def endpoint(name: str, node: str, **conditions: bool) -> dict[str, Any]:
    return {
        "addresses": ["10.244.2.20"],
        "nodeName": node,
        "conditions": {"ready": True, **conditions},
        "targetRef": {"kind": "Pod", "name": name, "namespace": "shop"},
    }


HTTP = {"name": "http", "containerPort": 8080}


class Shop:
    """A Service with one backend, as the API has it; a test changes what it is about."""

    def __init__(self) -> None:
        self.service: dict[str, Any] = {
            "clusterIP": "10.96.1.1",
            "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": "http"}],
        }
        self.slice_ports: Any = [{"name": "", "port": 8080, "protocol": "TCP"}]
        self.endpoints = [endpoint("web-1", "b")]
        self.pods = [pod("client", "a"), pod("web-1", "b", ports=[HTTP], app="web")]
        self.ready = {"a": True, "b": True}
        self.more: dict[str, Any] = {}

    def traced(self, target: str = "svc/web", missing: tuple[str, ...] = ()) -> Trace:
        return report(self.run(target, missing))

    def run(
        self, target: str = "svc/web", missing: tuple[str, ...] = (), **asked: Any
    ) -> Recording:
        documents = self._documents()
        texts = {
            name: json.dumps({"kind": "List", "items": items})
            for name, items in documents.items()
            if name not in missing
        }
        told = read_cluster_state(texts)
        question = TraceRequest(
            target=parse_target(target, "shop"), source="pod/client", namespace="shop", **asked
        )
        return Recording(
            request=question,
            source=choose_source(question, told, ()),
            resolution=resolve(question, told),
            api={**texts, **self.more},
            unavailable=(
                EvidenceSource(
                    name=AGENT, node="a", unavailable=WHY, hint="ask", manifest="kind: Role"
                ),
            ),
        )

    def _documents(self) -> dict[str, list[Any]]:
        own = {"name": "web", "namespace": "shop"}
        labelled = {**own, "labels": {"kubernetes.io/service-name": "web"}}
        part = {"addressType": "IPv4", "ports": self.slice_ports, "endpoints": self.endpoints}
        return {
            "services.json": [{"metadata": own, "spec": self.service}],
            "endpointslices.json": [{"metadata": labelled, **part}],
            "pods.json": self.pods,
            "nodes.json": [
                {
                    "metadata": {"name": name},
                    "status": {
                        "conditions": [{"type": "Ready", "status": str(ready)}],
                        "addresses": [{"type": "InternalIP", "address": f"172.30.0.{10 + n}"}],
                    },
                }
                for n, (name, ready) in enumerate(self.ready.items())
            ],
        }


@pytest.fixture
def shop() -> Shop:
    return Shop()


def known(made: Trace) -> str:
    return "\n".join(made.findings[0].evidence)


def test_nothing_wrong_stays_open(shop: Shop) -> None:
    made = shop.traced()
    assert made.outcome is Outcome.INCONCLUSIVE
    assert [finding.cause for finding in made.findings] == ["not-observed"]
    assert (made.hops, made.evidence.visibility) == ((), "api")
    for words in (
        "only the API was asked",
        "Service shop/web: ClusterIP 10.96.1.1; port 80/TCP to targetPort http",
        "1 endpoint, 1 ready",
        "10.244.2.20:8080 pod/web-1 on b",
        "its selector app=web matches 1 pod, 1 ready",
        "nodes that are Ready: a, b",
        "has to answer web.shop.svc with 10.96.1.1",
    ):
        assert words in known(made)


def test_every_source_of_evidence_is_missing_for_the_agents_reason(shop: Shop) -> None:
    layers = shop.traced().evidence.sources
    names = ["state", "capture", "rules", "drops", "conntrack", "dns"]
    assert [layer.name for layer in layers] == names
    assert {(one.node, one.unavailable, one.hint, one.manifest) for one in layers} == {
        ("a", WHY, "ask", "kind: Role")
    }


# --- proven ---------------------------------------------------------------------------------------


def test_a_selector_that_matches_nothing(shop: Shop) -> None:
    shop.service["selector"] = {"app": "wbe"}
    shop.endpoints = []
    made = shop.traced()
    assert (made.outcome, made.findings[0].cause) == (Outcome.NO_ENDPOINTS, "no-endpoints")
    assert "its selector app=wbe matches no pod in namespace shop" in known(made)


def test_pods_that_are_not_ready_because_their_node_is_not(shop: Shop) -> None:
    shop.endpoints = [endpoint("web-1", "b", ready=False)]
    shop.pods[1] = pod("web-1", "b", ready=False, ports=[HTTP], app="web")
    shop.ready["b"] = False
    made = shop.traced()
    assert made.outcome is Outcome.NO_ENDPOINTS
    assert "10.244.2.20:8080 pod/web-1 on b (not ready)" in known(made)
    assert "node b is NotReady" in known(made)


def test_a_target_port_that_no_container_has(shop: Shop) -> None:
    """The EndpointSlice controller then writes the pods without a port."""
    shop.service["ports"] = [{"port": 80, "targetPort": "htpp"}]
    shop.slice_ports = None
    made = shop.traced()
    assert made.outcome is Outcome.NO_ENDPOINTS
    assert "declares targetPort htpp/tcp (they have: http 8080/tcp)" in known(made)
    assert "edit svc web" in made.findings[0].remedy[0]


def test_ready_pods_in_no_slice(shop: Shop) -> None:
    shop.endpoints = []
    assert "does kube-controller-manager run?" in known(shop.traced())


def test_no_selector(shop: Shop) -> None:
    del shop.service["selector"]
    shop.endpoints = []
    assert "it has no selector" in known(shop.traced())


def test_what_serves_while_it_ends_is_used_when_none_is_ready(shop: Shop) -> None:
    """kube-proxy 1.36, topology.go: CategorizeEndpoints."""
    shop.endpoints = [endpoint("web-1", "b", ready=False, serving=True, terminating=True)]
    made = shop.traced()
    assert made.outcome is Outcome.INCONCLUSIVE
    assert "(terminating)" in known(made)


@pytest.mark.parametrize(("node", "outcome"), [("b", Outcome.DROPPED), ("a", Outcome.INCONCLUSIVE)])
def test_policy_local(shop: Shop, node: str, outcome: Outcome) -> None:
    shop.service["internalTrafficPolicy"] = "Local"
    shop.endpoints = [endpoint("web-1", node)]
    made = shop.traced()
    assert made.outcome is outcome
    assert (made.findings[0].cause == "no-local-endpoints") == (outcome is Outcome.DROPPED)


def test_a_headless_service_without_ready_pods_has_no_address(shop: Shop) -> None:
    shop.service["clusterIP"] = "None"
    shop.endpoints = [endpoint("web-1", "b", ready=False)]
    made = shop.traced()
    assert (made.outcome, made.findings[0].cause) == (Outcome.UNRESOLVED, "dns-no-address")


def test_an_address_with_another_port(shop: Shop) -> None:
    made = shop.traced("10.96.1.1:81")
    assert (made.outcome, made.findings[0].cause) == (Outcome.NOT_PROGRAMMED, "no-such-port")
    assert "shop/web has: 80/tcp" in known(made)


# --- open -----------------------------------------------------------------------------------------


def test_the_node_of_a_node_port_matters_too(shop: Shop) -> None:
    shop.service |= {
        "type": "NodePort",
        "ports": [{"port": 80, "targetPort": "http", "nodePort": 30080}],
    }
    shop.ready["c"] = False
    made = report(shop.run(via="nodePort", node="c"))
    assert "targetPort http, node port 30080" in known(made)
    assert [one.node for one in made.findings[1:]] == ["c"]


def test_an_alias_is_asked_of_dns_alone(shop: Shop) -> None:
    shop.service = {"type": "ExternalName", "externalName": "out.example"}
    made = shop.traced()
    assert made.outcome is Outcome.INCONCLUSIVE
    assert "an alias for out.example" in known(made)


def test_endpoints_that_may_not_be_read_prove_nothing(shop: Shop) -> None:
    shop.endpoints = []
    made = shop.traced(missing=("endpointslices.json", "nodes.json"))
    assert made.outcome is Outcome.INCONCLUSIVE
    unread = [one.name for one in made.evidence.sources if one.node == ""]
    assert unread == ["the API's endpointslices", "the API's nodes"]


def test_a_node_that_is_not_ready_may_forward_all_the_same(shop: Shop) -> None:
    shop.ready["b"] = False
    made = shop.traced()
    assert made.outcome is Outcome.INCONCLUSIVE
    (_, finding) = made.findings
    assert (finding.cause, finding.node, finding.severity) == ("node-not-ready", "b", "warning")


@pytest.mark.parametrize(("number", "told"), [(8081, True), (8080, False)])
def test_a_number_need_not_be_declared(shop: Shop, number: int, told: bool) -> None:
    shop.service["ports"] = [{"port": 80, "targetPort": number}]
    made = shop.traced()
    assert made.outcome is Outcome.INCONCLUSIVE
    assert [one.cause for one in made.findings[1:]] == ["no-listener"] * told


def test_kube_proxy_that_is_not_ready(shop: Shop) -> None:
    proxies = [pod("kube-proxy-1", "a", ready=False), pod("kube-proxy-2", "b", ready=False)]
    shop.more = {"daemons.json": json.dumps({"kind": "List", "items": proxies})}
    (_, finding) = shop.traced().findings
    assert finding.summary.startswith("kube-proxy's pod kube-proxy-1 on a is not ready")


def policies(*specs: dict[str, Any]) -> str:
    items = [
        {"metadata": {"name": f"p{n}", "namespace": "shop"}, "spec": spec}
        for n, spec in enumerate(specs)
    ]
    return json.dumps({"kind": "List", "items": items})


ALL_OF_WEB = {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]}
TO_NOBODY = {"podSelector": {}, "policyTypes": ["Egress"]}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (ALL_OF_WEB, "by NetworkPolicy shop/p0 it may not go into pod/web-1"),
        (TO_NOBODY, "by NetworkPolicy shop/p0 it may not go out of pod/client"),
    ],
)
def test_a_policy_that_denies_is_a_warning(shop: Shop, spec: dict[str, Any], said: str) -> None:
    """Whether anybody enforces it the API does not tell."""
    shop.more = {"networkpolicies.json": policies(spec)}
    made = shop.traced()
    assert made.outcome is Outcome.INCONCLUSIVE
    (_, finding) = made.findings
    assert (finding.cause, finding.severity) == ("policy-drop", "warning")
    assert finding.summary.startswith(said)


def test_policies_that_let_it_through_are_named(shop: Shop) -> None:
    spec = {**ALL_OF_WEB, "ingress": [{"from": [{"podSelector": {}}]}]}
    shop.more = {"networkpolicies.json": policies(spec)}
    assert "NetworkPolicies shop/p0 let it into pod/web-1" in known(shop.traced())
    shop.more = {"networkpolicies.json": policies()}
    assert "no NetworkPolicy selects the sender" in known(shop.traced())


def test_policies_that_may_not_be_read_are_missing(shop: Shop) -> None:
    unread = [{"what": "NetworkPolicies of namespace shop", "why": "not allowed", "hint": "ask"}]
    shop.more = {"networkpolicies.json": policies(), UNREAD: json.dumps(unread)}
    made = shop.traced()
    assert "NetworkPolicy" not in known(made)
    assert made.evidence.sources[-1] == EvidenceSource(
        name="NetworkPolicies of namespace shop", node="", unavailable="not allowed", hint="ask"
    )


def test_a_saved_run_tells_the_same(shop: Shop) -> None:
    shop.more = {"networkpolicies.json": policies(ALL_OF_WEB), "namespaces.json": policies()}
    run = shop.run()
    assert report(unpack(pack(run), "saved")) == report(run)


# --- beside a packet ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told_by", "why"), [(None, ["its selector app=x matches no pod in namespace shop"]), ("", [])]
)
def test_why_nobody_is_there_is_told_of_a_refused_packet_too(
    probe: Any, told_by: str | None, why: list[str]
) -> None:
    """Where the rules told of the Service instead of the API, selectors are not known."""
    case = probe(3, endpoints=())
    service = replace(case.resolution.service, selector=(("app", "x"),))
    hearsay = None if told_by is None else NonApiSource(by="the rules")
    case = replace(
        case,
        resolution=replace(case.resolution, service=service),
        documents=replace(case.documents, told_by=hearsay),
    )
    first = "the API has 0 endpoints for it, 0 of them ready"
    assert list(nobody_words(case)) == [first, *why]

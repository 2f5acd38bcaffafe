"""NetworkPolicies against one packet, by the words of the API reference (networking.k8s.io/v1)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kptrace.kube.objects.api_types import NetworkPolicy
from kptrace.kube.objects.cluster_state import read_cluster_state
from kptrace.kube.objects.network_policy import PodFlow, policy_verdicts
from kptrace.model import ContainerPort, Pod
from kptrace.model.errors import ParseError

CLIENT = Pod(namespace="shop", name="client", ips=("10.244.1.10",), labels=(("role", "till"),))
WEB = Pod(
    namespace="shop",
    name="web-1",
    ips=("10.244.2.20",),
    labels=(("app", "web"), ("tier", "front")),
    ports=(ContainerPort(name="http", port=8080),),
)
FAR = msgspec.structs.replace(CLIENT, namespace="office")
TEAM = {"office": {"team": "blue", "kubernetes.io/metadata.name": "office"}}


def policy(spec: dict[str, Any], namespace: str = "shop") -> NetworkPolicy:
    made = {"metadata": {"name": "p", "namespace": namespace}, "spec": spec}
    return msgspec.convert(made, NetworkPolicy)


def lets(
    spec: dict[str, Any], source: Pod = CLIENT, known: dict[str, Any] = TEAM
) -> dict[str, bool | None]:
    packet = PodFlow(source=source, target=WEB, port=8080, protocol="tcp")
    return {one.direction: one.lets for one in policy_verdicts(packet, [policy(spec)], known)}


def ingress(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": list(rules), **more}


def test_who_is_not_selected_is_open() -> None:
    assert lets({"podSelector": {"matchLabels": {"app": "db"}}}) == {}
    packet = PodFlow(source=CLIENT, target=WEB, port=8080, protocol="tcp")
    assert list(policy_verdicts(packet, [policy(ingress(), "other")], {})) == []


def test_types_that_are_not_written() -> None:
    """Always Ingress; Egress only if there are egress rules."""
    assert lets({"podSelector": {}}) == {"ingress": False}
    assert lets({"podSelector": {}, "egress": [{}]}) == {"egress": True, "ingress": False}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, True),
        ({"from": []}, True),
        ({"from": [{"podSelector": {}}]}, True),
        ({"from": [{"podSelector": {"matchLabels": {"role": "till"}}}]}, True),
        ({"from": [{"podSelector": {"matchLabels": {"role": "boss"}}}]}, False),
        ({"ports": [{"port": 8080}]}, True),
        ({"ports": [{"port": 80}]}, False),
        ({"ports": [{"port": 8080, "protocol": "UDP"}]}, False),
        ({"ports": [{"protocol": "TCP"}]}, True),
        ({"ports": [{"port": "http"}]}, True),
        ({"ports": [{"port": "metrics"}]}, False),
        ({"ports": [{"port": 8000, "endPort": 8100}]}, True),
        ({"ports": [{"port": 8000, "endPort": 8010}]}, False),
        ({"from": [{"podSelector": {}}], "ports": [{"port": 1}]}, False),
        # an address of a pod: whether ipBlock means pods is the enforcer's matter
        ({"from": [{"ipBlock": {"cidr": "10.244.0.0/16"}}]}, None),
        ({"from": [{"ipBlock": {"cidr": "10.244.0.0/16", "except": ["10.244.1.0/24"]}}]}, False),
        ({"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}, False),
    ],
)
def test_rules(rule: dict[str, Any], expected: bool | None) -> None:
    assert lets(ingress(rule)) == {"ingress": expected}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ({"key": "role", "operator": "In", "values": ["till", "desk"]}, True),
        ({"key": "role", "operator": "NotIn", "values": ["till"]}, False),
        ({"key": "absent", "operator": "NotIn", "values": ["till"]}, True),
        ({"key": "role", "operator": "Exists"}, True),
        ({"key": "absent", "operator": "Exists"}, False),
        ({"key": "role", "operator": "DoesNotExist"}, False),
    ],
)
def test_expressions(expression: dict[str, Any], expected: bool) -> None:
    peer = {"podSelector": {"matchExpressions": [expression]}}
    assert lets(ingress({"from": [peer]})) == {"ingress": expected}


@pytest.mark.parametrize(
    ("peer", "known", "expected"),
    [
        # without a namespaceSelector a podSelector means the policy's own namespace
        ({"podSelector": {}}, TEAM, False),
        ({"namespaceSelector": {}}, TEAM, True),
        ({"namespaceSelector": {"matchLabels": {"team": "blue"}}}, TEAM, True),
        ({"namespaceSelector": {"matchLabels": {"team": "red"}}}, TEAM, False),
        ({"namespaceSelector": {"matchLabels": {"team": "blue"}}}, {}, None),
        (
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "office"}}},
            {},
            True,
        ),
        (
            {"namespaceSelector": {}, "podSelector": {"matchLabels": {"role": "boss"}}},
            TEAM,
            False,
        ),
    ],
)
def test_other_namespaces(
    peer: dict[str, Any], known: dict[str, Any], expected: bool | None
) -> None:
    assert lets(ingress({"from": [peer]}), FAR, known) == {"ingress": expected}


def test_one_rule_that_lets_it_through_is_enough() -> None:
    packet = PodFlow(source=CLIENT, target=WEB, port=8080, protocol="tcp")
    denying, letting = policy(ingress()), policy(ingress({}))
    (told,) = policy_verdicts(packet, [denying, letting], {})
    assert (told.lets, told.policies) == (True, ("shop/p", "shop/p"))


def test_out_of_the_sender() -> None:
    spec = {"podSelector": {"matchLabels": {"role": "till"}}, "policyTypes": ["Egress"]}
    assert lets(spec) == {"egress": False}
    to_web = [{"to": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]
    assert lets({**spec, "egress": to_web}) == {"egress": True}


def test_a_pod_on_the_hosts_network_is_no_pod_to_them() -> None:
    host = msgspec.structs.replace(CLIENT, host_network=True)
    assert lets({"podSelector": {}, "policyTypes": ["Egress"]}, host) == {}
    assert lets(ingress({"from": [{"podSelector": {}}]}), host) == {"ingress": None}


def test_an_address_that_is_none_is_said_where_it_stands() -> None:
    bad = {"from": [{"ipBlock": {"cidr": "10.0.0.0/99"}}]}
    made = {"kind": "NetworkPolicy", "metadata": {"name": "p"}, "spec": ingress(bad)}
    with pytest.raises(ParseError, match="networkpolicies"):
        read_cluster_state({"networkpolicies.json": msgspec.json.encode(made)})

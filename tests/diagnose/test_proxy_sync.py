"""Faults in a node's rules, one by one, against endpoints written by hand."""

from __future__ import annotations

import msgspec
import pytest

from kptrace.diagnose.proxy_sync import PortCheck, differences
from kptrace.model import (
    Endpoint,
    Finding,
    Outcome,
    Service,
    ServiceEntrypoint,
    ServicePort,
    WeightedBackend,
)
from kptrace.rules.kubeproxy.expected_endpoints import expected_endpoints

PORT = ServicePort(name="http", protocol="tcp", port=80, target_port="8080", node_port=30080)
SERVICE = Service(
    namespace="shop",
    name="web",
    type="NodePort",
    cluster_ips=("10.96.0.50",),
    ports=(PORT,),
)
HERE = Endpoint(address="10.244.1.11", port=8080, port_name="http", node="node-a")
AWAY = Endpoint(address="10.244.2.21", port=8080, port_name="http", node="node-b")
GONE = Endpoint(address="10.244.2.99", port=8080, port_name="http", node="node-b")


def entry(
    *backends: tuple[Endpoint, float],
    outcome: Outcome = Outcome.DELIVERED,
    kind: str = "clusterIP",
    sender: str = "pod",
    **more: object,
) -> ServiceEntrypoint:
    made = ServiceEntrypoint(
        kind=kind,  # type: ignore[arg-type]
        address="10.96.0.50" if kind == "clusterIP" else "172.30.0.11",
        port=80 if kind == "clusterIP" else 30080,
        sender=sender,  # type: ignore[arg-type]
        outcome=outcome,
        backends=tuple(
            WeightedBackend(address=one.address, port=one.port, weight=weight)
            for one, weight in backends
        ),
    )
    return msgspec.structs.replace(made, **more)


def found(
    *entries: ServiceEntrypoint,
    endpoints: tuple[Endpoint, ...] = (HERE, AWAY),
    service: Service = SERVICE,
    cause: str = "",
    times: dict[tuple[str, int], int] | None = None,
    proxy: str = "iptables",
) -> list[Finding]:
    port = PortCheck(
        service=service,
        port=PORT,
        node="node-a",
        proxy=proxy,  # type: ignore[arg-type]
        known=endpoints,
        wanted=expected_endpoints(service, PORT, endpoints, node="node-a", zone="zone-a"),
        entries=entries,
        causes=(cause,) * len(entries),
        times=times or {},
    )
    return list(differences(port))


def causes(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(one.cause, one.object) for one in findings]


def test_rules_that_agree() -> None:
    assert found(entry((HERE, 0.5), (AWAY, 0.5))) == []
    assert found(entry((HERE, 0.50000000012), (AWAY, 0.49999999988))) == []


def test_a_missing_and_a_stale_endpoint_are_named() -> None:
    told = found(entry((HERE, 0.5), (GONE, 0.5)))
    assert causes(told) == [
        ("endpoint-missing", "shop/web:http 10.244.2.21:8080"),
        ("stale-dnat", "shop/web:http 10.244.2.99:8080"),
    ]
    assert {one.node for one in told} == {"node-a"}
    assert "10.244.2.21:8080, 10.244.1.11:8080" not in told[0].evidence[1]
    assert "ClusterIP 10.96.0.50:80 from a pod" in told[0].evidence


def test_one_fault_of_several_ways_in_is_told_once() -> None:
    told = found(entry((HERE, 1.0)), entry((HERE, 1.0), sender="node"))
    (only,) = told
    assert only.evidence[0] == "ClusterIP 10.96.0.50:80 from a pod, from the node"


def test_a_wrong_weight_and_a_doubled_endpoint() -> None:
    uneven = entry((HERE, 2 / 3), (AWAY, 1 / 3))
    assert [one.cause for one in found(uneven)] == ["endpoint-weight", "endpoint-weight"]
    doubled = found(uneven, times={("10.244.1.11", 8080): 2, ("10.244.2.21", 8080): 1})
    assert [one.cause for one in doubled] == ["endpoint-duplicated", "endpoint-weight"]
    assert "66.7%" in doubled[0].summary


def test_no_rule_at_all() -> None:
    told = found(entry(outcome=Outcome.NOT_PROGRAMMED))
    assert causes(told) == [("proxy-rules-missing", "shop/web:http 10.96.0.50:80")]


def test_a_refusal_although_there_are_endpoints() -> None:
    assert [one.cause for one in found(entry(outcome=Outcome.NO_ENDPOINTS))] == ["endpoint-missing"]


@pytest.mark.parametrize("cause", ["forward-policy-drop", "ip-forward-off"])
def test_what_else_stops_it_keeps_its_own_cause(cause: str) -> None:
    (told,) = found(entry((HERE, 0.5), (AWAY, 0.5), outcome=Outcome.DROPPED), cause=cause)
    assert told.cause == cause
    assert "kube-proxy" not in told.remedy[0]


def test_an_endpoint_that_is_not_ready_but_programmed() -> None:
    unready = msgspec.structs.replace(AWAY, ready=False, serving=False)
    told = found(entry((HERE, 0.5), (AWAY, 0.5)), endpoints=(HERE, unready))
    assert [one.cause for one in told] == ["stale-dnat", "endpoint-left-out"]
    assert "it is not ready" in told[0].summary


def test_hints_leave_out_rightly() -> None:
    near = msgspec.structs.replace(HERE, zones=("zone-a",))
    far = msgspec.structs.replace(AWAY, zones=("zone-b",))
    (told,) = found(entry((near, 1.0)), endpoints=(near, far))
    assert (told.cause, told.severity) == ("endpoint-left-out", "info")
    assert told.evidence == (
        "10.244.2.21:8080: its topology hint is for zone zone-b, this is zone-a",
    )


LOCAL = msgspec.structs.replace(SERVICE, external_policy="Local")


def test_policy_local_from_outside_and_from_within() -> None:
    outside = entry((HERE, 1.0), kind="nodePort", sender="outside")
    inside = entry((HERE, 0.5), (AWAY, 0.5), kind="nodePort", sender="pod")
    assert found(outside, inside, service=LOCAL) == []
    wrong = entry((HERE, 0.5), (AWAY, 0.5), kind="nodePort", sender="outside")
    assert [one.cause for one in found(wrong, service=LOCAL)] == ["stale-dnat"]


def test_policy_local_with_nothing_local() -> None:
    closed = entry(outcome=Outcome.DROPPED, kind="nodePort", sender="outside")
    assert found(closed, service=LOCAL, endpoints=(AWAY,)) == []
    # in IPVS mode the virtual server of that port holds the others then
    lent = entry((AWAY, 1.0), outcome=Outcome.DROPPED, kind="nodePort", sender="outside")
    assert found(lent, service=LOCAL, endpoints=(AWAY,), proxy="ipvs") == []


def test_source_ranges_are_kept() -> None:
    limited = msgspec.structs.replace(
        SERVICE, load_balancer_ips=("192.0.2.10",), source_ranges=("198.51.100.0/24",)
    )
    shut = entry(
        outcome=Outcome.DROPPED, kind="loadBalancer", sender="outside", source="203.0.113.7"
    )
    assert found(shut, service=limited) == []
    open_ = entry((HERE, 0.5), (AWAY, 0.5), kind="loadBalancer", source="203.0.113.7")
    assert {one.cause for one in found(open_, service=limited)} == {"stale-dnat"}
    inside = entry((HERE, 0.5), (AWAY, 0.5), kind="loadBalancer", source="198.51.100.9")
    assert found(inside, service=limited) == []


def test_a_remembered_client_is_no_fault() -> None:
    sticky = msgspec.structs.replace(SERVICE, affinity_seconds=300)
    assert found(entry((HERE, 1.0)), service=sticky) == []


def test_what_is_not_certain_is_not_called_wrong() -> None:
    assert found(entry(outcome=Outcome.INCONCLUSIVE, deterministic=False)) == []

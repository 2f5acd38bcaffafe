"""Which endpoints a node programs, by kube-proxy's rules for policies, hints and terminating ones.

The expectations are worked out by hand from topology.go; that the lists are those of real nodes is
what tests/lab/proxy compares.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kptrace.kube.objects.cluster_state import read_folder
from kptrace.model import Endpoint, Service, ServicePort
from kptrace.rules.kubeproxy.expected_endpoints import (
    ExpectedEndpoints,
    expected_endpoints,
    external_policy_local,
    why_not_programmed,
)

PORT = ServicePort(name="", protocol="tcp", port=80, target_port="8080")
NODE_PORT = replace(PORT, node_port=30080)
WEB = Service(
    namespace="shop", name="web", type="ClusterIP", cluster_ips=("10.96.0.5",), ports=(PORT,)
)
OPEN = replace(WEB, type="NodePort", ports=(NODE_PORT,))


def ep(number: int, node: str = "node-a", **fields: Any) -> Endpoint:
    return Endpoint(address=f"10.244.1.{number}", port=8080, node=node, **fields)


def here(service: Service, *endpoints: Endpoint, zone: str = "z1") -> ExpectedEndpoints:
    return expected_endpoints(service, service.ports[0], endpoints, node="node-a", zone=zone)


def numbers(endpoints: tuple[Endpoint, ...]) -> list[int]:
    return [int(endpoint.address.rpartition(".")[2]) for endpoint in endpoints]


TERMINATING = {"ready": False, "serving": True, "terminating": True}
GONE = {"ready": False, "serving": False, "terminating": True}
NOT_READY = {"ready": False, "serving": False}


def test_all_ready_endpoints_wherever_they_are() -> None:
    actual = here(WEB, ep(2, "node-b"), ep(1))
    assert numbers(actual.cluster) == [1, 2]
    assert actual.local == ()
    assert actual.excluded == ()
    assert actual.any_endpoints


def test_the_order_is_that_of_the_text_not_of_the_number() -> None:
    """kube-proxy sorts ``address:port`` as text; 0 is less than a colon: .100: before .10:."""
    assert numbers(here(WEB, ep(9), ep(10), ep(100)).cluster) == [100, 10, 9]


def test_only_endpoints_of_this_port_protocol_and_family() -> None:
    actual = here(
        WEB,
        ep(1),
        ep(2, port_name="metrics"),
        ep(3, protocol="udp"),
        replace(ep(4), address="fd00::4"),
        replace(ep(5), port=0),
    )
    assert numbers(actual.cluster) == [1]
    assert actual.excluded == ()  # these are not this port's at all


def test_not_ready_endpoints_are_left_out_with_the_reason() -> None:
    actual = here(WEB, ep(1), ep(2, **NOT_READY), ep(3, **TERMINATING), ep(4, **GONE))
    assert numbers(actual.cluster) == [1]
    assert [endpoint.reason for endpoint in actual.excluded] == [
        "it is not ready",
        "it is terminating, and ready endpoints exist",
        "it is terminating and serves no more",
    ]


def test_terminating_ones_serve_when_nobody_is_ready() -> None:
    actual = here(WEB, ep(1, **TERMINATING), ep(2, **NOT_READY), ep(3, **GONE))
    assert numbers(actual.cluster) == [1]
    assert actual.any_endpoints


def test_no_usable_endpoint_at_all() -> None:
    actual = here(WEB, ep(1, **NOT_READY))
    assert (actual.cluster, actual.any_endpoints) == ((), False)


# --- policies -----------------------------------------------------------------------------------


def test_internal_policy_local_takes_the_nodes_own() -> None:
    service = replace(WEB, internal_policy="Local")
    actual = here(service, ep(1), ep(2, "node-b"))
    assert numbers(actual.internal(service)) == [1]
    assert (actual.uses_cluster, actual.uses_local, actual.cluster) == (False, True, ())
    assert [endpoint.reason for endpoint in actual.excluded] == [
        "it is not on node-a, and the traffic policy is Local"
    ]


def test_internal_policy_local_without_a_local_endpoint_still_knows_that_others_exist() -> None:
    """The difference between REJECT (nobody anywhere) and DROP (nobody here)."""
    service = replace(WEB, internal_policy="Local")
    assert here(service, ep(2, "node-b")).any_endpoints
    assert here(service, ep(2, "node-b")).internal(service) == ()
    assert not here(service).any_endpoints


def test_external_policy_local_keeps_the_cluster_list_for_pods_and_the_node() -> None:
    service = replace(OPEN, external_policy="Local")
    actual = here(service, ep(1), ep(2, "node-b"))
    assert numbers(actual.external(service)) == [1]
    assert numbers(actual.internal(service)) == [1, 2]
    assert numbers(actual.reachable) == [1, 2]


def test_external_policy_counts_for_nothing_on_a_plain_cluster_ip() -> None:
    service = replace(WEB, external_policy="Local")
    assert not external_policy_local(service)
    assert numbers(here(service, ep(1), ep(2, "node-b")).external(service)) == [1, 2]
    assert external_policy_local(replace(service, external_ips=("192.0.2.1",)))


def test_a_local_terminating_endpoint_serves_local_traffic_though_others_are_ready() -> None:
    """Cluster and Local fall back on their own, so the union holds one that Cluster leaves out."""
    service = replace(OPEN, external_policy="Local")
    actual = here(service, ep(1, **TERMINATING), ep(2, "node-b"))
    assert (numbers(actual.cluster), numbers(actual.local)) == ([2], [1])
    assert numbers(actual.reachable) == [1, 2]


# --- hints --------------------------------------------------------------------------------------

ZONED = (
    ep(1, zones=("z1",)),
    ep(2, zones=("z1",)),
    ep(3, "node-b", zones=("z2",)),
)


def test_zone_hints_three_in_the_api_two_in_the_rules() -> None:
    actual = here(WEB, *ZONED)
    assert numbers(actual.cluster) == [1, 2]
    assert actual.topology == "PreferSameZone"
    assert [endpoint.reason for endpoint in actual.excluded] == [
        "its topology hint is for zone z2, this is z1"
    ]


@pytest.mark.parametrize(
    ("endpoints", "zone", "why"),
    [
        ((*ZONED, ep(4)), "z1", "one endpoint has no hint"),
        (ZONED, "z3", "no endpoint is for this zone"),
        (ZONED, "", "this node has no zone"),
    ],
)
def test_hints_are_ignored_altogether_when(
    endpoints: tuple[Endpoint, ...], zone: str, why: str
) -> None:
    actual = here(WEB, *endpoints, zone=zone)
    assert len(actual.cluster) == len(endpoints), why
    assert actual.topology == ""


def test_an_endpoint_that_is_not_ready_needs_no_hint() -> None:
    assert here(WEB, *ZONED, ep(4, **NOT_READY)).topology == "PreferSameZone"


def test_node_hints_come_before_zone_hints_and_fall_back_to_them() -> None:
    both = (
        ep(1, zones=("z1",), nodes=("node-a",)),
        ep(2, "node-c", zones=("z1",), nodes=("node-c",)),
        ep(3, "node-b", zones=("z2",), nodes=("node-b",)),
    )
    actual = here(WEB, *both)
    assert (numbers(actual.cluster), actual.topology) == ([1], "PreferSameNode")
    assert actual.excluded[0].reason == "its topology hint is for node node-c, this is node-a"
    assert numbers(here(WEB, *both[1:]).cluster) == [2]


def test_local_policy_knows_no_hints() -> None:
    service = replace(OPEN, external_policy="Local")
    elsewhere = ep(1, zones=("z2",))
    actual = here(service, elsewhere, ep(2, "node-b", zones=("z1",)))
    assert (numbers(actual.cluster), numbers(actual.local)) == ([2], [1])


# --- Services without rules ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"type": "ExternalName", "cluster_ips": ()}, "ExternalName"),
        ({"headless": True, "cluster_ips": ()}, "headless"),
        ({"proxy_name": "other"}, "'other'"),
    ],
)
def test_what_no_kube_proxy_programs(changes: dict[str, Any], said: str) -> None:
    assert said in why_not_programmed(replace(WEB, **changes))
    assert why_not_programmed(WEB) == ""


def test_the_api_of_a_real_cluster_names_three_that_are_not_programmed(dumps: Path) -> None:
    services = read_folder(dumps / "_api-matrix").services
    unprogrammed = {endpoint.name for endpoint in services if why_not_programmed(endpoint)}
    assert unprogrammed == {"extname", "headless", "other-proxy"}


# --- properties ---------------------------------------------------------------------------------

booleans = st.booleans()
names = st.sampled_from(["node-a", "node-b", ""])
hints = st.sampled_from([(), ("z1",), ("z2",), ("z1", "z2")])
any_endpoint = st.builds(
    ep,
    number=st.integers(1, 9),
    node=names,
    ready=booleans,
    serving=booleans,
    terminating=booleans,
    zones=hints,
    nodes=st.sampled_from([(), ("node-a",), ("node-b",)]),
)


@given(
    endpoints=st.lists(any_endpoint, max_size=6, unique_by=lambda endpoint: endpoint.address),
    internal=st.sampled_from(["Cluster", "Local"]),
    external=st.sampled_from(["Cluster", "Local"]),
    zone=st.sampled_from(["", "z1", "z3"]),
    service=st.sampled_from([WEB, OPEN]),
)
def test_every_endpoint_is_programmed_or_has_its_reason(
    endpoints: list[Endpoint], internal: str, external: str, zone: str, service: Service
) -> None:
    service = replace(service, internal_policy=internal, external_policy=external)
    actual = here(service, *endpoints, zone=zone)
    out = [endpoint.endpoint for endpoint in actual.excluded]
    assert sorted([*actual.reachable, *out], key=repr) == sorted(endpoints, key=repr)
    assert all(endpoint.reason for endpoint in actual.excluded)
    assert set(actual.reachable) == {*actual.cluster, *actual.local}
    assert all(endpoint.node == "node-a" for endpoint in actual.local)
    # kube-proxy: "if there are any Ready endpoints anywhere, we are guaranteed to get one"
    assert bool(actual.cluster) == (actual.any_endpoints and actual.uses_cluster)

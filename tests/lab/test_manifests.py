"""The lab's documents, read by the code that reads a cluster's."""

from __future__ import annotations

import json
from typing import Any

from kptrace.kube.objects.cluster_state import ClusterState, read_cluster_state
from kptrace.lab import manifests
from kptrace.lab.address_plan import plan


def read() -> ClusterState:
    return read_cluster_state(manifests.documents(plan()))


def items(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(manifests.documents(plan())[name])["items"]
    return found


def test_the_services_that_the_issue_names() -> None:
    documents = read()
    shop = {one.name for one in documents.services if one.namespace == "shop"}
    assert shop >= {
        "web", "remote", "self", "echo", "headless", "empty", "sticky", "nodeport",
        "nodeport-local", "local", "external", "web6", "dual",
    }  # fmt: skip
    assert documents.missing == ()
    web = documents.service("shop/web")
    assert web is not None
    assert [(port.name, port.port, port.target_port) for port in web.ports] == [
        ("http", 80, "http"),
        ("metrics", 9090, "metrics"),
    ]
    dns = documents.service("kube-system/kube-dns")
    assert dns is not None
    assert dns.cluster_ips == ("10.96.0.10",)
    assert {port.protocol for port in dns.ports} == {"udp", "tcp"}


def test_policies_and_kinds() -> None:
    by_name = {one.name: one for one in read().services}
    assert by_name["headless"].headless
    assert by_name["headless"].cluster_ips == ()
    assert by_name["sticky"].affinity_seconds == 10800
    assert by_name["nodeport"].ports[0].node_port == 30080
    assert by_name["nodeport-local"].external_policy == "Local"
    assert by_name["local"].internal_policy == "Local"
    assert by_name["external"].external_ips == ("203.0.113.10",)
    assert by_name["web6"].cluster_ips == ("fd00:10:96::112",)
    assert by_name["dual"].cluster_ips == ("10.96.1.13", "fd00:10:96::113")


def test_endpoints_are_the_pods() -> None:
    endpoints = read().endpoints
    remote = endpoints["shop/remote"][0]
    assert (remote.address, remote.port, remote.node) == ("10.244.2.21", 8080, "node-b")
    assert remote.pod == "shop/remote-1"
    assert {one.pod for one in endpoints["shop/self"]} == {"shop/client"}
    assert endpoints["shop/empty"] == ()
    assert {one.address for one in endpoints["shop/web6"]} == {
        "fd00:10:244:1::11", "fd00:10:244:2::12", "fd00:10:244:2::13",
    }  # fmt: skip
    ports = {(one.port_name, one.port) for one in endpoints["shop/web"]}
    assert ports == {("http", 8080), ("metrics", 9090)}
    # an endpoint with port 0 would be a slice whose ports nobody resolved
    assert all(one.port for several in endpoints.values() for one in several)


def test_slices_are_labelled_as_the_controller_does() -> None:
    slices = items("endpointslices.json")
    dual = [
        one for one in slices if one["metadata"]["labels"]["kubernetes.io/service-name"] == "dual"
    ]
    assert {one["addressType"] for one in dual} == {"IPv4", "IPv6"}
    empty = next(one for one in slices if one["metadata"]["name"].startswith("empty-"))
    assert empty["endpoints"] is None
    names = [(one["metadata"]["namespace"], one["metadata"]["name"]) for one in slices]
    assert len(set(names)) == len(names)


def test_nodes_carry_what_flannel_writes() -> None:
    node = items("nodes.json")[1]
    notes = node["metadata"]["annotations"]
    assert notes["flannel.alpha.coreos.com/backend-type"] == "vxlan"
    assert notes["flannel.alpha.coreos.com/public-ip"] == "172.30.0.12"
    data = '{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}'
    assert notes["flannel.alpha.coreos.com/backend-data"] == data
    assert node["spec"]["podCIDRs"] == ["10.244.2.0/24", "fd00:10:244:2::/64"]


def test_a_service_that_lost_its_pods() -> None:
    texts = manifests.documents(plan())
    texts["endpointslices.json"] = manifests.endpointslices(plan(), without=["shop/remote"])
    endpoints = read_cluster_state(texts).endpoints
    assert endpoints["shop/remote"] == ()
    assert len(endpoints["shop/near"]) == 1

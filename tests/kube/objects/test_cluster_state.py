"""API JSON becomes nouns; what is missing or wrong is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from kptrace.kube.objects.cluster_state import read_cluster_state, read_folder
from kptrace.model import ContainerPort, Endpoint, Service, ServicePort
from kptrace.model.errors import ParseError


def listing(*items: dict[str, Any], kind: str = "List") -> str:
    return json.dumps({"apiVersion": "v1", "kind": kind, "items": list(items)})


def a_service(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.5", "ports": [{"port": 80}], **spec},
    }


def a_slice(*endpoints: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "kind": "EndpointSlice",
        "metadata": {
            "name": "web-x",
            "namespace": "shop",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": list(endpoints),
        **fields,
    }


def service(**spec: Any) -> Service:
    return read_cluster_state({"services.json": listing(a_service(**spec))}).services[0]


def endpoints(*slices: dict[str, Any]) -> tuple[Endpoint, ...]:
    return read_cluster_state({"endpointslices.json": listing(*slices)}).endpoints.get(
        "shop/web", ()
    )


# --- what is there --------------------------------------------------------------------------------


def test_a_service_with_nothing_but_the_needful_has_the_apis_defaults() -> None:
    assert service() == Service(
        namespace="shop",
        name="web",
        type="ClusterIP",
        cluster_ips=("10.96.0.5",),
        ports=(ServicePort(name="", protocol="tcp", port=80, target_port="80"),),
    )


def test_a_service_with_everything() -> None:
    item = a_service(
        type="LoadBalancer",
        clusterIPs=["10.96.0.5", "FD00:10:96::5"],
        externalIPs=["192.0.2.1"],
        ports=[
            {
                "name": "dns",
                "port": 53,
                "protocol": "UDP",
                "targetPort": "dns",
                "nodePort": 30053,
                "appProtocol": "kubernetes.io/h2c",
            }
        ],
        selector={"app": "web"},
        sessionAffinity="ClientIP",
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": 300}},
        internalTrafficPolicy="Local",
        externalTrafficPolicy="Local",
        loadBalancerSourceRanges=["198.51.100.7/24", " 172.30.0.0/24"],
        healthCheckNodePort=31000,
        trafficDistribution="PreferClose",
    )
    item["metadata"]["labels"] = {"service.kubernetes.io/service-proxy-name": "other"}
    item["status"] = {
        "loadBalancer": {
            "ingress": [
                {"ip": "192.0.2.10"},
                {"ip": "192.0.2.11", "ipMode": "VIP"},
                {"ip": "192.0.2.12", "ipMode": "Proxy"},
                {"hostname": "lb.example.test"},
            ]
        }
    }
    found = read_cluster_state({"services.json": listing(item)}).services[0]
    assert found.cluster_ips == ("10.96.0.5", "fd00:10:96::5")
    assert found.ports == (
        ServicePort(
            name="dns",
            protocol="udp",
            port=53,
            target_port="dns",
            node_port=30053,
            app_protocol="kubernetes.io/h2c",
        ),
    )
    assert found.load_balancer_ips == ("192.0.2.10", "192.0.2.11")
    assert found.load_balancer_proxy_ips == ("192.0.2.12",)
    assert found.source_ranges == ("198.51.100.0/24", "172.30.0.0/24")
    assert (found.affinity_seconds, found.health_check_node_port) == (300, 31000)
    assert (found.internal_policy, found.external_policy) == ("Local", "Local")
    assert (found.proxy_name, found.traffic_distribution) == ("other", "PreferClose")
    assert found.selector == (("app", "web"),)
    assert found.external_ips == ("192.0.2.1",)


def test_headless_external_name_and_affinity_by_default() -> None:
    assert service(clusterIP="None", clusterIPs=["None"]).headless
    assert service(clusterIP="None").cluster_ips == ()
    name = service(type="ExternalName", externalName="db.example.test", clusterIP="", ports=None)
    assert (name.external_name, name.cluster_ips, name.headless) == ("db.example.test", (), False)
    assert service(sessionAffinity="ClientIP").affinity_seconds == 10800


def test_absent_conditions_mean_ready_serving_and_not_terminating() -> None:
    (one,) = endpoints(a_slice({"addresses": ["10.244.1.5"], "nodeName": "node-a"}))
    assert one == Endpoint(address="10.244.1.5", port=8080, port_name="http", node="node-a")
    (one,) = endpoints(
        a_slice(
            {
                "addresses": ["10.244.1.5"],
                "conditions": {"ready": False, "serving": None, "terminating": True},
                "hints": {"forZones": [{"name": "z1"}], "forNodes": [{"name": "node-a"}]},
                "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-1"},
            }
        )
    )
    assert (one.ready, one.serving, one.terminating) == (False, True, True)
    assert (one.zones, one.nodes, one.pod) == (("z1",), ("node-a",), "shop/web-1")


def test_slices_merge_by_port_and_each_address_counts_once() -> None:
    one, two = {"addresses": ["10.244.1.5", "ignored"]}, {"addresses": ["10.244.1.6"]}
    found = endpoints(
        a_slice(one),
        a_slice(one, two, ports=[{"name": "http", "port": 8080}]),
        a_slice(two, ports=[{"name": "http", "port": 9090}, {"name": "metrics", "port": 9}]),
        a_slice({"addresses": ["fd00::5"]}, addressType="IPv6"),
        a_slice({"addresses": ["db.example.test"]}, addressType="FQDN"),
        a_slice({"addresses": []}),
        a_slice({"addresses": ["10.244.9.9"]}, metadata={"name": "nobodys", "namespace": "shop"}),
    )
    assert [(one.address, one.port, one.port_name) for one in found] == [
        ("10.244.1.5", 8080, "http"),
        ("10.244.1.6", 8080, "http"),
        ("10.244.1.6", 9090, "http"),
        ("10.244.1.6", 9, "metrics"),
        ("fd00::5", 8080, "http"),
    ]


def test_a_slice_without_ports_keeps_its_addresses() -> None:
    (one,) = endpoints(a_slice({"addresses": ["10.244.1.5"]}, ports=None))
    assert (one.address, one.port, one.port_name) == ("10.244.1.5", 0, "")


def test_pods_and_nodes() -> None:
    pod = {
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web"}},
        "spec": {
            "nodeName": "node-a",
            "containers": [
                {"ports": [{"name": "http", "containerPort": 8080, "hostPort": 80}]},
                {},
            ],
        },
        "status": {
            "phase": "Running",
            "podIP": "10.244.1.5",
            "podIPs": [{"ip": "10.244.1.5"}, {"ip": "fd00::5"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    host = {
        "metadata": {"name": "p", "namespace": "shop", "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "node-a", "hostNetwork": True},
        "status": {"podIP": "172.30.0.11"},
    }
    node = {
        "metadata": {"name": "node-a", "labels": {"topology.kubernetes.io/zone": "z1"}},
        "spec": {"podCIDR": "10.244.1.0/24"},
        "status": {
            "addresses": [
                {"type": "Hostname", "address": "node-a"},
                {"type": "ExternalIP", "address": "198.51.100.1"},
                {"type": "InternalIP", "address": "172.30.0.11"},
            ]
        },
    }
    documents = read_cluster_state(
        {"pods.json": listing(pod, host, kind="PodList"), "nodes.json": listing(node)}
    )
    web = documents.pod("shop/web-1")
    assert web
    assert (web.node, web.ips, web.ready) == ("node-a", ("10.244.1.5", "fd00::5"), True)
    assert web.ports == (ContainerPort(name="http", port=8080, host_port=80),)
    assert documents.pod_at("fd00::5") == web
    assert documents.pod_at("172.30.0.11") is None  # the node's, though a pod uses it
    assert documents.pods[1].terminating
    found = documents.node("node-a")
    assert found
    assert found.addresses == ("172.30.0.11", "198.51.100.1")
    assert (found.pod_cidrs, found.zone) == (("10.244.1.0/24",), "z1")


def test_a_single_object_is_a_list_of_one() -> None:
    assert read_cluster_state({"services.json": json.dumps(a_service())}).service("shop/web")


# --- what is not there ----------------------------------------------------------------------------


def test_absent_files_are_named_and_no_error() -> None:
    documents = read_cluster_state({"services.json": listing()})
    assert documents.missing == ("endpointslices.json", "pods.json", "nodes.json")
    assert documents.services == ()


def test_a_folder_may_hold_gzipped_files(tmp_path: Path) -> None:
    (tmp_path / "services.json.gz").write_bytes(gzip.compress(listing(a_service()).encode()))
    (tmp_path / "nodes.json").write_text(listing())
    documents = read_folder(tmp_path)
    assert documents.service("shop/web")
    assert documents.missing == ("endpointslices.json", "pods.json")
    (tmp_path / "pods.json.gz").write_bytes(b"no gzip")
    with pytest.raises(ParseError, match=r"pods\.json"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "truncated"),
        ('{"items": [}', "byte 11"),
        ("[]", "array"),
        ("{}", "items"),
        (b"\xff\xfe", "malformed"),
        ('{"kind": "PodList", "items": []}', "holds PodList, not Service"),
        (listing({"kind": "Pod", "metadata": {"name": "x"}, "spec": {}}), "holds a Pod"),
        (listing({"metadata": {}, "spec": {}}), r"\$\.items\[0\]\.metadata"),
        (listing(a_service(ports=[{"port": "80"}])), r"\$\.items\[0\]\.spec\.ports\[0\]\.port"),
        (listing(a_service(clusterIP="10.96.0.999")), r"shop/web: .*10\.96\.0\.999"),
        (listing(a_service(loadBalancerSourceRanges=["10.0.0.0/33"])), "shop/web"),
    ],
)
def test_a_broken_file_says_where_and_how_to_get_a_good_one(text: str | bytes, said: str) -> None:
    with pytest.raises(ParseError, match=said) as caught:
        read_cluster_state({"services.json": text})
    assert caught.value.source == "services.json"
    assert "kubectl get services" in caught.value.hint


# --- a real API server's --------------------------------------------------------------------------


def test_the_whole_matrix_of_a_real_api_server(dumps: Path) -> None:
    documents = read_folder(dumps / "_api-matrix")
    assert documents.missing == ()
    assert (len(documents.services), len(documents.pods), len(documents.nodes)) == (41, 7, 2)
    assert documents.service_cidrs == ("10.96.0.0/12", "fd00:10:96::/112")
    mixed = documents.endpoints["prod/mixed-targetport"]
    assert {(one.address, one.port) for one in mixed} == {
        ("10.244.1.11", 8080),
        ("10.244.2.11", 9090),
    }
    proxied = documents.service("default/lb-proxymode")
    assert proxied
    assert proxied.load_balancer_ips == ()
    assert proxied.load_balancer_proxy_ips == ("192.0.2.13",)

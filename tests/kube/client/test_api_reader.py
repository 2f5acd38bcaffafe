"""What is asked of the API for one question, and what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kptrace.kube.client.api_reader import ApiReader
from kptrace.kube.client.client import Client
from kptrace.kube.objects.cluster_state import ClusterState, read_cluster_state
from kptrace.kube.objects.resolve import choose_source, resolve
from kptrace.model import TraceRequest
from kptrace.model.errors import NotFoundError, UsageError
from kptrace.model.targets import parse_target

CORE = "/api/v1/namespaces"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"
READY = [{"type": "Ready", "status": "True"}]


def _pod(
    api: Any, name: str, node: str, address: str, namespace: str = "shop", **labels: str
) -> None:
    api.put(
        f"{CORE}/{namespace}/pods/{name}",
        {"nodeName": node, "containers": []},
        labels=labels,
        status={"phase": "Running", "podIP": address, "conditions": READY},
    )


@pytest.fixture
def shop(api: Any) -> Any:
    api.put(f"{CORE}/shop")
    api.put(f"{CORE}/other")
    api.put(
        f"{CORE}/shop/services/web",
        {"type": "ClusterIP", "clusterIP": "10.96.1.1", "selector": {"app": "web"}}
        | {"ports": [{"port": 80, "targetPort": 8080}]},
    )
    target = {"kind": "Pod", "name": "web-1", "namespace": "shop"}
    api.put(
        f"{SLICES}/web-x7",
        labels={"kubernetes.io/service-name": "web"},
        addressType="IPv4",
        ports=[{"name": "", "port": 8080, "protocol": "TCP"}],
        endpoints=[{"addresses": ["10.244.2.20"], "nodeName": "b", "targetRef": target}],
    )
    _pod(api, "web-1", "b", "10.244.2.20", app="web")
    _pod(api, "client", "a", "10.244.1.10")
    _pod(api, "client-2", "c", "10.244.3.10")
    _pod(api, "far", "a", "10.244.1.11", "other")
    for name in ("a", "b", "c"):
        api.put(f"/api/v1/nodes/{name}", {}, status={"conditions": READY, "addresses": []})
    return api


def _read(
    client: Client, target: str, **asked: Any
) -> tuple[TraceRequest, ApiReader, ClusterState]:
    question = TraceRequest(target=parse_target(target, "shop"), namespace="shop", **asked)
    reading = ApiReader(client, question)
    return question, reading, read_cluster_state(reading.documents())


def test_a_service_costs_what_it_needs(shop: Any, client: Client) -> None:
    question, reading, documents = _read(client, "svc/web")
    assert [service.key for service in documents.services] == ["shop/web"]
    assert {pod.key for pod in documents.pods} == {"shop/web-1", "shop/client"}
    assert {node.name for node in documents.nodes} == {"a", "b"}
    resolution = resolve(question, documents)
    assert resolution.address == "10.96.1.1"
    source = choose_source(question, documents, [one.pod for one in resolution.endpoints])
    assert source.netns.pod == "shop/client"
    assert "no backend" in source.why
    assert reading.uids["shop/client"] == "uid-of-client"
    # never all Services, all pods or all nodes of the cluster
    assert not {"/api/v1/services", "/api/v1/pods", "/api/v1/nodes"} & set(shop.paths())


def test_a_named_source_is_all_that_is_read_of_pods(shop: Any, client: Client) -> None:
    _, _, documents = _read(client, "svc/web", source="pod/client-2")
    assert {pod.key for pod in documents.pods} == {"shop/web-1", "shop/client-2"}
    every = [query for _, path, query in shop.asked if path == f"{CORE}/shop/pods"]
    assert all(query.get("labelSelector") for query in every)


def test_lists_are_limited(shop: Any, client: Client) -> None:
    _read(client, "svc/web")
    lists = [query for _, path, query in shop.asked if path.endswith("/pods")]
    assert lists
    assert all(int(query["limit"]) <= 200 for query in lists)


def test_what_is_read_is_marked_as_a_part(shop: Any, client: Client) -> None:
    _, reading, documents = _read(client, "svc/web")
    assert "services.json" in documents.partial
    assert "managedFields" not in reading.documents()["pods.json"]


def test_an_address_is_looked_up_by_field(shop: Any, client: Client) -> None:
    question, _, documents = _read(client, "10.96.1.1:80", source="pod/client")
    found = resolve(question, documents)
    assert found.service is not None
    assert found.service.key == "shop/web"
    assert [one.pod for one in found.endpoints] == ["shop/web-1"]
    asked = {path: query for _, path, query in shop.asked}
    assert asked["/api/v1/services"] == {"fieldSelector": "spec.clusterIP=10.96.1.1"}


IP_ADDRESSES = "/apis/networking.k8s.io/v1/ipaddresses"


def test_a_second_cluster_ip_has_an_object_of_its_name(shop: Any, client: Client) -> None:
    """Its canonical form; the field selector knows the first ClusterIP only."""
    shop.objects[f"{CORE}/shop/services/web"]["spec"] |= {
        "clusterIPs": ["10.96.1.1", "fd00:10:96::7"]
    }
    parent = {"group": "", "resource": "services", "namespace": "shop", "name": "web"}
    shop.put(f"{IP_ADDRESSES}/fd00:10:96::7", {"parentRef": parent})
    question, _, documents = _read(client, "[FD00:10:96:0::7]:80", source="pod/client")
    found = resolve(question, documents)
    assert found.service is not None
    assert found.service.key == "shop/web"
    assert found.address == "fd00:10:96::7"


@pytest.mark.parametrize("code", [403, 404])
def test_without_such_objects_it_stays_an_address(shop: Any, client: Client, code: int) -> None:
    shop.refuse("GET", f"{IP_ADDRESSES}/fd00:10:96::7", code, "no")
    question, _, documents = _read(client, "[fd00:10:96::7]:80", source="pod/client")
    found = resolve(question, documents)
    assert (found.address, found.service) == ("fd00:10:96::7", None)
    question, _, documents = _read(client, "fd00:10:96::7", source="pod/client")
    with pytest.raises(UsageError, match="which port") as said:
        resolve(question, documents)
    assert "[fd00:10:96::7]:80" in said.value.hint
    assert "svc/NAME --via externalIP" in said.value.hint


def test_a_first_cluster_ip_is_not_asked_for_again(shop: Any, client: Client) -> None:
    _read(client, "10.96.1.1:80", source="pod/client")
    assert not any(one.startswith(IP_ADDRESSES) for one in shop.paths())


def test_a_pods_address(shop: Any, client: Client) -> None:
    question, _, documents = _read(client, "10.244.2.20:8080", source="node/a")
    assert [one.pod for one in resolve(question, documents).endpoints] == ["shop/web-1"]


def _asked(client: Client, target: str, **asked: str) -> None:
    question, _, documents = _read(client, target, **asked)
    resolution = resolve(question, documents)
    choose_source(question, documents, [one.pod for one in resolution.endpoints])


@pytest.mark.parametrize(
    ("target", "asked", "said", "hint"),
    [
        ("svc/wep", {}, "no Service wep in namespace shop", "did you mean svc/web"),
        ("svc/web.other", {}, "no Service web in namespace other", "namespace shop"),
        ("svc/web.shopp", {}, "no namespace shopp", "did you mean shop?"),
        ("svc/web", {"source": "pod/clint"}, "no pod clint in namespace shop", "client"),
        ("svc/web", {"source": "node/aa"}, "no node aa", "did you mean a?"),
        ("pod/web1:80", {}, "no pod web1 in namespace shop", "web-1"),
    ],
)
def test_what_is_not_there_is_said_with_the_nearest(
    shop: Any, client: Client, target: str, asked: dict[str, str], said: str, hint: str
) -> None:
    with pytest.raises(NotFoundError) as caught:
        _asked(client, target, **asked)
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_neighbours_are_asked_for_their_names_only(shop: Any, client: Client) -> None:
    _read(client, "svc/wep")
    listed = [
        headers["Accept"]
        for (_, path, _), headers in zip(shop.asked, shop.headers, strict=True)
        if path == f"{CORE}/shop/services"
    ]
    assert listed
    assert all("PartialObjectMetadataList" in accept for accept in listed)


def test_a_static_pods_cgroup_has_the_hash_of_its_file(shop: Any, client: Client) -> None:
    one = shop.objects[f"{CORE}/shop/pods/client"]
    one["metadata"]["annotations"] = {"kubernetes.io/config.hash": "0123456789abcdef" * 2}
    _, reading, _ = _read(client, "svc/web", source="pod/client")
    assert reading.uids["shop/client"] == "0123456789abcdef" * 2


def test_without_a_selector_the_slices_name_the_pods(shop: Any, client: Client) -> None:
    del shop.objects[f"{CORE}/shop/services/web"]["spec"]["selector"]
    _, _, documents = _read(client, "svc/web", source="pod/client")
    assert {pod.key for pod in documents.pods} == {"shop/web-1", "shop/client"}


def test_no_pod_to_send_from_is_no_error_here(shop: Any, client: Client) -> None:
    for name in ("client", "client-2"):
        del shop.objects[f"{CORE}/shop/pods/{name}"]
    question, _, documents = _read(client, "svc/web")
    source = choose_source(question, documents, ["shop/web-1"])
    assert (source.kind, source.netns.node) == ("node", "b")


def test_the_texts_are_as_kubectl_prints_them(shop: Any, client: Client) -> None:
    _, reading, _ = _read(client, "svc/web")
    listed = json.loads(reading.documents()["services.json"])
    assert listed["kind"] == "List"

"""All of a cluster read page by page, and what is said where it may not be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kptrace.environment.cluster import HOST_NETNS
from kptrace.environment.whole_cluster import KINDS, PAGE, WholeCluster
from kptrace.kube.agents.manifest import AgentPodOptions
from kptrace.kube.client.client import ApiError, Client, Status
from kptrace.model import Netns
from kptrace.model.errors import PermissionDeniedError

TERMS = AgentPodOptions(namespace="kube-system")
# as a server writes a list: its items have no kind of their own
PODS: list[dict[str, Any]] = [
    {"metadata": {"name": f"web-{n}", "namespace": "shop", "uid": f"uid-{n}"}} for n in range(5)
]
NODES: list[dict[str, Any]] = [{"metadata": {"name": f"node-{letter}"}} for letter in "ba"]


class Paged:
    """A server that gives two items at a time, in the form of the API's chunked lists."""

    server = "https://paged"

    def __init__(self, lists: dict[str, list[dict[str, Any]]], newest: bool = True) -> None:
        self._lists, self._newest = lists, newest
        self.asked: list[tuple[str, dict[str, str]]] = []

    def get(self, path: str, **query: str) -> str:
        self.asked.append((path, query))
        kind = path.rpartition("/")[2]
        if kind == "servicecidrs" and not self._newest:
            raise ApiError(404, Status(message="the server could not find the resource"))
        begin = int(query.get("continue", "0"))
        items = self._lists.get(kind, [])
        more = {"continue": str(begin + 2)} if begin + 2 < len(items) else {}
        named = {"pods": "PodList", "nodes": "NodeList"}.get(kind, "List")
        return json.dumps({"kind": named, "metadata": more, "items": items[begin : begin + 2]})


def whole(client: Any) -> WholeCluster:
    return WholeCluster(client, TERMS, lambda _: None)


def test_every_page_is_read_and_each_item_has_its_kind() -> None:
    client = Paged({"pods": PODS, "nodes": NODES})
    texts = whole(client).api()
    read = json.loads(texts["pods.json"])
    assert read["kind"] == "List"
    assert [one["metadata"]["name"] for one in read["items"]] == [f"web-{n}" for n in range(5)]
    assert {one["kind"] for one in read["items"]} == {"Pod"}
    pages = [query for path, query in client.asked if path == "/api/v1/pods"]
    assert [query.get("continue") for query in pages] == [None, "2", "4"]
    assert {query["limit"] for query in pages} == {str(PAGE)}


def test_it_is_read_once() -> None:
    client = Paged({"pods": PODS, "nodes": NODES})
    cluster = whole(client)
    assert cluster.api() == cluster.api()
    assert len([path for path, _ in client.asked if path == "/api/v1/nodes"]) == 1


@pytest.mark.parametrize("newest", [True, False])
def test_what_only_newer_clusters_have_may_be_missing(newest: bool) -> None:
    texts = whole(Paged({"nodes": NODES}, newest)).api()
    assert set(texts) == {*KINDS, *(("servicecidrs.json",) if newest else ())}


def test_nodes_come_ready_ones_first_then_by_name() -> None:
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    lost = {"conditions": [{"type": "Ready", "status": "Unknown"}]}
    items = [
        {"metadata": {"name": name}, "status": status}
        for name, status in (("a", lost), ("c", ready), ("b", ready))
    ]
    cluster = whole(Paged({"nodes": items}))
    cluster.api()
    assert cluster.nodes == ("b", "c", "a")


def test_only_the_nodes_themselves_are_entered() -> None:
    pods = [{**one, "spec": {"nodeName": "node-a"}} for one in PODS]
    cluster = whole(Paged({"pods": pods, "nodes": NODES}))
    cluster.api()
    (door,) = cluster.netns_handles("node-a")
    assert (door.netns, door.ns_path) == (Netns(node="node-a"), HOST_NETNS)


@pytest.fixture
def shut(api: Any) -> Any:
    """Who may list Services and nodes, and nothing else."""
    api.put("/api/v1/nodes/node-a")
    for path in ("/api/v1/pods", "/apis/discovery.k8s.io/v1/endpointslices"):
        api.refuse("GET", path, 403, "you cannot list this", "Forbidden")
    api.allowed = lambda attributes: attributes["resource"] in ("services", "nodes")
    return api


def test_all_that_is_missing_is_told_at_once(shut: Any, client: Client) -> None:
    with pytest.raises(PermissionDeniedError) as caught:
        whole(client).api()
    told = f"{caught.value.message}\n{caught.value.hint}"
    for words in ("list pods in all namespaces", "list endpointslices in all namespaces"):
        assert words in told
    assert "create pods in namespace kube-system" in told
    assert "list services" not in told
    assert "list nodes" not in told

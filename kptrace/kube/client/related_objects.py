"""What stands around a Service in the API, read only where no agent can be had: nodes' own rules
tell the same better.

In: a client, and what was read of the question (api_reader.py). Out: more documents: the
NetworkPolicies of the sender's and the backends' namespaces, these namespaces' labels, and
kube-proxy's pods on the nodes that matter (where it runs in pods, as kubeadm has it). What may not
be read ``unread.json`` says; nothing here is needed, so nothing is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec

from kptrace.kube.client.client import Client, decoded, is_rbac_denial, path
from kptrace.kube.objects.cluster_state import UNREAD, ClusterState, ReadFailure
from kptrace.model.errors import ObservationError

POLICIES = "apis/networking.k8s.io/v1/networkpolicies"
SYSTEM = "kube-system"
ROLE = "the ClusterRole kptrace-read of plugins/kubectl/rbac.yaml allows it"
PROXY = "k8s-app=kube-proxy"
PAGE = 500

Found = list[dict[str, Any]]


def related_objects(client: Client, known: ClusterState) -> dict[str, str]:
    services = {service.namespace for service in known.services} - {SYSTEM}  # its own is DNS
    spaces = sorted({pod.namespace for pod in known.pods} | services)
    nodes = {pod.node for pod in known.pods if pod.node}
    asked: dict[str, list[tuple[str, Callable[[], Found]]]] = {
        "networkpolicies.json": [
            (f"NetworkPolicies of namespace {name}", partial(_list, client, POLICIES, name))
            for name in spaces
        ],
        "namespaces.json": [
            (f"labels of namespace {name}", partial(_namespace, client, name)) for name in spaces
        ],
        "daemons.json": [
            (f"kube-proxy's pods in namespace {SYSTEM}", partial(_daemons, client, nodes)),
        ],
    }
    texts: dict[str, str] = {}
    unread: list[ReadFailure] = []
    with ThreadPoolExecutor(8, "surroundings") as pool:
        work = {
            file: [(text, pool.submit(item)) for text, item in query]
            for file, query in asked.items()
        }
        for file, query in work.items():
            objects: Found = []
            for phrase, done in query:
                try:
                    objects += done.result()
                except ObservationError as error:
                    unread.append(_unread(phrase, error))
            texts[file] = _listing(objects)
    reason = msgspec.json.encode(unread).decode()
    return {**texts, UNREAD: reason} if unread else texts


def _unread(what: str, error: ObservationError) -> ReadFailure:
    if is_rbac_denial(error):
        return ReadFailure(what=what, why="not allowed to read them", hint=ROLE)
    return ReadFailure(what=what, why=error.in_one_line)


def _list(client: Client, kind: str, namespace: str, **query: str) -> Found:
    listed = decoded(client.get(path(kind, namespace), limit=str(PAGE), **query))
    return [_bare(item) for item in listed.get("items") or ()]


def _namespace(client: Client, name: str) -> Found:
    return [_bare(decoded(client.get(path("namespaces", "", name))))]


def _daemons(client: Client, nodes: set[str]) -> Found:
    objects = _list(client, "pods", SYSTEM, labelSelector=PROXY)
    return [item for item in objects if item.get("spec", {}).get("nodeName") in nodes]


def _bare(item: dict[str, Any]) -> dict[str, Any]:
    item.get("metadata", {}).pop("managedFields", None)
    return {key: value for key, value in item.items() if key not in ("kind", "apiVersion")}


def _listing(objects: Iterable[dict[str, Any]]) -> str:
    whole = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    return msgspec.json.format(msgspec.json.encode(whole), indent=1).decode()

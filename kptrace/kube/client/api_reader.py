"""What one question needs of the API, and no more: named objects and what a selector finds.

In: a question. Out: the documents for it, as ``kubectl get -o json`` would print them, and
``partial.json``, which says which of them hold a part of what the cluster has.

    the Service by name, its EndpointSlices by label, the pods that its selector finds (a page)
    the source pod by name, or a page of the namespace's running pods to choose one from
    the nodes of all these by name, or a page of nodes where one is to be chosen
    of an address: the Service whose first ClusterIP it is, the pod whose address it is; where it is
    neither's, the IPAddress of that name, which tells whose second ClusterIP it is; else the
    Services of type LoadBalancer and the nodes (a page each). Who has it as an external IP no
    selector and no name tells, so that is not found.

A Service or pod that is not there is looked for by its name in other namespaces, and the names of
its own namespace are read, so that the nearest can be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_address
from typing import Any

import msgspec

from kptrace.kube.client.client import NAMES_ONLY, ApiError, Client, decoded, path
from kptrace.kube.objects.cluster_state import PARTIAL, SERVICE_NAME, read_cluster_state
from kptrace.kube.objects.resolve import candidate_source_pods
from kptrace.model import SourceSpec, Target, TraceRequest
from kptrace.model.errors import NotFoundError, ObservationError
from kptrace.model.suggestions import suggestion
from kptrace.model.targets import parse_source

SLICES = "apis/discovery.k8s.io/v1/endpointslices"
IP_ADDRESSES = "apis/networking.k8s.io/v1/ipaddresses"
SERVICE_CIDRS = "apis/networking.k8s.io/v1/servicecidrs"
PAGE = 200  # objects of one kind that are read at most where one is to be chosen or found
MOST_BACKENDS = 50
MOST_NODES = 20
DNS_NAMESPACE, DNS_LABEL = "kube-system", "k8s-app=kube-dns"

Found = dict[str, Any]


class ApiReader:
    """One question's documents; what is known to be needed is asked for at once."""

    def __init__(self, client: Client, request: TraceRequest, lenient: bool = False) -> None:
        """lenient: what may not be read is left out, but for what the question names."""
        self._client, self._request, self._lenient = client, request, lenient
        self._refused: set[str] = set()
        self._paged: set[str] = set()
        self._behind_it: set[str] = set()
        self._lost = False
        self._objects: dict[str, dict[str, Found]] = {
            name: {} for name in ("services", "endpointslices", "pods", "nodes", "servicecidrs")
        }

    def documents(self) -> dict[str, str]:
        try:
            return self._read()
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ObservationError(
                f"the API server {self._client.server} answered something else than was asked: "
                f"{type(error).__name__} {error}",
                "is it one? `kubectl cluster-info` asks the same server",
            ) from None

    def _read(self) -> dict[str, str]:
        source = self._source()
        with ThreadPoolExecutor(8, "api") as pool:
            first: list[Callable[[], None]] = [self._cidrs]
            first.append(lambda: self._of_target(self._request.target))
            first.append(lambda: self._of_source(source))
            _do(pool, first)
            if source is None:
                self._keep_one_client_pod()
            second = [partial(self._host, name) for name in self._nodes_wanted()]
            _do(pool, [*second, self._dns])
            if not self._objects["nodes"]:
                self._list("nodes", path("nodes"), limit=str(MOST_NODES))
        return self._texts()

    @property
    def uids(self) -> dict[str, str]:
        """Of the pods, by ``namespace/name``, as the kubelet names their cgroups: a static pod has
        the hash of its file (kubernetes.io/config.hash) for a uid there.
        """
        return {
            key: str(
                (item["metadata"].get("annotations") or {}).get("kubernetes.io/config.hash")
                or item["metadata"]["uid"]
            )
            for key, item in self._objects["pods"].items()
        }

    # --- the target ---------------------------------------------------------------------------

    def _of_target(self, target: Target) -> None:
        match target.kind:
            case "service":
                self._service(target.namespace, target.name)
            case "pod":
                self._pod(target.namespace, target.name)
            case "address":
                self._address(target.name)
            case "name":
                pass

    def _service(self, namespace: str, name: str) -> None:
        try:
            self._get("services", namespace, name)
        except ApiError as refusal:
            if refusal.code != 404:
                raise
            self._others("services", namespace, name)
            return
        self._behind(namespace, name)

    def _behind(self, namespace: str, name: str) -> None:
        selector = self._objects["services"][f"{namespace}/{name}"]["spec"].get("selector")
        label = f"{SERVICE_NAME}={name}"
        self._list("endpointslices", path(SLICES, namespace), labelSelector=label)
        if selector:
            labels = ",".join(f"{key}={value}" for key, value in selector.items())
            limit = str(MOST_BACKENDS)
            where = path("pods", namespace)
            self._behind_it |= self._list("pods", where, labelSelector=labels, limit=limit)
            return
        for key in tuple(self._targets())[:MOST_BACKENDS]:
            self._pod(*key.split("/", 1))

    def _targets(self) -> Iterable[str]:
        for item in self._all("endpointslices"):
            for endpoint in item.get("endpoints") or ():
                target = endpoint.get("targetRef") or {}
                if target.get("kind") == "Pod":
                    yield f"{target['namespace']}/{target['name']}"

    def _address(self, address: str) -> None:
        texts = self._list("services", path("services"), fieldSelector=f"spec.clusterIP={address}")
        texts |= self._list("pods", path("pods"), fieldSelector=f"status.podIP={address}")
        if not texts and not self._by_ip_address(address):
            balanced = "spec.type=LoadBalancer"
            self._list("services", path("services"), fieldSelector=balanced, limit=str(PAGE))
            self._list("nodes", path("nodes"), limit=str(PAGE))
            if any(address in _addresses(item) for item in self._all("nodes")):
                on_nodes = "spec.type=NodePort"
                self._list("services", path("services"), fieldSelector=on_nodes, limit=str(PAGE))
        owners = [
            item for item in self._all("services") if address in msgspec.json.encode(item).decode()
        ]
        node_port = any(address in _addresses(item) for item in self._all("nodes"))
        for item in owners or (self._all("services") if node_port else ()):
            self._behind(item["metadata"]["namespace"], item["metadata"]["name"])

    def _by_ip_address(self, address: str) -> bool:
        """Since Kubernetes 1.33 there is one for every ClusterIP, of
        both families, named as the canonical text of the address (MultiCIDRServiceAllocator).
        """
        try:
            listing = decoded(self._client.get(path(IP_ADDRESSES, "", str(ip_address(address)))))
            parent = listing["spec"]["parentRef"]
            if parent["resource"] != "services":
                return False
            self._get("services", parent["namespace"], parent["name"])
        except ApiError:
            return False  # an older cluster, or not allowed
        return True

    # --- the source ---------------------------------------------------------------------------

    def _source(self) -> SourceSpec | None:
        if not self._request.source:
            return None
        return parse_source(self._request.source, self._request.namespace)

    def _of_source(self, source: SourceSpec | None) -> None:
        if source is None:
            namespace = self._request.target.namespace or self._request.namespace
            running = "status.phase=Running"
            where = path("pods", namespace)
            self._paged |= self._list("pods", where, fieldSelector=running, limit=str(PAGE))
        elif source.kind == "pod":
            self._pod(source.namespace, source.name)
        elif source.kind == "node":
            self._node(source.name)

    def _keep_one_client_pod(self) -> None:
        """Of the pods to choose from, the one that will be chosen (resolution.choose_source)."""
        backends = frozenset(self._targets())
        namespace = self._request.target.namespace or self._request.namespace
        pods = read_cluster_state({"pods.json": _listing(self._objects["pods"])}).pods
        chosen = {pod.key for pod in candidate_source_pods(pods, namespace, backends)[:1]}
        chosen |= {f"{namespace}/{self._request.target.name}", *backends, *self._behind_it}
        for key in self._paged - chosen if not self._lost else ():
            del self._objects["pods"][key]

    def _pod(self, namespace: str, name: str) -> None:
        try:
            self._get("pods", namespace, name)
        except ApiError as refusal:
            if refusal.code != 404:
                raise
            self._others("pods", namespace, name)

    # --- nodes --------------------------------------------------------------------------------

    def _nodes_wanted(self) -> tuple[str, ...]:
        endpoints = (
            endpoint.get("nodeName")
            for item in self._all("endpointslices")
            for endpoint in item.get("endpoints") or ()
        )
        hosts = (item["spec"].get("nodeName") for item in self._all("pods"))
        names = (*endpoints, *hosts, self._request.node)
        requested = dict.fromkeys(name for name in names if name)
        return tuple(name for name in requested if name not in self._objects["nodes"])[:MOST_NODES]

    def _node(self, name: str) -> None:
        try:
            self._get("nodes", "", name)
        except ApiError as refusal:
            if refusal.code != 404:
                raise
            self._others("nodes", "", name)

    def _host(self, name: str) -> None:
        """Of a pod that matters, which names it."""
        try:
            self._node(name)
        except ApiError as refusal:
            self._leave_out("nodes", refusal)

    def _dns(self) -> None:
        """The cluster's own, where it is called as kubeadm and most others call it."""
        if self._request.target.kind not in ("service", "name"):
            return
        try:
            self._list("services", path("services", DNS_NAMESPACE), labelSelector=DNS_LABEL)
            self._list("endpointslices", path(SLICES, DNS_NAMESPACE), labelSelector=DNS_LABEL)
        except ApiError:
            return  # what it answers tells enough

    def _cidrs(self) -> None:
        """Kubernetes has them since 1.33; they are no more than a help."""
        try:
            self._list("servicecidrs", path(SERVICE_CIDRS), limit=str(PAGE))
        except ApiError:
            self._objects["servicecidrs"].clear()

    # --- what is not there --------------------------------------------------------------------

    def _others(self, kind: str, namespace: str, name: str) -> None:
        """Its namesakes elsewhere and its neighbours' names: all that can be told instead."""
        self._lost = True
        if namespace:
            self._require_namespace(namespace)
            for listing in self._names(path(kind), fieldSelector=f"metadata.name={name}"):
                self._put(kind, listing)
        for listing in self._names(path(kind, namespace)):
            self._put(kind, listing)

    def _require_namespace(self, namespace: str) -> None:
        try:
            self._client.get(path("namespaces", "", namespace))
        except ApiError as refusal:
            if refusal.code != 404:
                return  # it may be there; that we may not know it is no answer
            names = [name["metadata"]["name"] for name in self._names(path("namespaces"))]
            raise NotFoundError(f"no namespace {namespace}", suggestion(namespace, names)) from None

    def _names(self, where: str, **query: str) -> list[Found]:
        try:
            listed = decoded(self._client.get(where, accept=NAMES_ONLY, limit=str(PAGE), **query))
        except ApiError:
            return []
        return [{"metadata": item["metadata"], "spec": {}} for item in listed.get("items") or ()]

    # --- objects ------------------------------------------------------------------------------

    def _get(self, kind: str, namespace: str, name: str) -> None:
        self._put(kind, decoded(self._client.get(path(kind, namespace, name))))

    def _list(self, kind: str, where: str, **query: str) -> set[str]:
        try:
            listed = decoded(self._client.get(where, **query)).get("items") or ()
        except ApiError as refusal:
            self._leave_out(kind, refusal)
            return set()
        return {self._put(kind, item) for item in listed}

    def _leave_out(self, kind: str, refusal: ApiError) -> None:
        if not self._lenient or refusal.code != 403:
            raise refusal
        self._refused.add(kind)

    def _put(self, kind: str, item: Found) -> str:
        metadata = item["metadata"]
        metadata.pop("managedFields", None)
        item.pop("kind", None)
        item.pop("apiVersion", None)
        key = "/".join(filter(None, (metadata.get("namespace", ""), metadata["name"])))
        self._objects[kind].setdefault(key, item)
        return key

    def _all(self, kind: str) -> tuple[Found, ...]:
        """As of now: other threads are adding to them."""
        return tuple(self._objects[kind].values())

    def _texts(self) -> dict[str, str]:
        texts = {f"{kind}.json": _listing(items) for kind, items in self._objects.items()}
        for kind in ("servicecidrs", *self._refused):
            if not self._objects[kind]:
                texts.pop(f"{kind}.json", None)
        parts = [name for name in texts if name != "servicecidrs.json"]
        return {**texts, PARTIAL: msgspec.json.encode(parts).decode()}


def _listing(items: Mapping[str, Found]) -> str:
    whole = {"apiVersion": "v1", "kind": "List", "items": list(items.values())}
    return msgspec.json.format(msgspec.json.encode(whole), indent=1).decode()


def _addresses(node: Found) -> list[str]:
    return [item.get("address", "") for item in node.get("status", {}).get("addresses") or ()]


def _do(pool: ThreadPoolExecutor, work: Iterable[Callable[[], None]]) -> None:
    for done in [pool.submit(item) for item in work]:
        done.result()

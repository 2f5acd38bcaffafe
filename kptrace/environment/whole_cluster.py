"""A whole cluster as a ground, for what asks of all its Services and nodes: a snapshot, a check.

In: how to reach it and how agents are to run. Out: every Service, EndpointSlice, pod and node, read
page by page, and an agent on each node that is asked for. A run about one Service reads far less
(kube/client/api_reader.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from kptrace.environment.cluster import ClusterEnvironment, host_handle
from kptrace.kube.agents.manifest import AgentPodOptions
from kptrace.kube.client.api_reader import SERVICE_CIDRS, SLICES
from kptrace.kube.client.client import ApiError, Client, decoded, path
from kptrace.kube.client.permissions import RequiredPermission, to_act
from kptrace.kube.objects.cluster_state import read_cluster_state
from kptrace.model import ProgressCallback, Target, TraceRequest
from kptrace.model.errors import ObservationError
from kptrace.protocol import NetnsHandle

PAGE = 500
KINDS = {
    "services.json": "services",
    "endpointslices.json": SLICES,
    "pods.json": "pods",
    "nodes.json": "nodes",
}
OPTIONAL = {"servicecidrs.json": SERVICE_CIDRS}
# a run's question is about one target; this one is about none
_NONE = TraceRequest(target=Target(kind="name", text="", name=""))


class WholeCluster(ClusterEnvironment):
    def __init__(self, client: Client, terms: AgentPodOptions, progress: ProgressCallback) -> None:
        super().__init__(client, _NONE, terms, progress, sends=False)

    def api(self) -> dict[str, str]:
        if self._texts:
            return self._texts
        self._progress(f"asking {self._client.server}")
        try:
            with ThreadPoolExecutor(len(KINDS), "api") as pool:
                texts = dict(zip(KINDS, pool.map(self._all, KINDS.values()), strict=True))
        except ApiError as refusal:
            raise self._explained(refusal) from None
        for name, kind in OPTIONAL.items():
            try:
                texts[name] = self._all(kind)
            except ObservationError:
                continue  # of newer clusters only
        self._texts, self._cluster_state = texts, read_cluster_state(texts)
        return texts

    def netns_handles(self, node: str) -> tuple[NetnsHandle, ...]:
        """Of the node itself: what its rules and devices do is seen there."""
        return (host_handle(node),)

    # --- inside -------------------------------------------------------------------------------

    def _all(self, kind: str) -> str:
        return msgspec.json.encode({"kind": "List", "items": list(self._items(kind))}).decode()

    def _items(self, kind: str) -> Iterator[dict[str, Any]]:
        more: dict[str, str] = {}
        while True:
            page = decoded(self._client.get(path(kind), limit=str(PAGE), **more))
            singular = str(page.get("kind", "")).removesuffix("List")
            # items of a list have no kind of their own; kubectl writes one into each
            yield from ({"kind": singular, **item} for item in page.get("items") or ())
            token = (page.get("metadata") or {}).get("continue", "")
            if not token:
                return
            more = {"continue": token}

    def _needs(self) -> tuple[RequiredPermission, ...]:
        kinds = [("services", ""), ("pods", ""), ("nodes", ""), ("endpointslices", SLICES)]
        reads = (
            RequiredPermission(resource=name, verb="list", group=kind.split("/")[1] if kind else "")
            for name, kind in kinds
        )
        return (*reads, *to_act(self._terms.namespace))

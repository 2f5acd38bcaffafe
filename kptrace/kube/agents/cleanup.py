"""What a killed run left in a cluster: found by its label, removed, and waited for.

In: a client and a namespace, or all of them. Out: the pods that were removed. A container that was
added to a pod cannot be taken out of it again; it ends by itself, and is told of.

Pods that have ended stay as objects until somebody deletes them (the garbage collector of ended
pods begins at 12,500 of them, kube-controller-manager --terminated-pod-gc-threshold). So each run
removes those of earlier ones beside its own work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from kptrace.kube.agents.manifest import MANAGED_BY, RUN
from kptrace.kube.client.client import ApiError, Client, decoded, path
from kptrace.kube.client.permissions import RequiredPermission, lacking
from kptrace.model import Value
from kptrace.model.errors import AgentError, ObservationError

SECONDS = 60.0  # a kubelet that lost the API server comes back to it within some
_AGAIN = 0.2
_VERBS = ("list", "delete")
_ENDED = "status.phase!=Pending,status.phase!=Running"


class OrphanedPod(Value):
    """A pod of a run; ``node`` is where it is."""

    namespace: str
    name: str
    run: str
    node: str
    phase: str
    reason: str = ""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def outlived(self) -> bool:
        """It came to its own deadline, or all the time that it was to wait has passed. What ended
        otherwise (evicted, killed) may belong to a run that is still to say so.
        """
        return self.phase == "Succeeded" or self.reason == "DeadlineExceeded"


def leftovers(
    client: Client, namespace: str = "", run: str = "", **query: str
) -> tuple[OrphanedPod, ...]:
    label = f"{MANAGED_BY}=kptrace" + (f",{RUN}={run}" if run else f",{RUN}")
    listing = decoded(client.get(path("pods", namespace), labelSelector=label, **query))
    return tuple(_leftover(item) for item in listing.get("items") or ())


def delete_expired_pods(client: Client, namespace: str) -> threading.Thread:
    """Remove what earlier runs left there and has ended, beside the work of this one; nobody waits
    for it, and where it is not allowed nothing is said.
    """
    thread = threading.Thread(target=_tidied, args=(client, namespace), name="tidy", daemon=True)
    thread.start()
    return thread


def _tidied(client: Client, namespace: str) -> None:
    with suppress(ObservationError, msgspec.DecodeError, KeyError):
        for leftover in leftovers(client, namespace, fieldSelector=_ENDED):
            if leftover.outlived:
                client.delete(path("pods", leftover.namespace, leftover.name))


def delete_all_pods(
    client: Client, namespace: str = "", run: str = "", say: Callable[[str], None] = lambda _: None
) -> tuple[OrphanedPod, ...]:
    try:
        pods = leftovers(client, namespace, run)
    except ApiError as refusal:
        needs = (
            RequiredPermission(resource="pods", verb=verb, namespace=namespace) for verb in _VERBS
        )
        raise lacking(client, needs, refusal) if refusal.code == 403 else refusal from None
    for pod in pods:
        say(f"removing pod {pod.key}")
        try:
            client.delete(path("pods", pod.namespace, pod.name))
        except ApiError as refusal:
            if refusal.code != 404:
                raise
    deadline = time.monotonic() + SECONDS
    while rest := {item.key for item in pods} & {
        leftover.key for leftover in leftovers(client, namespace, run)
    }:
        if time.monotonic() > deadline:
            raise AgentError(
                f"these pods are still being removed: {', '.join(sorted(rest))}",
                "is their node NotReady? `kubectl delete pod --force` forgets them",
            )
        say(f"waiting for {len(rest)} pod{'s' * (len(rest) > 1)} to end")
        time.sleep(_AGAIN)
    return pods


def _leftover(item: dict[str, Any]) -> OrphanedPod:
    metadata = item["metadata"]
    return OrphanedPod(
        namespace=metadata["namespace"],
        name=metadata["name"],
        run=metadata.get("labels", {}).get(RUN, ""),
        node=item.get("spec", {}).get("nodeName", ""),
        phase=item.get("status", {}).get("phase", ""),
        reason=item.get("status", {}).get("reason", ""),
    )

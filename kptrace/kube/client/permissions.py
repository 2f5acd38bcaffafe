"""What a run may have to do in a cluster, and which of it we are not allowed.

In: a client and the needs of one run. Out: those that the API server would refuse, asked of the
server itself (SelfSubjectAccessReview, which everybody may); and the ClusterRole and Role that
grant them. It is asked only when something was refused: what is allowed costs no question.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import yaml

from kptrace.kube.client.client import Client, decoded
from kptrace.model import Value
from kptrace.model.errors import ObservationError, PermissionDeniedError

MYSELF = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
DISCOVERY = "discovery.k8s.io"


class RequiredPermission(Value, order=True):
    """namespace empty: in all of them"""

    resource: str
    verb: str
    group: str = ""
    namespace: str = ""

    @property
    def words(self) -> str:
        where = f" in namespace {self.namespace}" if self.namespace else " in all namespaces"
        cluster_wide = self.resource in ("nodes", "namespaces")
        return f"{self.verb} {self.resource}{'' if cluster_wide else where}"


def to_read(namespaces: Iterable[str], everywhere: bool = False) -> Iterator[RequiredPermission]:
    """everywhere: an address is looked up, which may be anybody's"""
    for namespace in [""] if everywhere else dict.fromkeys(namespaces):
        for verb in ("get", "list"):
            yield RequiredPermission(resource="services", verb=verb, namespace=namespace)
            yield RequiredPermission(resource="pods", verb=verb, namespace=namespace)
        yield RequiredPermission(
            resource="endpointslices", verb="list", group=DISCOVERY, namespace=namespace
        )
    for verb in ("get", "list"):
        yield RequiredPermission(resource="nodes", verb=verb)


def to_act(namespace: str) -> Iterator[RequiredPermission]:
    """Over WebSockets exec is a ``get``; since Kubernetes 1.35 a ``create`` too."""
    for verb in ("create", "get", "delete"):
        yield RequiredPermission(resource="pods", verb=verb, namespace=namespace)
    for verb in ("create", "get"):
        yield RequiredPermission(resource="pods/exec", verb=verb, namespace=namespace)


def to_enter(namespace: str) -> Iterator[RequiredPermission]:
    """A container of ours in a pod that is there already."""
    yield RequiredPermission(resource="pods/ephemeralcontainers", verb="patch", namespace=namespace)
    yield RequiredPermission(resource="pods", verb="get", namespace=namespace)
    for verb in ("create", "get"):
        yield RequiredPermission(resource="pods/exec", verb=verb, namespace=namespace)


def missing(client: Client, needs: Iterable[RequiredPermission]) -> tuple[RequiredPermission, ...]:
    asked = tuple(dict.fromkeys(needs))
    with ThreadPoolExecutor(8, "permissions") as pool:
        allowed = list(pool.map(lambda need: _allowed(client, need), asked))
    return tuple(need for need, may in zip(asked, allowed, strict=True) if not may)


def _allowed(client: Client, need: RequiredPermission) -> bool:
    resource, _, subresource = need.resource.partition("/")
    attributes = {
        "verb": need.verb,
        "group": need.group,
        "resource": resource,
        "subresource": subresource,
        "namespace": need.namespace,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {name: text for name, text in attributes.items() if text}},
    }
    answer = decoded(client.post(REVIEWS, review))
    return bool(answer.get("status", {}).get("allowed"))


def lacking(
    client: Client, needs: Iterable[RequiredPermission], said: ObservationError
) -> ObservationError:
    """All that is missing, with what grants it; ``said``: the refusal that made us ask."""
    try:
        lacks = missing(client, needs)
    except ObservationError:
        return PermissionDeniedError(str(said))
    if not lacks:
        return PermissionDeniedError(str(said))
    listed = "".join(f"\n  {need.words}" for need in lacks)
    who = _myself(client)
    granted = roles(lacks)
    granted += [_binding(role, who) for role in granted]
    manifest = {"apiVersion": "v1", "kind": "List", "items": granted}
    text = yaml.safe_dump(manifest, sort_keys=False, default_flow_style=None)
    return PermissionDeniedError(
        f"{who} {'are' if who == 'you' else 'is'} not allowed to:{listed}",
        "ask an administrator to `kubectl apply -f -` the objects below",
        text.rstrip(),
    )


def _myself(client: Client) -> str:
    """Since Kubernetes 1.28 the server says as whom it knows us."""
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        status = decoded(client.post(MYSELF, review)).get("status", {})
    except ObservationError:
        return "you"
    return str(status.get("userInfo", {}).get("username") or "you")


def _binding(role: dict[str, Any], who: str) -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    parts = who.split(":")
    subject = {"kind": "User", "name": who, "apiGroup": group}
    if parts[:2] == ["system", "serviceaccount"]:
        subject = {"kind": "ServiceAccount", "namespace": parts[2], "name": parts[-1]}
    return {
        "apiVersion": role["apiVersion"],
        "kind": f"{role['kind']}Binding",
        "metadata": dict(role["metadata"]),  # YAML would write one and refer to it
        "roleRef": {"apiGroup": group, "kind": role["kind"], "name": role["metadata"]["name"]},
        "subjects": [subject],
    }


def roles(needs: Iterable[RequiredPermission]) -> list[dict[str, Any]]:
    """A ClusterRole for what is read anywhere, a Role for each namespace."""
    by_place: dict[str, list[RequiredPermission]] = {}
    for need in sorted(set(needs)):
        by_place.setdefault(need.namespace, []).append(need)
    return [_role(namespace, by_place[namespace]) for namespace in sorted(by_place)]


def _role(namespace: str, needs: list[RequiredPermission]) -> dict[str, Any]:
    kind = "Role" if namespace else "ClusterRole"
    netns = {"namespace": namespace} if namespace else {}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": "kptrace", **netns},
        "rules": list(_rules(needs)),
    }


def _rules(needs: list[RequiredPermission]) -> Iterator[dict[str, list[str]]]:
    """Resources that need the same verbs share a rule."""
    verbs: dict[tuple[str, str], list[str]] = {}
    for need in needs:
        verbs.setdefault((need.group, need.resource), []).append(need.verb)
    rules: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (group, resource), texts in verbs.items():
        rules.setdefault((group, tuple(texts)), []).append(resource)
    for (group, some_verbs), resources in rules.items():
        yield {"apiGroups": [group], "resources": resources, "verbs": list(some_verbs)}

"""What a pod's state means for an agent; states as kubelets and the API server wrote them."""

from __future__ import annotations

from typing import Any

import pytest

from kptrace.kube.agents.container import AgentPod, admission_error, state
from kptrace.kube.agents.manifest import AgentPodOptions
from kptrace.kube.client.client import ApiError, Client, Status, is_rbac_denial
from kptrace.model.errors import (
    AgentError,
    NotFoundError,
    ObservationError,
    PermissionDeniedError,
    UnsupportedError,
)

TERMS = AgentPodOptions(namespace="shop", image="img:1")
SECURITY = (
    'pods "kptrace-1-1" is forbidden: violates PodSecurity "restricted:latest": host namespaces '
    '(hostNetwork=true, hostPID=true), non-default capabilities (container "agent" must not include'
    ' "NET_ADMIN" in securityContext.capabilities.add)'
)
RBAC = (
    'pods is forbidden: User "jane" cannot create resource "pods" in API group "" in the namespace '
    '"shop"'
)


def _waiting(reason: str, message: str = "") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"status": {"phase": "Pending", "containerStatuses": [{"state": state}]}}


def _state(found: dict[str, Any]) -> str:
    return state(found, "shop/kptrace-1-1", "a", "img:1")


def test_what_it_waits_for() -> None:
    assert _state({"status": {"phase": "Pending"}}) == "the kubelet has not taken it up"
    assert _state(_waiting("ContainerCreating")) == "ContainerCreating"
    running = {"containerStatuses": [{"state": {"running": {"startedAt": "now"}}}]}
    assert _state({"status": {"phase": "Running", **running}}) == ""


@pytest.mark.parametrize(
    ("found", "kind", "said"),
    [
        (
            _waiting("ImagePullBackOff", "Back-off pulling image"),
            UnsupportedError,
            "img:1 cannot be pulled on a: Back-off",
        ),
        (_waiting("ErrImageNeverPull"), UnsupportedError, "is not on the node"),
        (_waiting("InvalidImageName"), UnsupportedError, "is no name of an image"),
        (_waiting("CreateContainerError", "no space"), UnsupportedError, "cannot start: no space"),
        (
            {"status": {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}},
            AgentError,
            "evicted from a: low on memory",
        ),
        (
            {"status": {"phase": "Failed", "reason": "DeadlineExceeded"}},
            AgentError,
            "came to its deadline",
        ),
        (
            {
                "status": {
                    "phase": "Failed",
                    "containerStatuses": [
                        {"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}
                    ],
                }
            },
            AgentError,
            "more memory than its limit",
        ),
        ({"metadata": {"deletionTimestamp": "now"}}, AgentError, "being deleted by somebody"),
    ],
    ids=lambda value: "" if isinstance(value, dict | type) else value,
)
def test_what_will_not_change_any_more(
    found: dict[str, Any], kind: type[ObservationError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        _state(found)


def test_pod_security_with_what_helps() -> None:
    error = admission_error(ApiError(403, Status(message=SECURITY)), TERMS.namespace)
    assert isinstance(error, PermissionDeniedError)
    assert error.message.endswith("host namespaces, non-default capabilities")
    assert "--agent-namespace" in error.hint
    assert "pod-security.kubernetes.io/enforce=privileged" in error.hint


def test_a_lack_of_permissions_is_known_from_an_admission() -> None:
    assert is_rbac_denial(ApiError(403, Status(message=RBAC)))
    assert not is_rbac_denial(ApiError(403, Status(message=SECURITY)))
    quota = ApiError(403, Status(message='pods "x" is forbidden: exceeded quota: few'))
    assert "exceeded quota" in admission_error(quota, TERMS.namespace).message


def test_no_such_namespace() -> None:
    assert isinstance(admission_error(ApiError(404, Status()), TERMS.namespace), NotFoundError)


def test_it_is_made_and_removed(api: Any, client: Client) -> None:
    one = AgentPod(client, TERMS, "1", 1, "a")
    one.remove()
    assert api.paths("DELETE") == []  # it was never made
    one.create()
    one.remove()
    one.remove()  # somebody was faster
    assert not api.objects


def test_it_is_kept_if_asked_to(api: Any, client: Client) -> None:
    kept = AgentPodOptions(namespace="shop", keep=True)
    one = AgentPod(client, kept, "1", 1, "a")
    one.create()
    one.remove()
    assert list(api.objects) == ["/api/v1/namespaces/shop/pods/kptrace-1-1"]


def test_deleted_by_somebody(client: Client) -> None:
    with pytest.raises(AgentError, match="deleted by somebody"):
        AgentPod(client, TERMS, "1", 1, "a").look()

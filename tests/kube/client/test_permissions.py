"""What is not allowed is listed at once, with what would allow it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kptrace.environment.cluster import ClusterEnvironment
from kptrace.kube.agents.manifest import AgentPodOptions
from kptrace.kube.client.client import ApiError, Client, Status
from kptrace.kube.client.permissions import (
    RequiredPermission,
    lacking,
    missing,
    roles,
    to_act,
    to_read,
)
from kptrace.model import TraceRequest
from kptrace.model.errors import PermissionDeniedError
from kptrace.model.targets import parse_target

DENIED = 'services "web" is forbidden: User "jane" cannot get resource "services"'


def _may_only(verb: str) -> Any:
    return lambda attributes: attributes["verb"] == verb


def test_the_server_is_asked_for_each(api: Any, client: Client) -> None:
    api.allowed = _may_only("get")
    lacks = missing(client, to_act("tools"))
    assert {(need.verb, need.resource) for need in lacks} == {
        ("create", "pods"),
        ("delete", "pods"),
        ("create", "pods/exec"),
    }


def test_all_that_is_missing_is_said_with_the_role(api: Any, client: Client) -> None:
    api.allowed = _may_only("get")
    refusal = ApiError(403, Status(message=DENIED))
    error = lacking(client, (*to_read(["shop"]), *to_act("shop")), refusal)
    assert isinstance(error, PermissionDeniedError)
    for words in ("list pods in namespace shop", "create pods/exec", "list nodes\n", "delete pods"):
        assert words in error.message + "\n"
    assert error.message.startswith("jane is not allowed to:")
    granted = yaml.safe_load(error.manifest)["items"]
    kinds = ["ClusterRole", "Role", "ClusterRoleBinding", "RoleBinding"]
    assert [one["kind"] for one in granted] == kinds
    assert granted[-1]["subjects"][0]["name"] == "jane"


def test_if_all_is_allowed_the_servers_words_stay(api: Any, client: Client) -> None:
    error = lacking(client, to_act("shop"), ApiError(403, Status(message=DENIED)))
    assert error.message == DENIED


def test_verbs_that_belong_together_are_one_rule() -> None:
    (role,) = roles(
        [
            RequiredPermission(resource="pods", verb="get", namespace="shop"),
            RequiredPermission(resource="services", verb="get", namespace="shop"),
            RequiredPermission(resource="pods", verb="list", namespace="shop"),
        ]
    )
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
        {"apiGroups": [""], "resources": ["services"], "verbs": ["get"]},
    ]


def test_a_run_that_may_not_read(api: Any, client: Client) -> None:
    api.refuse("GET", "/api/v1/namespaces/shop/services/web", 403, DENIED, "Forbidden")
    api.allowed = lambda attributes: attributes["resource"] != "services"
    question = TraceRequest(target=parse_target("svc/web", "shop"), namespace="shop")
    ground = ClusterEnvironment(
        client, question, AgentPodOptions(namespace="tools"), lambda _: None
    )
    with pytest.raises(PermissionDeniedError) as caught:
        ground.api()
    assert "get services in namespace shop\n  list services in namespace shop" in str(caught.value)
    assert "pods" not in str(caught.value)

"""Leftovers are found by their label, and nothing else is touched."""

from __future__ import annotations

from typing import Any

import pytest

from kptrace.kube.agents.cleanup import delete_all_pods, delete_expired_pods, leftovers
from kptrace.kube.client.client import Client
from kptrace.model.errors import PermissionDeniedError

PODS = "/api/v1/namespaces/shop/pods"
OURS = {"app.kubernetes.io/managed-by": "kptrace"}


@pytest.fixture
def left(api: Any) -> Any:
    for name, run in (("one", "r1"), ("two", "r2")):
        labels = {**OURS, "kptrace.io/run": run}
        api.put(f"{PODS}/{name}", {"nodeName": "a"}, labels=labels, status={"phase": "Running"})
    api.put(f"{PODS}/web", {}, labels={"app": "web"})
    api.put(f"{PODS}/alike", {}, labels=OURS)
    return api


def test_by_label(left: Any, client: Client) -> None:
    assert [one.key for one in leftovers(client, "shop")] == ["shop/one", "shop/two"]


def test_they_are_removed(left: Any, client: Client) -> None:
    removed = delete_all_pods(client, "shop")
    assert {one.run for one in removed} == {"r1", "r2"}
    assert sorted(left.objects) == [f"{PODS}/alike", f"{PODS}/web"]
    assert delete_all_pods(client, "shop") == ()


def test_only_one_run(left: Any, client: Client) -> None:
    assert [one.name for one in delete_all_pods(client, "", "r2")] == ["two"]
    assert f"{PODS}/one" in left.objects


def test_without_the_right_to(left: Any, client: Client) -> None:
    left.refuse("GET", PODS, 403, 'User "jane" cannot list resource "pods"', "Forbidden")
    left.allowed = lambda attributes: False
    with pytest.raises(PermissionDeniedError, match="list pods in namespace shop"):
        delete_all_pods(client, "shop")


# --- beside another run ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "goes"),
    [
        ({"phase": "Failed", "reason": "DeadlineExceeded"}, True),
        ({"phase": "Succeeded"}, True),
        ({"phase": "Failed", "reason": "Evicted"}, False),
        ({"phase": "Failed"}, False),
        ({"phase": "Running"}, False),
        ({"phase": "Pending", "reason": "DeadlineExceeded"}, False),
    ],
    ids=str,
)
def test_only_what_came_to_its_own_end(
    left: Any, client: Client, status: dict[str, str], goes: bool
) -> None:
    labels = {**OURS, "kptrace.io/run": "r3"}
    left.put(f"{PODS}/three", {"nodeName": "a"}, labels=labels, status=status)
    left.put(f"{PODS}/done", {}, labels={"app": "web"}, status=status)
    delete_expired_pods(client, "shop").join()
    assert (f"{PODS}/three" not in left.objects) is goes
    assert {f"{PODS}/one", f"{PODS}/two", f"{PODS}/web", f"{PODS}/done"} <= set(left.objects)
    assert len(left.paths("GET")) == 1


def test_only_in_the_agents_namespace(left: Any, client: Client) -> None:
    other = "/api/v1/namespaces/other/pods/four"
    labels = {**OURS, "kptrace.io/run": "r4"}
    left.put(other, {}, labels=labels, status={"phase": "Succeeded"})
    delete_expired_pods(client, "shop").join()
    assert other in left.objects


@pytest.mark.parametrize("code", [403, 404, 500])
def test_a_refusal_is_nobodys_concern(
    left: Any, client: Client, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    labels = {**OURS, "kptrace.io/run": "r5"}
    left.put(f"{PODS}/five", {}, labels=labels, status={"phase": "Succeeded"})
    for method, where in (("DELETE", f"{PODS}/five"), ("GET", PODS)):
        left.refuse(method, where, code, "no")
        delete_expired_pods(client, "shop").join()
    assert f"{PODS}/five" in left.objects
    assert capfd.readouterr() == ("", "")

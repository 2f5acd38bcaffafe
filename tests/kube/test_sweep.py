"""Leftovers are found by their label, and nothing else is touched."""

from __future__ import annotations

from typing import Any

import pytest

from kptrace.errors import Forbidden
from kptrace.kube.client import Client
from kptrace.kube.sweep import leftovers, sweep

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
    removed = sweep(client, "shop")
    assert {one.run for one in removed} == {"r1", "r2"}
    assert sorted(left.objects) == [f"{PODS}/alike", f"{PODS}/web"]
    assert sweep(client, "shop") == ()


def test_only_one_run(left: Any, client: Client) -> None:
    assert [one.name for one in sweep(client, "", "r2")] == ["two"]
    assert f"{PODS}/one" in left.objects


def test_without_the_right_to(left: Any, client: Client) -> None:
    left.refuse("GET", PODS, 403, 'User "jane" cannot list resource "pods"', "Forbidden")
    left.allowed = lambda attributes: False
    with pytest.raises(Forbidden, match="list pods in namespace shop"):
        sweep(client, "shop")

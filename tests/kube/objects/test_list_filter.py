"""An excerpt holds the objects that were asked for, whole, and leaves what it cannot read."""

from __future__ import annotations

import json

import pytest

from kptrace.kube.objects import list_filter as room
from kptrace.kube.objects.list_filter import excerpt, select_objects

ITEMS = [
    {"metadata": {"name": "web", "labels": {"kubernetes.io/service-name": "web"}}},
    {"metadata": {"name": "web-2"}, "spec": {"note": '{"items": ["web]'}},
    {"metadata": {"name": "dns", "annotations": {"of": "web"}}},
]


@pytest.fixture(autouse=True)
def _nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SMALL", 0)


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("as_text", [True, False])
def test_objects_with_the_word_are_kept(indent: int | None, as_text: bool) -> None:
    text = json.dumps({"kind": "ServiceList", "items": ITEMS, "metadata": {}}, indent=indent)
    kept = json.loads(excerpt(text if as_text else text.encode(), "web"))
    assert kept == {"kind": "ServiceList", "items": [ITEMS[0], ITEMS[2]]}


def test_a_word_that_is_nowhere() -> None:
    text = json.dumps({"items": ITEMS})
    assert json.loads(excerpt(text, "we"))["items"] == []


@pytest.mark.parametrize("text", ["", "{", '{"kind": "Service"}', '{"items": 1}', "[1]", b"\xff{}"])
def test_what_is_no_list_stays_as_it_is(text: str | bytes) -> None:
    assert excerpt(text, "web") is text


def test_a_file_without_a_word_is_whole() -> None:
    texts = {"services.json": json.dumps({"items": ITEMS}), "nodes.json": "{}"}
    found = select_objects(texts, {"services.json": "dns"})
    assert json.loads(found["services.json"])["items"] == [ITEMS[2]]
    assert found["nodes.json"] == "{}"

"""What is said beside "there is no such": the nearest name, or which there are."""

from __future__ import annotations

import pytest

from kptrace.model.suggestions import suggestion, suggestion_for_key

SHOP = ("shop/web", "shop/client", "other/far", "other/clients")


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("wbe", ("web", "echo"), "did you mean svc/web?"),
        ("nope", ("near-1", "web-1"), "there are: svc/near-1, svc/web-1"),
        ("nope", ("web", "web"), "there is: svc/web"),
        ("nope", (), ""),
        ("x", tuple(f"name-{n}" for n in range(9)), "svc/name-7, ..."),
    ],
)
def test_one_name(name: str, known: tuple[str, ...], said: str) -> None:
    found = suggestion(name, known, "svc/")
    assert found.endswith(said) if said else found == ""


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("shop/far", "there is one in namespace other: add -n other"),
        ("shop/clint", "did you mean pod/client?"),
        ("shop/farr", "did you mean pod/far -n other?"),
        ("shop/zzz", "there are: pod/web, pod/client"),
        ("empty/zzz", ""),
    ],
)
def test_a_name_of_a_namespace(key: str, said: str) -> None:
    assert suggestion_for_key(key, SHOP, "pod/") == said

"""The way to the API server: who we are, what is asked, what it says when it says no."""

from __future__ import annotations

from typing import Any

import pytest

from kptrace.kube.client.client import ApiError, Client, path
from kptrace.kube.client.client_config import ClientConfig, seconds
from kptrace.model.errors import ClusterUnreachableError, UsageError


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        (("pods", "shop", "web-1"), "/api/v1/namespaces/shop/pods/web-1"),
        (("pods", "shop", "web-1", "exec"), "/api/v1/namespaces/shop/pods/web-1/exec"),
        (("nodes", "", "a"), "/api/v1/nodes/a"),
        (("pods",), "/api/v1/pods"),
        (
            ("apis/discovery.k8s.io/v1/endpointslices", "shop"),
            "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices",
        ),
        (("pods", "shop", "../secrets"), "/api/v1/namespaces/shop/pods/..%2Fsecrets"),
    ],
)
def test_paths(asked: tuple[str, ...], made: str) -> None:
    assert path(*asked) == made


@pytest.mark.parametrize(
    ("text", "made"), [("", 0), ("0", 0), ("5s", 5), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400)]
)
def test_lengths_of_time(text: str, made: float) -> None:
    assert seconds(text) == pytest.approx(made)


@pytest.mark.parametrize("text", ["5", "s", "-5s", "5 s", "1x", "5s?"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(UsageError, match="request-timeout"):
        seconds(text)


def test_impersonation_is_in_every_request(api: Any, client: Client) -> None:
    api.put("/api/v1/nodes/a")
    asking = ClientConfig(
        server=api.url,
        kubeconfig="/dev/null",
        token="secret",
        as_user="jane",
        as_groups=("dev", "ops"),
        as_uid="7",
    )
    Client(asking).get(path("nodes", "", "a"))
    sent = api.headers[-1]
    assert sent["authorization"] == "Bearer secret"
    assert sent["Impersonate-User"] == "jane"
    assert sent["Impersonate-Uid"] == "7"
    assert sent["Impersonate-Group"] in ("dev, ops", "ops")


def test_the_servers_own_words(api: Any, client: Client) -> None:
    api.refuse("GET", "/api/v1/nodes/a", 403, "nodes is forbidden", "Forbidden")
    with pytest.raises(ApiError) as caught:
        client.get(path("nodes", "", "a"))
    assert (caught.value.code, caught.value.reason) == (403, "Forbidden")
    assert str(caught.value) == "nodes is forbidden"


def test_credentials_that_are_not_taken(api: Any, client: Client) -> None:
    api.refuse("GET", "/api/v1/nodes/a", 401, "Unauthorized")
    with pytest.raises(ClusterUnreachableError, match="does not accept the credentials"):
        client.get(path("nodes", "", "a"))


def test_nobody_there(client: Client, api: Any) -> None:
    with pytest.raises(ClusterUnreachableError) as caught:
        Client(ClientConfig(server="http://127.0.0.1:1", kubeconfig="/dev/null")).get("/version")
    assert "http://127.0.0.1:1 cannot be reached" in str(caught.value)


def test_an_answer_that_is_no_json(api: Any, client: Client) -> None:
    api.answer = lambda *_: (502, "<html>bad gateway")
    with pytest.raises(ApiError, match="bad gateway"):
        client.get(path("nodes", "", "a"))

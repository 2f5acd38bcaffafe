"""The exec stream where it is refused, and how a program's end is told."""

from __future__ import annotations

from typing import Any

import pytest

from kptrace.environment.cluster import ClusterEnvironment
from kptrace.kube.agents.manifest import AgentPodOptions
from kptrace.kube.client.client import Client
from kptrace.kube.client.exec_stream import ending
from kptrace.model import TraceRequest
from kptrace.model.errors import PermissionDeniedError
from kptrace.model.targets import parse_target

POD = "/api/v1/namespaces/shop/pods/x"


def test_a_stream_that_is_refused_can_be_left_like_any_other(api: Any, client: Client) -> None:
    api.refuse("GET", f"{POD}/exec", 403, 'pods "x" is forbidden: ', "Forbidden")
    channel = client.exec(POD, "agent", ("true",))
    assert channel.refused is not None
    assert channel.refused[0] == 403
    assert list(channel.frames()) == []
    channel.end()
    channel.close()


def test_a_run_that_may_make_pods_and_not_enter_them(api: Any, client: Client) -> None:
    """The API server's own words do not say what is missing, so it is asked."""
    api.put("/api/v1/nodes/a", {}, status={"conditions": [{"type": "Ready", "status": "True"}]})
    api.allowed = lambda attributes: attributes.get("subresource") != "exec"
    question = TraceRequest(target=parse_target("10.0.0.9:80", "shop"), source="node/a")
    ground = ClusterEnvironment(client, question, AgentPodOptions(namespace="shop"), lambda _: None)
    exec_ = f"/api/v1/namespaces/shop/pods/kptrace-{ground.run}-1/exec"
    api.refuse("GET", exec_, 403, 'pods "x" is forbidden: ', "Forbidden")
    with ground:
        ground.api()
        with pytest.raises(PermissionDeniedError) as caught:
            ground.agent("a")
    assert "create pods/exec in namespace shop" in caught.value.message
    assert "create pods in" not in caught.value.message
    assert not [path for path in api.objects if "/pods/" in path]  # nothing is left


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b'{"status":"Success"}', 0),
        (
            b'{"status":"Failure","details":{"causes":[{"reason":"ExitCode","message":"137"}]}}',
            137,
        ),
        (b'{"status":"Failure","message":"container not found"}', None),
        (b"not json", None),
    ],
)
def test_how_a_program_ended(text: bytes, code: int | None) -> None:
    assert ending(text).exit_code == code

"""Which agents a trace starts before it knows more, told by a ground that has none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from kptrace.bundle import archive
from kptrace.model import TraceRequest
from kptrace.model.errors import ObservationError
from kptrace.model.targets import parse_target
from kptrace.protocol import AgentClient
from kptrace.protocol.recording import unpack
from kptrace.trace import trace


class Barren:
    """Of a cluster of two nodes: ``remote`` has its pod on node-b, ``web`` has pods on both."""

    def __init__(self, api: Mapping[str, str], sparing: bool) -> None:
        self.sparing, self._api = sparing, api
        self.begun: list[str] = []

    def api(self) -> Mapping[str, str]:
        return self._api

    def begin(self, node: str) -> None:
        self.begun.append(node)

    def agent(self, node: str) -> AgentClient:
        raise ObservationError(f"nothing grows on {node}")

    def forget(self) -> bool:
        return False

    def api_only_documents(self) -> Mapping[str, str] | None:
        return None


@pytest.mark.parametrize(
    ("sparing", "name", "begun"),
    [
        (True, "remote", ["node-a", "node-b"]),  # where its only pod is, is looked at in any case
        (True, "near", ["node-a"]),
        (
            True,
            "web",
            [],
        ),  # a preflight probe tells which of the nodes, and goes out from the first
        (True, "empty", []),
        (False, "web", []),  # there an agent is there at once
    ],
)
def test_agents_that_are_needed_in_any_case_start_together(
    cases: Path, sparing: bool, name: str, begun: list[str]
) -> None:
    file = cases / "replay-delivered"
    ground = Barren(unpack(archive.read(file), str(file)).api, sparing)
    target = parse_target(f"svc/{name}", "shop")
    question = TraceRequest(target=target, source="pod/client", namespace="shop")
    with pytest.raises(ObservationError, match="nothing grows on node-a"):
        trace.run(question, ground, 1, lambda _: None)
    assert ground.begun == begun

"""Agents that are there and may not enter a place, and agents that are not there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from kptrace.model import EvidenceSource, Netns
from kptrace.model.errors import (
    AgentError,
    ClusterUnreachableError,
    NotFoundError,
    ObservationError,
    PermissionDeniedError,
)
from kptrace.protocol import NETNS_UNAVAILABLE, FileContent
from kptrace.trace.agent_session import AgentSession

NODE, POD = Netns(node="a"), Netns(node="a", pod="shop/client")
API = {"services.json": "{}"}


class Agent:
    """It is there, and these places are closed to it."""

    node = "a"

    def __init__(self, *closed: Netns) -> None:
        self.log: list[Any] = [
            FileContent(
                id=1,
                netns=place,
                file=NETNS_UNAVAILABLE,
                unavailable="not permitted",
                hint="more rights",
                manifest="kind: A",
            )
            for place in closed
        ]


class Ground:
    sparing = True

    def __init__(self, agent: Agent | ObservationError, told: dict[str, str] | None = None) -> None:
        self._agent, self._told = agent, told
        self.asked = 0

    def api(self) -> Mapping[str, str]:
        return API

    def begin(self, node: str) -> None: ...

    def agent(self, node: str) -> Any:
        self.asked += 1
        if isinstance(self._agent, ObservationError):
            raise self._agent
        return self._agent

    def forget(self) -> bool:
        return False

    def api_only_documents(self) -> Mapping[str, str] | None:
        return self._told


def test_a_sender_that_can_send() -> None:
    crew = AgentSession(Ground(Agent(NODE), API))
    assert crew.open_source_netns(POD) is None
    assert crew.reachable_netns((NODE, POD)) == (POD,)
    assert crew.absent == [
        EvidenceSource(
            name="host",
            node="a",
            unavailable="not permitted",
            hint="more rights",
            manifest="kind: A",
        )
    ]


@pytest.mark.parametrize("agent", [Agent(POD), AgentError("it died")])
def test_without_it_the_api_tells_if_it_can(agent: Agent | ObservationError) -> None:
    crew = AgentSession(Ground(agent, API))
    assert crew.open_source_netns(POD) == API
    assert [layer.name for layer in crew.absent] == ["agent"]
    with pytest.raises(ObservationError):
        AgentSession(Ground(agent)).open_source_netns(POD)


@pytest.mark.parametrize(
    "error", [NotFoundError("no namespace x"), ClusterUnreachableError("no answer")]
)
def test_some_errors_are_the_whole_answer(error: ObservationError) -> None:
    with pytest.raises(type(error)):
        AgentSession(Ground(error, API)).open_source_netns(POD)


def test_who_is_not_there_is_asked_for_once() -> None:
    ground = Ground(AgentError("one is missing:\n  this\n  that", "hint"), API)
    crew = AgentSession(ground)
    assert (crew.agent_or_none("a"), crew.agent_or_none("a")) == (None, None)
    assert crew.reachable_netns((NODE, POD)) == ()
    assert ground.asked == 1
    missing = "one is missing: this, that"
    assert crew.absent == [EvidenceSource(name="agent", node="a", unavailable=missing, hint="hint")]


def test_a_node_that_may_not_be_entered_cannot_be_looked_at() -> None:
    crew = AgentSession(Ground(Agent(NODE)))
    assert not crew.can_inspect_node("a")
    assert (crew.absent[0].hint, crew.absent[0].manifest) == ("more rights", "kind: A")
    assert AgentSession(Ground(Agent(POD))).can_inspect_node("a")
    with pytest.raises(PermissionDeniedError, match="node a: not permitted"):
        crew.require_netns(NODE)

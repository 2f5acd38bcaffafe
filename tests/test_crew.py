"""Agents that are there and may not enter a place, and agents that are not there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from kptrace.crew import Crew
from kptrace.errors import AgentFailed, CannotLook, Forbidden, NoCluster, NotFound
from kptrace.model import Layer, Place
from kptrace.protocol import DOOR, Fact

NODE, POD = Place(node="a"), Place(node="a", pod="shop/client")
API = {"services.json": "{}"}


class Agent:
    """It is there, and these places are closed to it."""

    node = "a"

    def __init__(self, *closed: Place) -> None:
        self.log: list[Any] = [
            Fact(
                id=1, place=place, file=DOOR, missing="not permitted", remedy="more rights\nkind: A"
            )
            for place in closed
        ]


class Ground:
    sparing = True

    def __init__(self, agent: Agent | CannotLook, told: dict[str, str] | None = None) -> None:
        self._agent, self._told = agent, told
        self.asked = 0

    def api(self) -> Mapping[str, str]:
        return API

    def begin(self, node: str) -> None: ...

    def agent(self, node: str) -> Any:
        self.asked += 1
        if isinstance(self._agent, CannotLook):
            raise self._agent
        return self._agent

    def forget(self) -> bool:
        return False

    def api_alone(self) -> Mapping[str, str] | None:
        return self._told


def test_a_sender_that_can_send() -> None:
    crew = Crew(Ground(Agent(NODE), API))
    assert crew.sender(POD) is None
    assert crew.may_enter((NODE, POD)) == (POD,)
    assert crew.absent == [
        Layer(
            name="host", node="a", missing="not permitted", remedy="more rights", manifest="kind: A"
        )
    ]


@pytest.mark.parametrize("agent", [Agent(POD), AgentFailed("it died")])
def test_without_it_the_api_tells_if_it_can(agent: Agent | CannotLook) -> None:
    crew = Crew(Ground(agent, API))
    assert crew.sender(POD) == API
    assert [layer.name for layer in crew.absent] == ["agent"]
    with pytest.raises(CannotLook):
        Crew(Ground(agent)).sender(POD)


@pytest.mark.parametrize("error", [NotFound("no namespace x"), NoCluster("no answer")])
def test_some_errors_are_the_whole_answer(error: CannotLook) -> None:
    with pytest.raises(type(error)):
        Crew(Ground(error, API)).sender(POD)


def test_who_is_not_there_is_asked_for_once() -> None:
    ground = Ground(AgentFailed("one is missing:\n  this\n  that", "hint"), API)
    crew = Crew(ground)
    assert (crew.may_have("a"), crew.may_have("a")) == (None, None)
    assert crew.may_enter((NODE, POD)) == ()
    assert ground.asked == 1
    missing = "one is missing: this, that"
    assert crew.absent == [Layer(name="agent", node="a", missing=missing, remedy="hint")]


def test_a_node_that_may_not_be_entered_cannot_be_looked_at() -> None:
    crew = Crew(Ground(Agent(NODE)))
    assert not crew.may_look_at("a")
    assert crew.absent[0].hint == "more rights\nkind: A"
    assert Crew(Ground(Agent(POD))).may_look_at("a")
    with pytest.raises(Forbidden, match="node a: not permitted"):
        crew.must_enter(NODE)

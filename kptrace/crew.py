"""The agents of one run: told together, waited for together, their words kept in order.

A run looks at a node through its agent and at nothing else. An agent that a run can do without may
be missing; then it is said which one, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from typing import Protocol, TypeVar

from kptrace.errors import AgentFailed, KptraceError
from kptrace.model import Layer, Place
from kptrace.protocol import Agent, Dump, Reply, Request

DUMP_SECONDS = 30.0


class Ground(Protocol):
    """Where a run takes place: what the API says there, and an agent on each node."""

    def api(self) -> Mapping[str, str]:
        """The API documents by file name, as in a bundle's ``api`` folder."""

    def agent(self, node: str) -> Agent:
        """The agent on a node, with its places entered. Raises CannotLook."""


class Crew:
    """The agents that a run works with; it numbers their requests and waits for them together.

    absent: nodes without an agent, and why
    """

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._agents: dict[str, Agent] = {}
        self._last_id = 1000
        self.absent: list[Layer] = []

    def must_have(self, node: str) -> Agent:
        if node not in self._agents:
            self._agents[node] = self._ground.agent(node)
        return self._agents[node]

    def may_have(self, node: str) -> Agent | None:
        """The node's agent, or none; then ``absent`` says why."""
        try:
            return self.must_have(node)
        except KptraceError as error:
            if all(layer.node != node for layer in self.absent):
                self.absent.append(
                    Layer(name="agent", node=node, missing=error.message, remedy=error.hint)
                )
            return None

    def begin(self, nodes: Iterable[str]) -> None:
        """Have these agents start while others already work."""
        for node in unique(nodes):
            self.may_have(node)

    def send(self, node: str, request: Callable[..., Request]) -> tuple[Agent, int]:
        """``request``: all of it but the id, which is given here."""
        self._last_id += 1
        agent = self._agents[node]
        agent.send(request(id=self._last_id))
        return agent, self._last_id

    def dump(self, places: Iterable[Place], files: tuple[str, ...]) -> None:
        sent = [
            self.send(place.node, partial(Dump, place=place, files=files))
            for place in places
            if self.may_have(place.node)
        ]
        wait_all(sent, DUMP_SECONDS, "dump")

    def words(self) -> tuple[Reply, ...]:
        return tuple(reply for agent in self._agents.values() for reply in agent.log)

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(self._agents)


def wait_all(sent: Iterable[tuple[Agent, int]], seconds: float, what: str) -> None:
    for agent, id in sent:
        if not agent.wait(id, seconds):
            raise AgentFailed(
                f"the agent on {agent.node} did not finish its {what} in {seconds:g} s",
                "is the node overloaded? try again, or look at it by hand",
            )


T = TypeVar("T", bound=Hashable)


def unique(values: Iterable[T]) -> tuple[T, ...]:
    """Each value once, in the order of its first appearance."""
    return tuple(dict.fromkeys(values))

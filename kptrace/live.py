"""EDGE: the state of nodes as agents dump it now, for what reads bundles too.

In: a ground (a lab, or the node that we run on) that opens agents. Out: the same as of a Bundle:
the nodes, the API's documents, a node's files.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType

from kptrace.crew import Ground
from kptrace.errors import AgentFailed
from kptrace.model import Place
from kptrace.node.link import LocalAgent
from kptrace.protocol import Agent, Door, Dump
from kptrace.run import facts_of
from kptrace.trace import FILES

DUMP_SECONDS = 120.0
_REQUEST = 1001


class ThisNode:
    """The node that we run on, without an API server: the rules themselves name the Services."""

    def __init__(self) -> None:
        self.name = socket.gethostname()
        self._open = ExitStack()

    def __enter__(self) -> ThisNode:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def api(self) -> dict[str, str]:
        return {}

    def agent(self, node: str) -> Agent:
        door = Door(place=Place(node=node), netns="/proc/self/ns/net")
        return self._open.enter_context(LocalAgent(node, (door,)))


class Live:
    def __init__(self, ground: Ground, nodes: tuple[str, ...]) -> None:
        self._ground = ground
        self.nodes = nodes

    def api(self) -> Mapping[str, str]:
        return self._ground.api()

    def node(self, name: str) -> Mapping[str, str]:
        agent, place = self._ground.agent(name), Place(node=name)
        agent.send(Dump(id=_REQUEST, place=place, files=FILES))
        if not agent.wait(_REQUEST, DUMP_SECONDS):
            raise AgentFailed(
                f"the agent on {name} did not finish its dump in {DUMP_SECONDS:g} s",
                "is the node overloaded? try again",
            )
        return facts_of(agent.log).get(place, {})

"""How the probes' fate is waited for, with agents that are none."""

from __future__ import annotations

import pytest

from kptrace.model import Flow, Netns, Probe, Resolution, Source
from kptrace.model.errors import AgentError
from kptrace.protocol import AgentClient, Reply, Request, SendProbes
from kptrace.trace.agent_session import AgentSession
from kptrace.trace.probe_run import SLICE_SECONDS, capture_and_send

NEAR, FAR = Netns(node="a"), Netns(node="b")
FLOW = Flow(protocol="tcp", src="10.244.1.10", dst="10.96.1.1", dport=80)
RESOLUTION = Resolution(address=FLOW.dst, port=80, protocol="tcp")


class Slow:
    """Does all that it is told but for sending: what it sends is never heard of."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.log: list[Reply] = []
        self.waited: list[float] = []
        self._sending: set[int] = set()

    def send(self, request: Request) -> None:
        if isinstance(request, SendProbes):
            self._sending.add(request.id)

    def wait(self, id: int, timeout: float) -> bool:
        self.waited.append(timeout)
        return id not in self._sending

    def close(self) -> None:
        pass


class Dying(Slow):
    """Gone as soon as something was sent elsewhere."""

    def __init__(self, node: str) -> None:
        super().__init__(node)
        self._asked: set[int] = set()

    def send(self, request: Request) -> None:
        self._asked.add(request.id)

    def wait(self, id: int, timeout: float) -> bool:
        if id not in self._asked:
            raise AgentError(f"the agent on {self.node} died: killed")
        return True


class Ground:
    sparing = False

    def __init__(self, *agents: Slow) -> None:
        self._agents = {agent.node: agent for agent in agents}

    def api(self) -> dict[str, str]:
        return {}

    def begin(self, node: str) -> None: ...

    def agent(self, node: str) -> AgentClient:
        return self._agents[node]


def test_a_far_agent_that_dies_is_noticed_while_the_probe_is_out() -> None:
    near, far = Slow("a"), Dying("b")
    crew = AgentSession(Ground(near, far))
    for place in (NEAR, FAR):
        crew.require_agent(place.node)
    probe = Probe(probe_id=16, flow=FLOW)
    with pytest.raises(AgentError, match="on b died"):
        capture_and_send(
            crew, Source(kind="node", netns=NEAR), RESOLUTION, (NEAR, FAR), (probe,), timeout=60.0
        )
    assert near.waited.count(SLICE_SECONDS) == 1, "not only when the time was up"

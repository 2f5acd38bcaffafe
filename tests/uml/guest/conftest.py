"""Labs of this second kernel, and traces through them with agents that stay from trace to trace."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from kptrace import lookup, trace
from kptrace.lab import cluster, faults, state
from kptrace.lab.ground import LabGround
from kptrace.lab.plan import plan
from kptrace.lab.state import Lab
from kptrace.model import Question, Trace
from kptrace.protocol import Agent, Reply, Request
from kptrace.target import parse_target

_NUMBERS = itertools.count(1)

# proxy, network, scheduler, nodes
Row = tuple[str, str, str, int]
ROWS: tuple[Row, ...] = (
    ("ipvs", "vxlan", "rr", 2),
    ("ipvs", "calico-ipip", "sh", 2),
    ("ipvs", "flannel-ipip", "lc", 2),
    ("ipvs", "calico-crosssubnet", "rr", 3),
    ("iptables-legacy", "calico-ipip", "rr", 2),
    ("iptables-legacy", "flannel-ipip", "rr", 2),
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A fault that a row cannot have is no test of it; nor is all that its like has shown."""
    gone = [item for item in items if not _possible(item)]
    items[:] = [item for item in items if item not in gone]
    config.hook.pytest_deselected(items=gone)


def _possible(item: pytest.Item) -> bool:
    values = getattr(getattr(item, "callspec", None), "params", {})
    if "bench" not in values:
        return True
    proxy, network, scheduler, nodes = values["bench"]
    if "way" in values:
        whole, core = item.module.WHOLE, item.module.CORE  # type: ignore[attr-defined]
        return (proxy, network) in whole or values["way"].target in core
    if "name" not in values:
        return True
    return faults.find(values["name"]).possible(plan("x", nodes, proxy, network, scheduler))


class _Kept:
    """One run's view of an agent that serves many: it remembers from here on."""

    def __init__(self, agent: Agent) -> None:
        self.node = agent.node
        self._agent, self._begun = agent, len(agent.log)

    @property
    def log(self) -> Sequence[Reply]:
        return self._agent.log[self._begun :]

    def send(self, request: Request) -> None:
        self._agent.send(request)

    def wait(self, id: int, timeout: float) -> bool:
        return self._agent.wait(id, timeout)

    def close(self) -> None:
        pass


class Bench:
    def __init__(self, lab: Lab, ground: LabGround) -> None:
        self.lab = lab
        self.api = ground.api
        self._ground = ground
        self._agents: dict[str, Agent] = {}

    def agent(self, node: str) -> Agent:
        if node not in self._agents:
            self._agents[node] = self._ground.agent(node)
        return _Kept(self._agents[node])

    def dismiss(self) -> None:
        """An agent keeps the legacy tables that it has read: after a change, ask another one."""
        for agent in self._agents.values():
            agent.close()
        self._agents.clear()

    def trace(self, target: str, source: str, namespace: str = "shop", **asked: Any) -> Trace:
        question = Question(
            target=parse_target(target, namespace),
            source=source,
            namespace="shop",
            **{"timeout": 2.0, **asked},
        )
        seed = int.from_bytes(os.urandom(4))
        return trace.report(trace.run(question, self, seed, lambda _: None))


@contextmanager
def standing(row: Row) -> Iterator[Bench]:
    proxy, network, scheduler, nodes = row
    name = f"uml-{os.getpid()}-{next(_NUMBERS)}"
    try:
        lab = cluster.up(plan(name, nodes, proxy, network, scheduler))
        with LabGround(lab) as ground:
            yield Bench(lab, ground)
    finally:
        if name in state.names():
            cluster.down(name)


def named(row: Row) -> str:
    return "-".join(map(str, row[:3] if row[0] == "ipvs" else row[:2]))


@pytest.fixture(scope="module", params=ROWS, ids=named)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with standing(request.param) as made:
        yield made


@pytest.fixture(scope="module")
def made() -> Iterator[Bench]:
    """One lab: IPVS over Calico's IPIP."""
    with standing(("ipvs", "calico-ipip", "rr", 2)) as one:
        yield one


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many faults lose the DNS question too; its time is another test's matter."""
    monkeypatch.setattr(lookup, "ASK_SECONDS", 0.4)

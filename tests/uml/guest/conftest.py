"""Labs of this second kernel, and traces through them with agents that stay from trace to trace."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.rows import row

from kptrace.environment.lab import LabEnvironment
from kptrace.lab import cluster, state
from kptrace.lab.address_plan import Plan, plan
from kptrace.lab.faults import inject
from kptrace.lab.faults.catalogue import Fault
from kptrace.lab.state import Lab
from kptrace.model import Trace, TraceRequest
from kptrace.model.targets import parse_target
from kptrace.protocol import AgentClient, Reply, Request
from kptrace.trace import dns_lookup, trace

HERE = Path(__file__).parent
_NUMBERS = itertools.count(1)

# each scheduler once, each network; what they have in common is tried with every other
ROWS = (
    row("ipvs", "vxlan", "rr"),
    row("ipvs", "calico-ipip", "lc"),
    row("ipvs", "calico-crosssubnet", "sh"),
    row("ipvs", "calico-direct", "wrr"),
    row("ipvs", "flannel-ipip", "wlc"),
    row("iptables-legacy", "calico-ipip"),
    row("iptables-legacy", "flannel-ipip"),
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """``suits`` of a module says which lab a test is for; what cannot be there is no test of it."""
    gone = []
    for item in items:
        values = dict(getattr(getattr(item, "callspec", None), "params", {}))
        asked = getattr(getattr(item, "module", None), "suits", None)
        if asked and "bench" in values and HERE in item.path.parents:
            lab = planned("x", values.pop("bench"))
            if not asked(lab, **values):
                gone.append(item)
            elif "scheduler" in values:
                mark = pytest.mark.row("ipvs", lab.network, values["scheduler"])
                item.add_marker(mark, append=False)
    items[:] = [item for item in items if item not in set(gone)]
    config.hook.pytest_deselected(items=gone)


def planned(name: str, values: tuple[str, ...]) -> Plan:
    proxy, network, *rest = values
    nodes = 3 if network == "calico-crosssubnet" else 2  # the third is on the other subnet
    return plan(name, nodes, proxy, network, *rest)


class _Kept:
    """One run's view of an agent that serves many: it remembers from here on."""

    def __init__(self, agent: AgentClient) -> None:
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
    sparing = False

    def __init__(self, lab: Lab, ground: LabEnvironment) -> None:
        self.lab = lab
        self.api = ground.api
        self._ground = ground
        self._agents: dict[str, AgentClient] = {}

    def forget(self) -> bool:
        return False

    def agent(self, node: str) -> AgentClient:
        if node not in self._agents:
            self._agents[node] = self._ground.agent(node)
        return _Kept(self._agents[node])

    def begin(self, node: str) -> None:
        self.agent(node)

    def trace(self, target: str, source: str, namespace: str = "shop", **asked: Any) -> Trace:
        question = TraceRequest(
            target=parse_target(target, namespace),
            source=source,
            namespace="shop",
            **{"timeout": 2.0, **asked},
        )
        seed = int.from_bytes(os.urandom(4))
        return trace.trace_and_report(question, self, seed, lambda _: None)[1]

    @contextmanager
    def broken(self, name: str) -> Iterator[Fault]:
        fault = inject.find(name)
        inject.inject(self.lab.name, fault)
        try:
            yield fault
        finally:
            inject.heal(self.lab.name, name)


@contextmanager
def standing(values: tuple[str, ...]) -> Iterator[Bench]:
    name = f"uml-{os.getpid()}-{next(_NUMBERS)}"
    try:
        lab = cluster.up(planned(name, values))
        with LabEnvironment(lab) as ground:
            yield Bench(lab, ground)
    finally:
        if name in state.names():
            cluster.down(name)


@pytest.fixture(scope="session", params=ROWS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """One lab after the other, each for the tests of all files."""
    with standing(request.param) as made:
        yield made


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many faults lose the DNS question too; its time is another test's matter."""
    monkeypatch.setattr(dns_lookup, "ASK_SECONDS", 0.4)

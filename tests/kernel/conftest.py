"""The kernel tier: its gate, labs that stand for a while, and traces through them.

A tier that cannot run must not look like one that passed. Where root, a program or a feature of
the kernel is missing, its tests are skipped with the reason (and the summary says so again); with
``CI=true`` they fail.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import cache
from typing import Any

import pytest
from support.labs import LABS
from support.rows import row

from kptrace.environment.lab import LabEnvironment
from kptrace.lab import cluster, host_commands, kernel_features, state
from kptrace.lab.address_plan import PROXIES, plan
from kptrace.lab.faults import inject
from kptrace.lab.state import Lab
from kptrace.model import Trace, TraceRequest
from kptrace.model.errors import KptraceError
from kptrace.model.targets import parse_target
from kptrace.protocol import AgentClient, Reply, Request
from kptrace.protocol.recording import Recording
from kptrace.trace import trace

# --- the gate -----------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("kernel") is None or not (missing := what_is_missing()):
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"the kernel tier cannot run: {missing}", pytrace=False)
    pytest.skip(f"the kernel tier cannot run: {missing}")


@cache
def what_is_missing() -> str:
    """Empty: every kind of lab can stand here."""
    try:
        for proxy in PROXIES:
            host_commands.require(plan(proxy=proxy))
        with kernel_features.scratch() as netns:
            every = (
                one for proxy in PROXIES for one in kernel_features.features(plan(proxy=proxy))
            )
            wanted = {one.what: one for one in every}
            lacking = [
                what for what, one in wanted.items() if not kernel_features.works(one, netns)
            ]
    except (KptraceError, OSError) as error:
        hint = getattr(error, "hint", "")
        return f"{error} ({hint})" if hint else str(error)
    return f"this kernel lacks {', '.join(lacking)}" if lacking else ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A fault that a lab cannot have is no test of it (that it is refused is another's matter)."""
    gone = [item for item in items if not _possible(item)]
    items[:] = [item for item in items if item not in gone]
    config.hook.pytest_deselected(items=gone)


def _possible(item: pytest.Item) -> bool:
    values = getattr(getattr(item, "callspec", None), "params", {})
    pair = values.get("each_bench") or values.get("each_cilium_bench")
    if pair is None or values.get("name") not in inject.BY_NAME:
        return True
    proxy, network = pair
    return inject.find(values["name"]).possible(plan(proxy=proxy, network=network))


# --- labs ---------------------------------------------------------------------------------------

_NUMBERS = itertools.count(1)


@contextmanager
def standing(proxy: str = "iptables", network: str = "vxlan", nodes: int = 2) -> Iterator[Lab]:
    """A lab of a name that is ours alone; it goes, whatever happens."""
    name = f"test-{os.getpid()}-{next(_NUMBERS)}"
    try:
        yield cluster.up(plan(name, nodes, proxy, network))
    finally:
        if name in state.names():
            cluster.down(name)


# --- traces -------------------------------------------------------------------------------------


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


class _KeptGround:
    """A lab whose agents stay from trace to trace: starting two costs more than a trace does.

    An agent reads a node's rules once; so when a lab is changed, ``renew``.
    """

    sparing = False

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.renew()

    def renew(self) -> None:
        self._agents: dict[str, AgentClient] = {}
        self._ground = LabEnvironment(self._lab)
        self.api = self._ground.api

    def agent(self, node: str) -> AgentClient:
        if node not in self._agents:
            self._agents[node] = self._ground.agent(node)
        return _Kept(self._agents[node])

    def begin(self, node: str) -> None:
        self.agent(node)

    def forget(self) -> bool:
        return False

    def close(self) -> None:
        self._ground.__exit__(None, None, None)


class Bench:
    """A lab, and traces through it as the command line makes them, without the command line."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._ground = _KeptGround(lab)

    def run(
        self,
        target: str,
        source: str,
        namespace: str = "shop",
        say: Callable[[str], None] = lambda _: None,
        **asked: Any,
    ) -> Recording:
        question = TraceRequest(
            target=parse_target(target, namespace),
            source=source,
            namespace="shop",
            **{"timeout": 1.0, **asked},
        )
        return trace.run(question, self._ground, int.from_bytes(os.urandom(4)), say)

    def trace(self, target: str, source: str, namespace: str = "shop", **asked: Any) -> Trace:
        return trace.report(self.run(target, source, namespace, **asked))

    @contextmanager
    def broken(self, fault: str) -> Iterator[None]:
        inject.inject(self.lab.name, inject.find(fault))
        self.renew()
        try:
            yield
        finally:
            inject.heal(self.lab.name, fault)
            self.renew()

    def renew(self) -> None:
        self._ground.close()
        self._ground.renew()

    def close(self) -> None:
        self._ground.close()


@contextmanager
def bench(proxy: str = "iptables", network: str = "vxlan", nodes: int = 2) -> Iterator[Bench]:
    with standing(proxy, network, nodes) as lab, closing(Bench(lab)) as made:
        yield made


MODES = ("iptables", "iptables-legacy", "nftables")


@pytest.fixture(scope="module", params=LABS)
def each_bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A lab of each proxy mode and each network, one after the other."""
    with bench(*request.param) as made:
        yield made


@pytest.fixture(scope="module", params=[row(proxy, "vxlan") for proxy in MODES])
def each_proxy_bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A lab of each proxy mode, with a tunnel between the nodes."""
    with bench(*request.param) as made:
        yield made


@pytest.fixture(scope="module", params=[row(proxy, "vxlan") for proxy in MODES])
def each_wide_bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Three nodes, of which the last has no backend of any Service; one for each proxy mode."""
    with bench(*request.param, nodes=3) as made:
        yield made


@pytest.fixture(scope="module", params=[row("cilium", f"cilium-{n}") for n in ("vxlan", "direct")])
def each_cilium_bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """No rules for Services: programs at connect()."""
    with bench(*request.param) as made:
        yield made


@pytest.fixture(scope="module")
def vxlan_bench() -> Iterator[Bench]:
    with bench() as made:
        yield made


@pytest.fixture(scope="module")
def legacy_bench() -> Iterator[Bench]:
    with bench("iptables-legacy") as made:
        yield made


@pytest.fixture(scope="session")
def lab_of() -> Callable[..., AbstractContextManager[Lab]]:
    """``with lab_of("nftables") as lab``: for a test that takes its lab down itself."""
    return standing

"""A client that was there before: IPVS' template of its connections is read before the probe.

What binds the client is read here by ``ipvsadm``; which server the kernel took, by conntrack.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kptrace.agent.netns import run_in_netns
from kptrace.environment.lab import LabEnvironment
from kptrace.environment.local_node import LiveState
from kptrace.explain.explain import explain_from_state
from kptrace.lab import host_commands
from kptrace.lab.address_plan import Plan
from kptrace.lab.state import NETNS, Lab
from kptrace.model import Outcome, Trace
from kptrace.model.targets import parse_source, parse_target

STICKY = "10.96.1.7:80"
CLIENT = "10.244.2.10"  # client-b, on node-b
MANY = 120  # of some 70 bytes each: more than a page of the table


def suits(lab: Plan) -> bool:
    return lab.proxy == "ipvs" and lab.network in ("vxlan", "calico-ipip")


def netns(lab: Lab) -> str:
    return lab.plan.node("node-b").netns


def templates(lab: Lab) -> list[str]:
    """Servers that the client is bound to, as ipvsadm lists them."""
    lines = (
        line.split() for line in host_commands.run(("ipvsadm", "-Lnc"), "", netns(lab)).split("\n")
    )
    return [words[5] for words in lines if words[3:5] == [f"{CLIENT}:0", STICKY]]


def connect(lab: Lab, times: int) -> list[socket.socket]:
    def work() -> list[socket.socket]:
        return [socket.create_connection(("10.96.1.7", 80), timeout=5) for _ in range(times)]

    return run_in_netns(str(NETNS / f"kpt-{lab.name}-shop.client-b"), work)


@contextmanager
def weighing_nothing(lab: Lab, server: str) -> Iterator[None]:
    edit = ("ipvsadm", "-e", "-t", STICKY, "-r", server, "-m", "-w")
    host_commands.run((*edit, "0"), "", netns(lab))
    try:
        yield
    finally:
        host_commands.run((*edit, "1"), "", netns(lab))


@pytest.fixture
def known(bench: Any) -> str:
    """The server that an earlier connection bound the client to."""
    for one in connect(bench.lab, 1):
        one.close()
    (server,) = templates(bench.lab)
    return server


def test_the_server_that_binds_it_is_foretold_and_taken(bench: Any, known: str) -> None:
    made: Trace = bench.trace("svc/sticky", "pod/client-b")
    assert made.outcome is Outcome.DELIVERED, made.summary
    (branch,) = made.prediction.branches
    assert branch.deterministic
    assert branch.backend
    assert f"{branch.backend.address}:{branch.backend.port}" == known
    (entry, *_) = made.evidence.conntrack
    assert f"{entry.reply.src}:{entry.reply.sport}" == known
    (choice,) = (hop for hop in made.hops if hop.action == "dnat")
    assert choice.rule
    bound = f"an earlier connection of this client binds it to {known} for "
    assert bound in choice.rule.description
    seconds = int(choice.rule.description.partition(bound)[2].partition(" s more")[0])
    assert 10_000 < seconds <= 10_800


def test_among_many_connections(bench: Any, known: str) -> None:
    """The table is longer than one page, and read to its end."""
    lines = connect(bench.lab, MANY)
    try:
        listed = host_commands.run(
            ("cat", "/proc/thread-self/net/ip_vs_conn"), "", netns(bench.lab)
        )
        assert len(listed) > 4096
        made: Trace = bench.trace("svc/sticky", "pod/client-b")
    finally:
        for line in lines:
            line.close()
    (branch,) = made.prediction.branches
    assert branch.backend
    assert f"{branch.backend.address}:{branch.backend.port}" == known


def test_a_server_that_takes_no_more_loses_its_clients(bench: Any, known: str) -> None:
    """kube-proxy sets expire_quiescent_template."""
    with weighing_nothing(bench.lab, known):
        made: Trace = bench.trace("svc/sticky", "pod/client-b")
    foretold = {f"{b.backend.address}:{b.backend.port}" for b in made.prediction.branches}
    assert len(foretold) == 2
    assert known not in foretold
    (entry, *_) = made.evidence.conntrack
    assert f"{entry.reply.src}:{entry.reply.sport}" in foretold


def test_another_client_is_not_bound_by_it(bench: Any, known: str) -> None:
    """What is asked in general does not depend on who was there (explain without --from)."""
    target = parse_target("svc/sticky", "shop")
    with LabEnvironment(bench.lab) as ground:
        state = LiveState(ground, tuple(node.name for node in bench.lab.plan.nodes))
        general = explain_from_state(target, None, "node-b", state)
        asked = explain_from_state(target, parse_source("pod/client-b", "shop"), "node-b", state)
    (port,) = general.ports
    assert [len(one.backends) for one in port.entries if one.sender == "pod"] == [3]
    (port,) = asked.ports
    (entry,) = port.entries
    assert [f"{one.address}:{one.port}" for one in entry.backends] == [known]
    assert asked.findings == ()

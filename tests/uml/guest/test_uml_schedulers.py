"""Every scheduler of kube-proxy on every network of IPVS: whom it takes, and what the report says.

Which servers can be taken follows from what each scheduler is documented to do (ipvsadm(8)); which
were, is what the kernel's own list of connections says, read by hand here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kptrace.lab import host_commands
from kptrace.lab.address_plan import SCHEDULERS, Plan
from kptrace.lab.state import Lab
from kptrace.model import Outcome, Trace

FLOWS = 6
SERVERS = {"10.244.1.11:8080", "10.244.2.12:8080", "10.244.2.13:8080"}
# the same client, the same address: one server for all; in turn: each as often
ONE_FOR_ALL = ("sh", "dh")
IN_TURN = ("rr", "wrr")
FLAGS = {"mh": "mh -b mh-port"}  # as kube-proxy sets it
WORDS = {
    "rr": "rr takes them in turn",
    "wrr": "wrr takes them in turn, as often as their weights say",
    "lc": "lc takes the one with the fewest connections",
    "wlc": "wlc takes the one with the fewest connections for its weight",
    "sh": "sh goes by a hash of the client's address",
    "dh": "dh goes by a hash of the Service's address",
    "mh": "mh goes by a Maglev hash of the client's address and port",
}


def suits(lab: Plan, scheduler: str = "") -> bool:
    return lab.proxy == "ipvs"


def change(lab: Lab, node: str, scheduler: str) -> None:
    """All services by another scheduler, and no connection that is remembered."""
    netns = lab.plan.node(node).netns
    saved = host_commands.run(("ipvsadm", "-Sn"), "", netns)
    bare = re.sub(r" -b \S+", "", saved)
    fresh = re.sub(r" -s \S+", f" -s {FLAGS.get(scheduler, scheduler)}", bare)
    host_commands.run(("ipvsadm", "-C"), "", netns)
    host_commands.run(("ipvsadm", "-R"), fresh, netns)


@contextmanager
def by(lab: Lab, scheduler: str) -> Iterator[None]:
    change(lab, "node-a", scheduler)
    try:
        yield
    finally:
        change(lab, "node-a", lab.plan.scheduler)


def connections(lab: Lab, service: str) -> Counter[str]:
    """By server, as ipvsadm lists them."""
    netns = lab.plan.node("node-a").netns
    lines = host_commands.run(("ipvsadm", "-Lnc"), "", netns).splitlines()
    found = [line.split() for line in lines if line.startswith("TCP")]
    return Counter(words[5] for words in found if words[4] == service)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_whom_it_takes(bench: Any, scheduler: str) -> None:
    with by(bench.lab, scheduler):
        made: Trace = bench.trace("svc/web", "pod/client", count=FLOWS)
        taken = connections(bench.lab, "10.96.1.1:80")
    assert made.outcome is Outcome.DELIVERED, made.summary
    shares = {f"{one.address}:{one.port}": one.seen for one in made.evidence.shares}
    assert {server: seen for server, seen in shares.items() if seen} == taken
    assert set(taken) <= SERVERS
    assert taken.total() == FLOWS
    if scheduler in ONE_FOR_ALL:
        assert len(taken) == 1
    if scheduler in IN_TURN:
        assert set(taken.values()) == {FLOWS // len(SERVERS)}
    (choice,) = (hop for hop in made.hops if hop.action == "dnat")
    assert choice.rule
    assert WORDS[scheduler] in choice.rule.description
    assert choice.rule.description.endswith("; conntrack has it")
    assert {other.text.split()[1] for other in (choice.rule, *choice.preceding_rules)} == SERVERS


@contextmanager
def weighing(netns: str, service: str, weights: dict[str, str]) -> Iterator[None]:
    def edit(server: str, weight: str) -> None:
        words = ("ipvsadm", "-e", "-t", service, "-r", server, "-m", "-w", weight)
        host_commands.run(words, "", netns)

    for server, weight in weights.items():
        edit(server, weight)
    try:
        yield
    finally:
        for server in weights:
            edit(server, "1")


def test_weights_and_open_connections_are_told(bench: Any) -> None:
    """Three servers that differ in all that a scheduler looks at."""
    lab, service = bench.lab, "10.96.1.1:80"
    netns = lab.plan.node("node-a").netns
    weights = {"10.244.1.11:8080": "0", "10.244.2.12:8080": "7"}
    with by(lab, "wrr"), weighing(netns, service, weights):
        bench.trace("svc/web", "pod/client", count=3)
        listed = host_commands.run(("ipvsadm", "-Ln", "-t", service), "", netns).splitlines()[3:]
        made = bench.trace("svc/web", "pod/client")
    (choice,) = (hop for hop in made.hops if hop.action == "dnat")
    assert choice.rule
    told = {
        other.text.split()[1]: other.description for other in (choice.rule, *choice.preceding_rules)
    }
    for line in listed:
        _, server, _, weight, active, inactive = line.split()
        assert told[server].startswith(
            f"{server} weight {weight}, active {active}, inactive {inactive}"
        )
    assert "10.244.1.11:8080" not in choice.rule.text
    assert len({branch.backend.address for branch in made.prediction.branches}) == 2

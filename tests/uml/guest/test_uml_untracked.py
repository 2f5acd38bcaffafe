"""``net.ipv4.vs.conntrack=0``: no conntrack entry, so no masquerade; IPVS' own table is the proof.

What works then and what does not is what real connections say; the report must agree with them and
name the sysctl where it is to blame.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from kptrace.agent.netns import run_in_netns
from kptrace.lab import host_commands
from kptrace.lab.address_plan import Plan
from kptrace.lab.state import NETNS, Lab
from kptrace.model import Outcome, Trace

CONNTRACK = "net.ipv4.vs.conntrack"
# Flannel drops nothing for being INVALID, Calico does: there no answer comes back
BRIDGED, CALICO = "vxlan", "calico-ipip"
NODE_PORT = (("via", "nodePort"), ("node", "node-b"))
WAYS = {
    "pod to Service": ("svc/remote", "pod/client", "10.96.1.2", 80, ()),
    "sticky": ("svc/sticky", "pod/client", "10.96.1.7", 80, ()),
    "to itself": ("svc/self", "pod/client", "10.96.1.4", 80, ()),
    "node port": ("svc/nodeport", "pod/client", "172.30.0.12", 30080, NODE_PORT),
    "from the node": ("svc/remote", "node/node-a", "10.96.1.2", 80, ()),
}
# the node whose IPVS sent the packet on
BLAMED = dict.fromkeys(WAYS, "node-a") | {"node port": "node-b"}


def suits(lab: Plan, way: str = "") -> bool:
    return lab.proxy == "ipvs" and lab.network in (BRIDGED, CALICO)


@pytest.fixture
def untracked(bench: Any) -> Iterator[Lab]:
    lab: Lab = bench.lab
    for node in lab.plan.nodes:
        host_commands.write_sysctls([(CONNTRACK, "0")], node.netns)
    yield lab
    for node in lab.plan.nodes:
        host_commands.write_sysctls([(CONNTRACK, "1")], node.netns)


def answers(lab: Lab, source: str, address: str, port: int) -> bool:
    kind, _, name = source.partition("/")
    netns = f"kpt-{lab.name}-{'shop.' if kind == 'pod' else ''}{name}"

    def work() -> bool:
        try:
            with socket.create_connection((address, port), timeout=2) as line:
                return bool(line.recv(10))
        except TimeoutError:
            return False

    return run_in_netns(str(NETNS / netns), work)


@pytest.mark.parametrize("way", WAYS)
def test_the_report_says_what_connections_say(bench: Any, untracked: Lab, way: str) -> None:
    target, source, _, _, asked = WAYS[way]
    made: Trace = bench.trace(target, source, timeout=1.0, **dict(asked))
    choice = next(hop for hop in made.hops if hop.action == "dnat")
    assert choice.observed
    assert choice.rule
    assert choice.rule.backend == "ipvs"
    assert choice.rule.description.endswith("IPVS' connection table has it")
    told = made.evidence.prediction_match
    assert told
    assert (told.seen, told.diverged_at) == (told.predicted, "")
    (returned,) = made.evidence.probe_results
    works = returned.result == "connected"  # the socket's own word
    assert (made.outcome is Outcome.DELIVERED) == works
    if works:
        assert made.findings == ()
        return
    found = made.findings[0]
    assert (found.cause, found.node) == ("ipvs-conntrack-off", BLAMED[way])
    assert found.object == CONNTRACK
    assert f"sysctl {CONNTRACK} = 0 on {BLAMED[way]}" in found.evidence
    assert made.outcome is Outcome.DROPPED


def test_what_works_without(bench: Any, untracked: Lab) -> None:
    """So that the other test cannot pass by everything being lost. Through a node port it depends
    on the server: the answer of one on another node does not come back by the same way.
    """
    works = {
        way
        for way, (_, source, address, port, _) in WAYS.items()
        if way != "node port" and answers(untracked, source, address, port)
    }
    bridged = bench.lab.plan.network == BRIDGED
    assert works == ({"pod to Service", "sticky"} if bridged else set())

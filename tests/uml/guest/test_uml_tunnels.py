"""Geneve and GRE carry the pods' packets between the nodes: foretold, seen on the wire and told.

A Flannel lab is taken, whose routes to the other node's pods are led over a device of another kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from kptrace.lab import host_commands
from kptrace.lab.address_plan import NodePlan, Plan
from kptrace.lab.state import Lab
from kptrace.model import Outcome, Trace, Tunnel

DEVICE = "t0"


class Kind(NamedTuple):
    """of: of one node, with ``here`` and ``there``; framed: it carries Ethernet frames."""

    of: str
    tunnel: Tunnel
    framed: bool = False


KINDS = {
    "geneve": Kind("geneve id 7 remote {there}", Tunnel(kind="geneve", vni=7), True),
    "gre": Kind("gre local {here} remote {there}", Tunnel(kind="gre")),
    "gre-with-key": Kind(
        "gre local {here} remote {there} key 9 csum seq", Tunnel(kind="gre", vni=9)
    ),
    "gretap": Kind("gretap local {here} remote {there}", Tunnel(kind="gre"), True),
    "geneve6": Kind("geneve id 8 remote {there6}", Tunnel(kind="geneve", vni=8), True),
    "ip6gre": Kind("ip6gre local {here6} remote {there6}", Tunnel(kind="gre")),
}


def suits(lab: Plan, kind: str = "") -> bool:
    return (lab.proxy, lab.network) == ("iptables-legacy", "flannel-ipip")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(node: NodePlan, *words: str) -> str:
    return host_commands.run(tuple(" ".join(words).split()), "", node.netns)


@contextmanager
def led(lab: Lab, kind: Kind) -> Iterator[None]:
    host_commands.run(("modprobe", "-a", "geneve", "ip_gre", "ip6_gre"))
    nodes = lab.plan.nodes
    before = {node.name: run(node, "ip route show", _pods(_other(lab, node))) for node in nodes}
    try:
        for node in nodes:
            _lead(node, _other(lab, node), kind)
        yield
    finally:
        for node in nodes:
            run(node, "ip link del", DEVICE)
            run(node, "ip route replace", before[node.name])


def _lead(node: NodePlan, other: NodePlan, kind: Kind) -> None:
    (here, here6), (there, there6) = node.addresses, other.addresses
    own = kind.of.format(here=here, there=there, here6=here6, there6=there6)
    run(node, f"ip link add {DEVICE} type {own}")
    run(node, f"ip link set {DEVICE} mtu 1380 up")
    if kind.framed:
        run(node, f"ip addr add {node.tunnel_addresses[0]}/32 dev {DEVICE}")
        gateway = f"via {other.tunnel_addresses[0]} onlink"
        run(node, f"ip route replace {_pods(other)} dev {DEVICE} {gateway}")
    else:
        run(node, f"ip route replace {_pods(other)} dev {DEVICE}")


def _other(lab: Lab, node: NodePlan) -> NodePlan:
    return next(one for one in lab.plan.nodes if one != node)


def _pods(node: NodePlan) -> str:
    return node.pod_cidrs[0]


def test_there_and_back(bench: Any, kind: str) -> None:
    wanted = KINDS[kind]
    with led(bench.lab, wanted):
        made: Trace = bench.trace("svc/remote", "pod/client")
    assert made.outcome is Outcome.DELIVERED, made.summary
    assert made.findings == ()
    told = made.evidence.prediction_match
    assert told
    assert (told.seen, told.diverged_at) == (told.predicted, "")
    wrapped = [hop for hop in made.hops if hop.action == "encap"]
    assert [hop.packet.tunnel for hop in wrapped] == [wanted.tunnel]
    assert f"{DEVICE} has the one remote" in wrapped[0].description
    assert [hop.interface for hop in made.hops if hop.action == "decap"] == [DEVICE]
    assert all(branch.deterministic for branch in made.prediction.branches)


def test_a_far_end_that_is_another(bench: Any) -> None:
    """The other node's device has another key: what comes there is nobody's."""
    with led(bench.lab, KINDS["gre-with-key"]):
        near, far = bench.lab.plan.nodes
        run(far, f"ip link del {DEVICE}")
        ends = f"local {far.addresses[0]} remote {near.addresses[0]}"
        run(far, f"ip link add {DEVICE} type gre {ends} key 10")
        run(far, f"ip link set {DEVICE} up")
        made: Trace = bench.trace("svc/remote", "pod/client", timeout=1.0)
    assert made.outcome is Outcome.DROPPED
    found = made.findings[0]
    assert (found.cause, found.node) == ("tunnel-device-missing", far.name)

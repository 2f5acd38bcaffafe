"""BPF programs before the judge: a refused connect(), a tap that was passed by."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kptrace.diagnose.checks import connect_hook
from kptrace.diagnose.phrases import last_seen, next_predicted
from kptrace.model import Branch, Flow, Netns, Outcome, Packet, SimulatedStep
from kptrace.simulate.bpf.programs import BpfDatapath

A = Netns(node="a")
CILIUM = BpfDatapath(owner="Cilium", table="services", silent=("veth*",), remedy=("look there",))
REFUSED = Branch(
    weight=1.0,
    steps=(),
    outcome=Outcome.NO_ENDPOINTS,
    cause="no-endpoints",
    object="10.96.1.1:80/TCP [ClusterIP]",
)


def with_programs(case: Any, programs: BpfDatapath = CILIUM) -> Any:
    snapshot = msgspec.structs.replace(case.snapshots[A], programs=programs)
    return msgspec.structs.replace(case, snapshots={**case.snapshots, A: snapshot})


def test_a_connect_that_fails_at_once_has_no_endpoints(probe: Any) -> None:
    case = with_programs(probe(0, result="unreachable", branch=REFUSED, entry=None, endpoints=()))
    (finding,) = connect_hook.diagnose(case)
    assert (finding.cause, finding.node) == ("no-endpoints", "a")
    assert finding.object == "services: 10.96.1.1:80/TCP [ClusterIP]"
    assert "nothing was sent" in finding.evidence[0]


def test_where_the_api_has_endpoints_the_map_lacks_them(probe: Any) -> None:
    case = with_programs(probe(0, result="unreachable", branch=REFUSED, entry=None))
    (finding,) = connect_hook.diagnose(case)
    assert finding.cause == "endpoint-missing"
    assert finding.remedy == ("look there",)


@pytest.mark.parametrize(
    ("seen", "result", "branch"),
    [
        (1, "unreachable", REFUSED),  # something was sent
        (0, "timeout", REFUSED),  # nobody refused
        (0, "unreachable", msgspec.structs.replace(REFUSED, outcome=Outcome.DROPPED)),
    ],
)
def test_what_else_can_be_is_not_called_so(
    probe: Any, seen: int, result: str, branch: Branch
) -> None:
    case = with_programs(probe(seen, result=result, branch=branch, entry=None))
    assert list(connect_hook.diagnose(case)) == []


def test_without_programs_nobody_refuses_connect(probe: Any) -> None:
    case = probe(0, result="unreachable", branch=REFUSED, entry=None)
    assert list(connect_hook.diagnose(case)) == []


def test_a_tap_that_may_be_passed_by_is_not_where_it_was_lost(probe: Any, way: Any) -> None:
    """The next crossing after the pod's own device is one that a program may skip."""
    steps = tuple(
        SimulatedStep(
            netns=place,
            action="seen",
            packet=Packet(flow=flow),
            interface=interface,
            direction=direction,
        )
        for place, interface, direction, flow, _ in way
    )
    backend: Flow = way[-1][3]
    branch = Branch(weight=1.0, steps=steps, outcome=Outcome.DELIVERED)
    case = msgspec.structs.replace(probe(1), branch=branch)
    following = next_predicted(case)
    assert following is not None
    assert following.interface == "veth1"

    case = with_programs(case)
    following = next_predicted(case)
    assert following is not None
    assert (following.interface, following.packet.flow) == ("cni0", backend)
    assert not any("veth1" in line for line in last_seen(case))

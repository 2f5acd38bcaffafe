"""What the check ``underlay`` concludes from the kernel's reports.

The reports are those that real runs show for the fault; that the kernel really sends them is the
kernel tier's to prove.
"""

from __future__ import annotations

from typing import Any

from support.diagnose_cases import VIP, A, B, only

from kptrace.diagnose.checks import (
    underlay,
)
from kptrace.model import (
    Branch,
    Endpoint,
    EvidenceSource,
    Outcome,
    Packet,
    SimulatedStep,
)


def _never_came() -> Branch:
    packet = Packet(flow=VIP, flags="S")
    steps = tuple(
        SimulatedStep(netns=place, action="seen", interface="eth0", direction=way, packet=packet)
        for place, way in ((A, "out"), (B, "in"))
    )
    backend = Endpoint(address="10.244.2.20", port=8080)
    return Branch(weight=1.0, steps=steps, outcome=Outcome.DELIVERED, backend=backend)


def _layers(*broken: str) -> tuple[EvidenceSource, ...]:
    return tuple(
        EvidenceSource(name=name, node=node, unavailable="no right" if name in broken else "")
        for node in ("a", "b")
        for name in ("capture", "drops")
    )


WITH_XDP = """[{"ifindex": 2, "ifname": "eth0", "flags": ["UP"], "mtu": 1500, "xdp": {"mode": 1,
 "prog": {"id": 23222, "name": "firewall", "tag": "b11459a0e11ca14c", "jited": 1}}}]"""


def test_lost_between_two_taps_that_were_there(probe: Any) -> None:
    case = probe(5, branch=_never_came())
    found = only(underlay.diagnose(case, _layers()))
    assert (found.cause, found.object) == ("lost-between-nodes", "between a and b")
    assert "neither kernel reported" in found.evidence[-1]
    found = only(underlay.diagnose(case, _layers("drops")))
    assert "never seen on eth0 of b" in found.evidence[-1]


def test_without_a_tap_nothing_is_known_of_the_wire(probe: Any) -> None:
    case = probe(5, branch=_never_came())
    assert not tuple(underlay.diagnose(case, _layers("capture")))
    assert not tuple(underlay.diagnose(case, ()))


def test_a_program_at_the_far_end_may_have_dropped_it(probe: Any) -> None:
    case = probe(5, branch=_never_came(), files={B: {"ip-link.json": WITH_XDP}})
    found = only(underlay.diagnose(case, _layers()))
    assert (found.cause, found.node) == ("lost-unexplained", "b")
    assert "by its XDP program firewall, or on the wire" in found.summary

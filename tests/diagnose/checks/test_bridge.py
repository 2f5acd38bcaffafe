"""What the check ``bridge`` concludes from the kernel's reports.

The reports are those that real runs show for the fault; that the kernel really sends them is the
kernel tier's to prove.
"""

from __future__ import annotations

from typing import Any

from support.diagnose_cases import CLIENT, DNATED, A, only

from kptrace.diagnose.checks import (
    bridge,
)
from kptrace.model import (
    Outcome,
)


def test_an_answer_that_nobody_translated_back(probe: Any) -> None:
    stray = probe.answer(CLIENT, "eth0", "in", DNATED.reverse)
    off = {A: {"sysctl.txt": "net.bridge.bridge-nf-call-iptables = 0\n"}}
    found = only(bridge.diagnose(probe(10, told=[stray], files=off)))
    assert (found.cause, found.node) == ("bridge-nf-off", "a")
    assert found.object == "net.bridge.bridge-nf-call-iptables"


def test_with_the_sysctl_on_it_is_something_else(probe: Any) -> None:
    stray = probe.answer(CLIENT, "eth0", "in", DNATED.reverse)
    assert not tuple(bridge.diagnose(probe(10, told=[stray])))


def test_hairpin_by_the_prediction(probe: Any) -> None:
    branch = probe.branch("hairpin-off", Outcome.DROPPED, "bridge port veth1")
    case = probe(2, branch=branch, entry=None)
    found = only(bridge.diagnose(case))
    assert (found.cause, found.object) == ("hairpin-off", "bridge port veth1")

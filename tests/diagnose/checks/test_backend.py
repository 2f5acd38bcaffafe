"""What the check ``backend`` concludes from the kernel's reports.

The reports are those that real runs show for the fault; that the kernel really sends them is the
kernel tier's to prove.
"""

from __future__ import annotations

from typing import Any

from support.diagnose_cases import BACKEND, DNATED, A, only

from kptrace.diagnose.checks import (
    backend,
)


def test_the_backend_says_no(probe: Any) -> None:
    reset = probe.answer(BACKEND, "eth0", "out", DNATED.reverse, "RA")
    found = only(backend.diagnose(probe(10, told=[reset], result="refused")))
    assert (found.cause, found.node) == ("no-listener", "b")
    assert found.object == "pod shop/web-1 port 8080/tcp"


def test_a_nodes_refusal_is_not_the_backends(probe: Any) -> None:
    refusal = probe.icmp(A, "cni0", "out", "10.244.1.1")
    assert not tuple(backend.diagnose(probe(3, told=[refusal], result="refused")))

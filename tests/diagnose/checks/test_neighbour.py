"""What the check ``neighbour`` concludes from the kernel's reports.

The reports are those that real runs show for the fault; that the kernel really sends them is the
kernel tier's to prove.
"""

from __future__ import annotations

from typing import Any

import msgspec
from support.diagnose_cases import CLIENT, VIP, only

from kptrace.diagnose.checks import (
    neighbour,
)
from kptrace.model import (
    Flow,
    Packet,
)


def test_a_gateway_that_does_not_answer(probe: Any) -> None:
    """Calico's with proxy_arp off, or neighbour discovery that a rule drops."""
    files = {
        CLIENT: {
            "ip-route.json": '[{"dst": "default", "gateway": "169.254.1.1", "dev": "eth0"}]',
            "ip-neigh.json": '[{"dst": "169.254.1.1", "dev": "eth0", "state": ["FAILED"]}]',
        }
    }
    quoted = Packet(flow=VIP, flags="S", seq=0x4000_0000)
    flow = Flow(protocol="icmp", src="10.244.1.10", dst="10.244.1.10")
    error = msgspec.structs.replace(
        probe.icmp(CLIENT, "lo", "in", "10.244.1.10"),
        packet=Packet(flow=flow, icmp=(3, 1), quoted=quoted),
    )
    case = probe(0, told=[error], files=files, entry=None, result="unreachable")
    found = only(neighbour.diagnose(case))
    assert (found.cause, found.node) == ("neighbour-failed", "a")
    assert found.object == "neighbour 169.254.1.1 dev eth0 of pod shop/client"
    assert "ICMP host unreachable" in found.evidence[0]
    assert "FAILED before the probe" in found.evidence[1]


def test_a_router_s_own_error_is_not_the_sender_s(probe: Any) -> None:
    error = probe.icmp(CLIENT, "eth0", "in", "10.244.1.1")
    case = probe(0, told=[error], entry=None, result="unreachable")
    assert not tuple(neighbour.diagnose(case))

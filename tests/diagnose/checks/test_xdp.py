"""What the check ``xdp`` concludes from the kernel's reports.

The reports are those that real runs show for the fault; that the kernel really sends them is the
kernel tier's to prove.
"""

from __future__ import annotations

from typing import Any

import msgspec
from support.diagnose_cases import SYN, B, only

from kptrace.diagnose.checks import (
    xdp,
)

WITH_XDP = """[{"ifindex": 2, "ifname": "eth0", "flags": ["UP"], "mtu": 1500, "xdp": {"mode": 1,
 "prog": {"id": 23222, "name": "firewall", "tag": "b11459a0e11ca14c", "jited": 1}}}]"""


def test_the_kernel_names_a_function_of_xdp(probe: Any) -> None:
    drop = msgspec.structs.replace(
        probe.drop("b", "NOT_SPECIFIED", SYN), location="veth_xdp_rcv_skb+0x27d/0x590"
    )
    case = probe(5, told=[drop], files={B: {"ip-link.json": WITH_XDP}})
    found = only(xdp.diagnose(case))
    assert (found.cause, found.node) == ("xdp-drop", "b")
    assert "the XDP program firewall on eth0 of b" in found.summary

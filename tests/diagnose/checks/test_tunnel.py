"""What the check ``tunnel`` concludes from the kernel's reports.

The reports are those that real runs show for the fault; that the kernel really sends them is the
kernel tier's to prove.
"""

from __future__ import annotations

from typing import Any

import msgspec
from support.diagnose_cases import SYN, A, only

from kptrace.diagnose.checks import (
    tunnel,
)
from kptrace.model import (
    Flow,
    Packet,
    Tunnel,
)

STALE = """[{"mac": "02:00:00:00:00:02", "ifname": "flannel.1", "dst": "172.30.0.99",
 "flags": ["self"], "state": "permanent"}]"""


def test_no_forwarding_entry(probe: Any) -> None:
    drop = probe.drop("a", "NO_TX_TARGET", SYN, "flannel.1")
    case = probe(4, told=[drop], files={A: {"bridge-fdb.json": "[]"}})
    found = only(tunnel.diagnose(case))
    assert (found.cause, found.node) == ("fdb-missing", "a")
    assert found.object == "FDB entry of flannel.1 for 02:00:00:00:00:02"
    assert "dst 172.30.0.12" in found.remedy[0]


def test_a_forwarding_entry_to_no_node(probe: Any) -> None:
    case = probe(4, files={A: {"bridge-fdb.json": STALE}})
    found = only(tunnel.diagnose(case))
    assert (found.cause, found.node) == ("fdb-stale", "a")
    assert "172.30.0.99" in found.summary
    assert "02:00:00:00:00:02" in found.object


def test_a_carrier_to_no_node(probe: Any, way: Any) -> None:
    case = probe(4, files={A: {"bridge-fdb.json": STALE}})
    astray = Flow(protocol="udp", src="172.30.0.11", sport=5555, dst="172.30.0.99", dport=8472)
    packet = Packet(flow=astray, tunnel=Tunnel(kind="vxlan", vni=1), inner=SYN)
    wire = msgspec.structs.replace(
        case.journey.forward[-1], interface="eth0", packet=packet, dst_mac=""
    )
    journey = msgspec.structs.replace(case.journey, forward=(*case.journey.forward, wire))
    found = only(tunnel.diagnose(msgspec.structs.replace(case, journey=journey)))
    assert (found.cause, found.node) == ("fdb-stale", "a")


def test_a_carrier_to_the_right_node_is_no_fault_of_the_tunnel(probe: Any) -> None:
    assert not tuple(tunnel.diagnose(probe(5)))

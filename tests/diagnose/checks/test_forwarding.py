"""What the check ``forwarding`` concludes from the kernel's reports.

The reports are those that real runs show for the fault; that the kernel really sends them is the
kernel tier's to prove.
"""

from __future__ import annotations

from typing import Any

import pytest
from support.diagnose_cases import DNATED, SYN, A, only

from kptrace.diagnose.checks import (
    forwarding,
    neighbour,
)

OFF = "net.ipv4.ip_forward = 0\nnet.ipv4.conf.all.forwarding = 0\nnet.ipv4.conf.cni0.forwarding = 0"
OFF_HERE = "net.ipv4.ip_forward = 1\nnet.ipv4.conf.cni0.forwarding = 0"


@pytest.mark.parametrize(
    ("sysctls", "name"),
    [(OFF, "net.ipv4.ip_forward"), (OFF_HERE, "net.ipv4.conf.cni0.forwarding")],
)
def test_forwarding_is_off(probe: Any, sysctls: str, name: str) -> None:
    drop = probe.drop("a", "IP_INADDRERRORS", SYN, "cni0")
    case = probe(3, told=[drop], files={A: {"sysctl.txt": sysctls}}, entry=None)
    found = only(forwarding.diagnose(case))
    assert (found.cause, found.node, found.object) == ("ip-forward-off", "a", name)


def test_forwarding_off_where_the_packet_went_on_is_not_the_cause(probe: Any) -> None:
    case = probe(4, files={A: {"sysctl.txt": OFF}})
    assert not tuple(forwarding.diagnose(case))


def test_no_route_to_the_other_nodes_pods(probe: Any, way: Any) -> None:
    taps = (*way[:3], (A, "eth0", "out", DNATED, False))
    routes = '[{"dst": "default", "gateway": "172.30.0.1", "dev": "eth0"}]'
    found = only(forwarding.diagnose(probe(taps, files={A: {"ip-route.json": routes}})))
    assert (found.cause, found.node, found.object) == (
        "pod-route-missing",
        "a",
        "route to 10.244.2.0/24",
    )


@pytest.mark.parametrize(
    ("reason", "cause", "family"),
    [("NEIGH_FAILED", "neighbour-failed", neighbour), ("PKT_TOO_BIG", "mtu-exceeded", forwarding)],
)
def test_what_the_kernel_names_itself(probe: Any, reason: str, cause: str, family: Any) -> None:
    drop = probe.drop("b", reason, SYN, "cni0")
    found = only(family.diagnose(probe(7, told=[drop])))
    assert (found.cause, found.node) == (cause, "b")

"""Each fault really breaks its Service under IPVS and over IPIP, and heal puts back what was."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from kptrace.lab import cluster, faults, machine
from kptrace.lab.plan import plan
from kptrace.lab.state import NETNS, Lab
from kptrace.node.namespace import within

ROWS = [("ipvs", "vxlan"), ("ipvs", "calico-ipip"), ("iptables-legacy", "flannel-ipip")]
ADDRESS = {"svc/remote": "10.96.1.2", "svc/near": "10.96.1.3"}
# what the client sees, by hand from the notes about each fault; the rest times out
REFUSED = {"no-endpoints", "nobody-listens", "ipvs-weight-zero", "ipvs-no-server"}


@pytest.fixture(scope="module", params=ROWS, ids="-".join)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    name = f"flt-{os.getpid()}"
    made = cluster.up(plan(name, 2, *request.param))
    before = everything(made)
    yield made
    after = everything(made)
    cluster.down(name)
    assert after == before


def everything(lab: Lab) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    commands = [("iptables-legacy-save",), ("ip", "route"), ("ip", "-br", "addr")]
    commands += [("ipvsadm", "-Sn"), ("ipset", "save")] * (lab.plan.proxy == "ipvs")
    for node in lab.plan.nodes:
        for command in commands:
            lines = machine.run(command, "", node.netns).splitlines()
            kept = (one.partition(" [")[0].partition(" initval")[0] for one in lines)
            lines = [" ".join(sorted(one.split())) for one in kept if one[0] != "#"]
            found[f"{node.name} {command}"] = sorted(lines)
        forward = machine.read_sysctl("net.ipv4.ip_forward", node.netns)
        found[f"{node.name} forward"] = [forward]
    return found


def connect(lab: Lab, address: str, timeout: float) -> str:
    def work() -> str:
        try:
            with socket.create_connection((address, 80), timeout=timeout) as line:
                return line.makefile("rb").read().decode().rpartition("\r\n\r\n")[2].strip()
        except OSError as error:
            return type(error).__name__

    return within(str(NETNS / f"kpt-{lab.name}-shop.client"), work)


@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: fault.name)
def test_breaks_and_heals(lab: Lab, fault: faults.Fault) -> None:
    if not fault.possible(lab.plan):
        return
    address = ADDRESS[fault.target]
    assert connect(lab, address, 5) in ("remote-1", "near-1")
    faults.inject(lab.name, fault)
    seen = connect(lab, address, 1)
    assert seen == ("ConnectionRefusedError" if fault.name in REFUSED else "TimeoutError")
    faults.heal(lab.name, fault.name)
    assert connect(lab, address, 5) in ("remote-1", "near-1")

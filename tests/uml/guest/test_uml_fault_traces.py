"""Faults under IPVS and over IPIP: broken, named, healed; what was there is there again.

Written by hand: for each fault the node and the object that a trace must blame.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from kptrace.agent.netns import run_in_netns
from kptrace.lab import host_commands
from kptrace.lab.address_plan import Plan
from kptrace.lab.faults import inject
from kptrace.lab.state import NETNS, Lab
from kptrace.model import Outcome, Trace
from kptrace.render.text import text


class Blame(NamedTuple):
    node: str
    object: str
    outcome: Outcome = Outcome.DROPPED
    evidence: str = ""


VIP = r"10\.96\.1\.2"
BLAMED = {
    "proxy-rules-missing": Blame("node-a", rf"{VIP}:80/tcp", Outcome.NOT_PROGRAMMED),
    "stale-dnat": Blame("node-a", r"10\.244\.2\.99:8080", evidence=r"10\.244\.2\.21:8080"),
    "no-endpoints": Blame("node-a", rf"IPVS {VIP}:80/tcp|has no endpoints", Outcome.NO_ENDPOINTS),
    "forward-policy-drop": Blame("node-a", "filter FORWARD policy"),
    "bridge-nf-off": Blame("node-a", r"net\.bridge\.bridge-nf-call-iptables"),
    "tunnel-port-blocked": Blame(
        "node-b", r"filter INPUT \d$", evidence="as it was read: .*--dport 8472 -j DROP"
    ),
    "ip-forward-off": Blame("node-a", r"net\.ipv4\.ip_forward", evidence="ip_forward = 0"),
    "fdb-stale": Blame("node-a", "FDB entry of flannel.1", evidence=r"172\.30\.0\.99"),
    "fdb-missing": Blame("node-a", "FDB entry of flannel.1"),
    "pod-route-missing": Blame("node-a", r"10\.244\.2\.0/2[46]"),
    "no-listener": Blame("node-b", "shop/remote-1 port 8080", Outcome.REFUSED),
    "ipvs-weight-zero": Blame(
        "node-a", rf"IPVS {VIP}:80/tcp", Outcome.REJECTED, r"10\.244\.2\.21:8080 weight 0"
    ),
    "ipvs-no-server": Blame("node-a", rf"IPVS {VIP}:80/tcp", Outcome.REJECTED, "no server"),
    "ipvs-address-missing": Blame(
        "node-a", rf"{VIP} on kube-ipvs0", Outcome.NOT_PROGRAMMED, "IPVS on node-a has a service"
    ),
    "ipip-blocked": Blame("node-b", "filter INPUT 1$", evidence="(ipencap|-p 4) -j DROP"),
    "tunnel-down": Blame("node-b", r"tunl0|flannel\.ipip"),
    "policy-deny-ingress": Blame("node-b", "NetworkPolicy shop/remote-closed, tier default"),
    "policy-deny-egress": Blame(
        "node-a", r"NetworkPolicy shop/default\.client-quarantine, tier default"
    ),
    "rp-filter": Blame("node-b", r"rp_filter of (eth0|tunl0|flannel)", evidence="rp_filter = 1"),
}
ADDRESS = {"svc/remote": "10.96.1.2", "svc/near": "10.96.1.3"}


def everything(lab: Lab) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    commands = [("iptables-legacy-save",), ("ip", "route"), ("ip", "-br", "addr")]
    commands += [("ipvsadm", "-Sn"), ("ipset", "save")] * (lab.plan.proxy == "ipvs")
    for node in lab.plan.nodes:
        for command in commands:
            lines = host_commands.run(command, "", node.netns).splitlines()
            kept = (one.partition(" [")[0].partition(" initval")[0] for one in lines)
            words = [" ".join(sorted(one.split())) for one in kept if one[0] != "#"]
            found[f"{node.name} {command}"] = sorted(words)
        forward = host_commands.read_sysctl("net.ipv4.ip_forward", node.netns)
        found[f"{node.name} forward"] = [forward]
    return found


def suits(lab: Plan, name: str) -> bool:
    return inject.find(name).possible(lab)


@pytest.fixture(scope="module")
def untouched(bench: Any) -> Iterator[None]:
    """After all faults are healed the nodes are what they were."""
    host_commands.run(("iptables-legacy-save", "-t", "raw"), "", bench.lab.plan.nodes[0].netns)
    before = everything(bench.lab)
    yield
    assert everything(bench.lab) == before


def connects(lab: Lab, address: str) -> bool:
    def work() -> bool:
        with socket.create_connection((address, 80), timeout=5) as line:
            return bool(line.recv(10))

    return run_in_netns(str(NETNS / f"kpt-{lab.name}-shop.client"), work)


@pytest.mark.parametrize("name", BLAMED)
def test_named_and_healed(bench: Any, untouched: None, name: str) -> None:
    blame = BLAMED[name]
    with bench.broken(name) as fault:
        made: Trace = bench.trace(fault.target, "pod/client", fault.namespace, timeout=0.8)
    print(text(made, width=120, colour=False, wide=True))  # shown where it fails
    assert made.findings, made.summary
    found = made.findings[0]
    assert (found.cause, found.node) == (fault.cause or name, blame.node), found.summary
    assert made.outcome is blame.outcome
    assert re.search(blame.object, found.object)
    assert any(re.search(blame.evidence, line) for line in found.evidence)
    assert found.summary
    assert found.remedy
    # what is lost with it is no second error
    assert [other.cause for other in made.findings[1:] if other.severity == "error"] == []
    assert connects(bench.lab, ADDRESS[fault.target])


def test_every_fault_of_the_lab_is_blamed_here() -> None:
    assert set(BLAMED) == {fault.name for fault in inject.FAULTS}

"""Rule hits by a TRACE rule in raw, where the user allowed it, and nothing of it afterwards."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from kptrace import trace
from kptrace.lab import machine
from kptrace.lab.ground import LabGround
from kptrace.lab.plan import Plan
from kptrace.model import Flow, Place, Probe, Question, RuleHit
from kptrace.node.namespace import within
from kptrace.protocol import Watch
from kptrace.run import Run
from kptrace.target import parse_target


def suits(lab: Plan) -> bool:
    return (lab.proxy, lab.network) == ("ipvs", "calico-ipip")


def raw(bench: Any, node: str) -> str:
    return machine.run(("iptables-legacy-save", "-t", "raw"), "", bench.lab.plan.node(node).netns)


def logger(bench: Any, node: str) -> str:
    path = Path("/proc/sys/net/netfilter/nf_log/2")
    return within(f"/run/netns/{bench.lab.plan.node(node).netns}", path.read_text).strip()


def run(bench: Any, allowed: bool) -> Run:
    question = Question(
        target=parse_target("svc/remote", "shop"),
        source="pod/client",
        namespace="shop",
        timeout=2.0,
        trace_rule=allowed,
    )
    return trace.run(question, bench, int.from_bytes(os.urandom(4)), lambda _: None)


def test_the_kernel_tells_the_ipvs_path(bench: Any) -> None:
    """As notes of a real kernel have it: PREROUTING, INPUT, OUTPUT, POSTROUTING; no FORWARD."""
    before = logger(bench, "node-a")
    told = run(bench, allowed=True)
    hits = [
        hit
        for hit in told.replies
        if isinstance(hit, RuleHit)
        and hit.place == Place(node="node-a")
        and hit.packet
        and hit.packet.flags == "S"
        and hit.packet.tunnel is None
        and hit.packet.flow.protocol == "tcp"
    ]
    bases = [f"{hit.table}:{hit.chain}" for hit in hits if hit.chain.isupper()]
    bases = [one for one in dict.fromkeys(bases) if "KUBE" not in one]
    assert bases == [
        "raw:PREROUTING",
        "mangle:PREROUTING",
        "nat:PREROUTING",
        "mangle:INPUT",
        "filter:INPUT",
        "raw:OUTPUT",
        "mangle:OUTPUT",
        "filter:OUTPUT",
        "mangle:POSTROUTING",
        "nat:POSTROUTING",
    ]
    report = trace.report(told)
    rules = [layer for layer in report.evidence.layers if layer.name == "rules"]
    assert all(layer.reports and not layer.missing for layer in rules)
    assert "TRACE" not in raw(bench, "node-a") + raw(bench, "node-b")
    assert logger(bench, "node-a") == before


def test_without_leave_no_rule_is_set(bench: Any) -> None:
    told = run(bench, allowed=False)
    assert not any(isinstance(reply, RuleHit) for reply in told.replies)


def test_killed_agent_leaves_no_rule(bench: Any) -> None:
    flow = Flow(protocol="tcp", src="10.244.1.10", dst="10.96.1.2", dport=80)
    probe = Probe(cookie=0x12345600, flow=flow)
    before = logger(bench, "node-a")
    with LabGround(bench.lab) as ground:
        agent: Any = ground.agent("node-a")
        place = Place(node="node-a")
        agent.send(
            Watch(id=77, places=(place,), probes=(probe,), layers=("rules",), raw_trace=True)
        )
        assert agent.wait(77, 30)
        assert "TRACE" in raw(bench, "node-a")
        assert logger(bench, "node-a") == "nfnetlink_log"
        os.kill(agent.pid, signal.SIGKILL)
        for _ in range(100):
            if "TRACE" not in raw(bench, "node-a") and logger(bench, "node-a") == before:
                break
            time.sleep(0.1)
    assert "TRACE" not in raw(bench, "node-a")
    assert logger(bench, "node-a") == before

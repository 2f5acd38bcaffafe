"""Rule hits by a TRACE rule in raw, where the user allowed it, and nothing of it afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kptrace.agent.netns import run_in_netns
from kptrace.environment.lab import LabEnvironment
from kptrace.lab import host_commands
from kptrace.lab.address_plan import Plan
from kptrace.model import Flow, Netns, Probe, RuleTraceEvent, TraceRequest
from kptrace.model.targets import parse_target
from kptrace.protocol import StartCapture
from kptrace.protocol.recording import Recording
from kptrace.trace import trace

OURS = (("ipvs", "calico-ipip"), ("iptables-legacy", "flannel-ipip"))


def suits(lab: Plan, number: signal.Signals | None = None) -> bool:
    """How it leaves is the same in each lab."""
    return (lab.proxy, lab.network) in (OURS if number is None else OURS[:1])


def raw(bench: Any, node: str) -> str:
    """The rules of the table, without counters."""
    netns = bench.lab.plan.node(node).netns
    listed = host_commands.run(("iptables-legacy-save", "-t", "raw"), "", netns).splitlines()
    return "\n".join(line for line in listed if line.startswith("-A"))


def tables(bench: Any, node: str) -> set[str]:
    """The base chains that exist, as table:CHAIN."""
    netns = bench.lab.plan.node(node).netns
    found, table = set(), ""
    for line in host_commands.run(("iptables-legacy-save",), "", netns).splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            found.add(f"{table}:{line[1:].split()[0]}")
    return found


def logger(bench: Any, node: str) -> str:
    path = Path("/proc/sys/net/netfilter/nf_log/2")
    return run_in_netns(f"/run/netns/{bench.lab.plan.node(node).netns}", path.read_text).strip()


def run(bench: Any, allowed: bool) -> Recording:
    question = TraceRequest(
        target=parse_target("svc/remote", "shop"),
        source="pod/client",
        namespace="shop",
        timeout=2.0,
        trace_rule=allowed,
    )
    return trace.run(question, bench, int.from_bytes(os.urandom(4)), lambda _: None)


IPVS_PATH = [
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
ROUTED = [
    "raw:PREROUTING",
    "mangle:PREROUTING",
    "nat:PREROUTING",
    "mangle:FORWARD",
    "filter:FORWARD",
    "mangle:POSTROUTING",
    "nat:POSTROUTING",
]


def test_the_kernel_tells_the_path(bench: Any) -> None:
    """Under IPVS a packet does not meet FORWARD; of the base chains, those that there are."""
    before = logger(bench, "node-a")
    told = run(bench, allowed=True)
    hits = [
        hit
        for hit in told.replies
        if isinstance(hit, RuleTraceEvent)
        and hit.netns == Netns(node="node-a")
        and hit.packet
        and hit.packet.flags == "S"
        and hit.packet.tunnel is None
        and hit.packet.flow.protocol == "tcp"
    ]
    chains = dict.fromkeys(f"{hit.table}:{hit.chain}" for hit in hits)
    bases = [one for one in chains if one in (*IPVS_PATH, *ROUTED)]
    path = IPVS_PATH if bench.lab.plan.proxy == "ipvs" else ROUTED
    there = {"raw:PREROUTING", "raw:OUTPUT", *tables(bench, "node-a")}
    assert bases == [chain for chain in path if chain in there]
    report = trace.report(told)
    rules = [layer for layer in report.evidence.sources if layer.name == "rules"]
    assert all(layer.reports and not layer.unavailable for layer in rules)
    (dnat,) = (hop for hop in report.hops if hop.action == "dnat")
    assert dnat.observed
    assert dnat.rule
    if bench.lab.plan.proxy != "ipvs":
        assert dnat.rule.text.endswith("-j DNAT --to-destination 10.244.2.21:8080")
    assert "TRACE" not in raw(bench, "node-a") + raw(bench, "node-b")
    assert logger(bench, "node-a") == before


def test_without_leave_no_rule_is_set(bench: Any) -> None:
    before = raw(bench, "node-a"), logger(bench, "node-a")
    told = run(bench, allowed=False)
    assert not any(isinstance(reply, RuleTraceEvent) for reply in told.replies)
    assert (raw(bench, "node-a"), logger(bench, "node-a")) == before
    missing = [layer for layer in trace.report(told).evidence.sources if layer.unavailable]
    assert {layer.node for layer in missing if layer.name == "rules"} == {"node-a", "node-b"}


def test_killed_agent_leaves_no_rule(bench: Any) -> None:
    flow = Flow(protocol="tcp", src="10.244.1.10", dst="10.96.1.2", dport=80)
    probe = Probe(probe_id=0x12345600, flow=flow)
    before = logger(bench, "node-a")
    with LabEnvironment(bench.lab) as ground:
        agent: Any = ground.agent("node-a")
        place = Netns(node="node-a")
        agent.send(
            StartCapture(
                id=77, namespaces=(place,), probes=(probe,), sources=("rules",), raw_trace=True
            )
        )
        assert agent.wait(77, 30)
        assert "TRACE" in raw(bench, "node-a")
        assert logger(bench, "node-a") == "nfnetlink_log"
        os.kill(agent.pid, signal.SIGKILL)
        until(lambda: "TRACE" not in raw(bench, "node-a") and logger(bench, "node-a") == before)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_whoever_is_ended_leaves_no_rule(bench: Any, number: signal.Signals) -> None:
    """The command with its agents, while it waits for an answer that will not come."""
    before = logger(bench, "node-a")
    words = ("svc/remote", "-n", "shop", "--from", "pod/client", "--trace-rule", "--timeout", "60")
    argv = [sys.executable, "-m", "kptrace", *words, "--lab-name", bench.lab.name]
    with bench.broken("pod-route-missing"):
        ours = subprocess.Popen(argv, start_new_session=True, stdout=subprocess.DEVNULL)
        until(lambda: "TRACE" in raw(bench, "node-a"))
        os.killpg(ours.pid, number)
        ours.wait()
        until(lambda: "TRACE" not in raw(bench, "node-a") and logger(bench, "node-a") == before)


def until(told: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not told():
        assert time.monotonic() < deadline
        time.sleep(0.2)

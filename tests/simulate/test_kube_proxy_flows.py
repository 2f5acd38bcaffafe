"""Packets that kube-proxy's own unit tests send through its rules, and what those tests expect.

KPTRACE_PEER names the folder with ``flows.json.gz``: a record for each set of rules that kube-proxy
1.36 writes in its tests, with the flows that the tests trace through it and their outcome. Nothing
of what is expected here was computed by kptrace.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec
import pytest

from kptrace.model import Flow, Netns, Outcome, Packet
from kptrace.model.addresses import network
from kptrace.model.family import Family
from kptrace.rules.load import load_ruleset
from kptrace.rules.model.ruleset import Ruleset
from kptrace.simulate.single_node import IngressInterface, NodeResult, simulate_node
from kptrace.simulate.snapshot.network import InterfaceAddress, Link, Nexthop, Route
from kptrace.simulate.snapshot.snapshot import DEFAULT_RULES, Snapshot
from kptrace.simulate.topology import Topology

FLOWS = (
    Path(os.environ.get("KPTRACE_PEER", Path(__file__).parents[3] / "shared" / "peer"))
    / "flows.json.gz"
)
NODE = Netns(node="test-node")
COUNT = 438
BASE_CHAINS = re.compile(r"^:(PREROUTING|INPUT|FORWARD|OUTPUT|POSTROUTING) - ", re.M)
# the fake iptables of Go's tests prints the comments of the jumps from base chains without quotes
UNQUOTED = re.compile(r"--comment (kubernetes [a-z -]+?) -j")


class PeerFlow(msgspec.Struct, rename="pascal"):
    name: str
    source: str
    dest: str
    port: int
    protocol: str
    output: str
    masq: bool


class RuleRecord(msgspec.Struct, rename="pascal"):
    mode: str
    test: str
    node: str
    rules: str
    cases: list[PeerFlow]
    node_ips: list[str] = msgspec.field(name="NodeIPs")


@cache
def records() -> tuple[RuleRecord, ...]:
    if not FLOWS.exists():
        return ()
    text = gzip.decompress(FLOWS.read_bytes())
    return tuple(msgspec.json.decode(text, type=list[RuleRecord]))


def test_all_flows_are_there() -> None:
    if not records():
        pytest.skip(f"no flows of kube-proxy's tests at {FLOWS}: set KPTRACE_PEER")
    assert sum(len(record.cases) for record in records()) == COUNT


def numbered(mode: str) -> list[int]:
    return [number for number, record in enumerate(records()) if record.mode == mode]


@pytest.mark.parametrize("number", numbered("iptables"))
def test_iptables(number: int) -> None:
    record = records()[number]
    text = UNQUOTED.sub(r'--comment "\1" -j', BASE_CHAINS.sub(r":\1 ACCEPT ", record.rules))
    assert list(wrong(record, load_ruleset({"iptables-save.txt": text}))) == []


@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("number", numbered("nftables"))
def test_nftables(number: int) -> None:
    record = records()[number]
    listed = subprocess.run(
        ["unshare", "-n", "sh", "-c", "nft -f - && nft -j list ruleset"],
        input=record.rules,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    json.loads(listed)
    assert list(wrong(record, load_ruleset({"nft-ruleset.json": listed}))) == []


def wrong(record: RuleRecord, ruleset: Ruleset) -> Iterator[str]:
    snapshot = snapshot_of(record, ruleset)
    for flow in record.cases:
        result = simulate(flow, snapshot, record)
        answer = outputs(result, flow), masqueraded(result, flow)
        expected = expected_outputs(flow), flow.masq
        if answer != expected:
            yield f"{record.test} {flow.name}: {answer} instead of {expected}"


def snapshot_of(record: RuleRecord, ruleset: Ruleset) -> Snapshot:
    addresses = [(text, "eth0") for text in record.node_ips] + [("127.0.0.1", "lo")]
    everywhere = network(Family.IPV4.everything)
    return Snapshot(
        netns=NODE,
        links=(Link(index=1, name="lo", loopback=True), Link(index=2, name="eth0")),
        addresses=tuple(
            InterfaceAddress(interface=interface, address=text, length=Family.of(text).address_bits)
            for text, interface in addresses
        ),
        routes=(Route(destination=everywhere, nexthops=(Nexthop(interface="eth0"),)),),
        policy=DEFAULT_RULES[Family.IPV4] + DEFAULT_RULES[Family.IPV6],
        sysctls={"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.route_localnet": "1"},
        ruleset=ruleset,
    )


def simulate(flow: PeerFlow, snapshot: Snapshot, record: RuleRecord) -> NodeResult:
    tuple_ = Flow(
        protocol=flow.protocol, src=flow.source, dst=flow.dest, sport=40000, dport=flow.port
    )
    own = flow.source in record.node_ips or flow.source == "127.0.0.1"
    packet = Packet(flow=tuple_, flags="S" if flow.protocol == "tcp" else "")
    ingress = None if own else IngressInterface(interface="eth0")
    return simulate_node(packet, NODE, Topology(snapshots={NODE: snapshot}), ingress)


def outputs(result: NodeResult, flow: PeerFlow) -> set[str]:
    """What became of the packet: backends, ``REJECT``, ``DROP`` or nothing."""
    found = set[str]()
    for way in result.ways:
        branch = way.branch
        if branch.outcome is Outcome.DELIVERED and branch.backend is not None:
            found.add(f"{branch.backend.address}:{branch.backend.port}")
        elif branch.steps and branch.steps[-1].action == "rejected":
            found.add("REJECT")
        elif branch.steps and branch.steps[-1].action == "dropped":
            found.add("DROP")
        else:
            found.add("")
    return found


def masqueraded(result: NodeResult, flow: PeerFlow) -> bool:
    rewritten = {any(step.action == "snat" for step in way.branch.steps) for way in result.ways}
    assert len(rewritten) == 1
    return rewritten.pop()


def expected_outputs(flow: PeerFlow) -> set[str]:
    """``ACCEPT`` is a packet that a rule lets pass as it is, like one that no rule matches."""
    if flow.output == "ACCEPT":
        return {""}
    return set(flow.output.split(", "))

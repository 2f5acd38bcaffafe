"""The answer would leave by another interface than the packet came by: by sysctl and by rule."""

from __future__ import annotations

from typing import Any

import pytest

from kptrace.diagnose.checks import reverse_path
from kptrace.model import Branch, Endpoint, Flow, Netns, Outcome, Packet, SimulatedStep

A, B = Netns(node="a"), Netns(node="b")
DNATED = Flow(protocol="tcp", src="10.244.1.10", sport=40000, dst="10.244.2.20", dport=8080)
VIP = Flow(protocol="tcp", src="10.244.1.10", sport=40000, dst="10.96.1.1", dport=80)
SYN = Packet(flow=DNATED, flags="S", seq=0x4000_0000)
STRAY = {
    B: {
        "ip-route.json": '[{"dst": "10.244.1.10", "dev": "veth1", "scope": "link"}]',
        "sysctl.txt": "net.ipv4.conf.all.rp_filter = 0\nnet.ipv4.conf.flannel/1.rp_filter = 1\n",
    }
}


def only(found: Any) -> Any:
    findings = tuple(found)
    assert len(findings) == 1, findings
    assert (findings[0].cause, findings[0].severity) == ("rp-filter", "error")
    return findings[0]


@pytest.mark.parametrize(
    ("everywhere", "setting"), [("0", "net.ipv4.conf.flannel/1"), ("1", "net.ipv4.conf.all")]
)
def test_the_kernel_says_so(probe: Any, everywhere: str, setting: str) -> None:
    files = {B: {**STRAY[B], "sysctl.txt": f"net.ipv4.conf.all.rp_filter = {everywhere}\n"}}
    drop = probe.drop("b", "IP_RPFILTER", SYN, "flannel.1")
    found = only(reverse_path.diagnose(probe(7, told=[drop], files=files)))
    assert (found.node, found.object) == ("b", "rp_filter of flannel.1")
    assert "IP_RPFILTER" in found.evidence[0]
    back = "the route of b back to 10.244.1.10: 10.244.1.10 dev veth1"
    assert any(line.startswith(back) for line in found.evidence)
    assert found.remedy[1].startswith(f"sysctl -w {setting}.rp_filter=2")


def test_without_drop_reports_what_was_read_says_so(probe: Any) -> None:
    seen = SimulatedStep(netns=B, action="seen", packet=SYN, interface="flannel.1", direction="in")
    branch = Branch(
        weight=1.0,
        steps=(seen, SimulatedStep(netns=B, action="dropped", packet=SYN)),
        outcome=Outcome.DROPPED,
        cause="rp-filter",
        backend=Endpoint(address="10.244.2.20", port=8080),
    )
    found = only(reverse_path.diagnose(probe(7, files=STRAY, branch=branch)))
    assert (found.node, found.object) == ("b", "rp_filter of flannel.1")
    assert not tuple(reverse_path.diagnose(probe(5, files=STRAY, branch=branch)))


def test_a_rule_of_felix_does_it(probe: Any) -> None:
    text = """*raw
:PREROUTING ACCEPT [0:0]
:cali-PREROUTING - [0:0]
-A PREROUTING -j cali-PREROUTING
-A cali-PREROUTING -m mark --mark 0x40000/0x40000 -m rpfilter --validmark --invert -j DROP
COMMIT
"""
    hits = probe.hits(
        A,
        Packet(flow=VIP, flags="S", seq=0x4000_0000),
        ("raw", "PREROUTING", 1, "jump"),
        ("raw", "cali-PREROUTING", 1, "drop"),
    )
    case = probe(2, told=hits, files={A: {"iptables-nft-save.txt": text}}, entry=None)
    found = only(reverse_path.diagnose(case))
    assert (found.node, found.object) == ("a", "raw cali-PREROUTING 1")
    back = "the route of a back to 10.244.1.10: default via 172.30.0.1 dev eth0"
    assert any(line.startswith(back) for line in found.evidence)

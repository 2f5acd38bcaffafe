"""Probes, flows and rules that the tests of several checks start from."""

from __future__ import annotations

from collections.abc import Iterable

from kptrace.model import Finding, Flow, Netns, Packet

A, B = Netns(node="a"), Netns(node="b")
CLIENT, BACKEND = Netns(node="a", pod="shop/client"), Netns(node="b", pod="shop/web-1")
VIP = Flow(protocol="tcp", src="10.244.1.10", sport=40000, dst="10.96.1.1", dport=80)
DNATED = Flow(protocol="tcp", src="10.244.1.10", sport=40000, dst="10.244.2.20", dport=8080)
CARRIER = Flow(protocol="udp", src="172.30.0.11", sport=5555, dst="172.30.0.12", dport=8472)
SYN = Packet(flow=DNATED, flags="S", seq=0x4000_0000)
FILTER = """*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -p tcp -j ACCEPT
-A INPUT -p udp -m udp --dport 8472 -j DROP
-A FORWARD -j KUBE-SERVICES
-A FORWARD -d 10.9.9.9/32 -j DROP
-A KUBE-SERVICES -m comment --comment "shop/web has no endpoints" -j REJECT --reject-with tcp-reset
-A KUBE-SERVICES -m comment --comment "shop/web has no local endpoints" -j DROP
COMMIT
"""
NAT = """*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SEP-X - [0:0]
-A PREROUTING -j KUBE-SEP-X
-A KUBE-SEP-X -p tcp -j DNAT --to-destination 10.244.2.99:8080
COMMIT
"""


def rules(netns: Netns, text: str, backend: str = "nft") -> dict[Netns, dict[str, str]]:
    """The files of a namespace with this text of iptables-save."""
    return {netns: {f"iptables-{backend}-save.txt": text}}


def only(found: Iterable[Finding]) -> Finding:
    """The one finding, which has evidence and a remedy."""
    (finding,) = tuple(found)
    assert finding.evidence
    assert finding.remedy
    return finding

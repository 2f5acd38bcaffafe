"""Every fault of the lab, in each proxy mode and network: broken, named, healed.

The table below says by hand what a trace must come to: the node and the object that are to blame,
and which words of the kernel prove it. Where several faults look alike to the sender (all time
out), only these words can tell them apart.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest

from kptrace.lab.faults import inject
from kptrace.lab.faults.inject import Fault
from kptrace.model import Outcome, Trace
from kptrace.trace import dns_lookup

pytestmark = pytest.mark.kernel


class Proof(NamedTuple):
    """node and object of the finding; evidence: patterns, each of one line

    told: what the sender itself saw; arrives: it is the answer that is lost
    """

    node: str
    object: str
    evidence: tuple[str, ...]
    outcome: Outcome = Outcome.DROPPED
    told: str = "timeout"
    arrives: bool = False


DEAD = r"10\.244\.2\.99"
PROOFS = {
    "proxy-rules-missing": Proof(
        "node-a",
        r"shop/remote .*10\.96\.1\.2:80",
        (r"it still went to 10\.96\.1\.2:80", "the API has 1 endpoints for it, 1 of them ready"),
        Outcome.NOT_PROGRAMMED,
    ),
    "stale-dnat": Proof(
        "node-a",
        r"nat KUBE-SEP-[A-Z2-7]{16} \d|kube-proxy service-[0-9A-Z]{8}-shop/remote/tcp/http 1",
        (
            rf"rule trace on node-a: .*{DEAD}",
            rf"conntrack on node-a: .*{DEAD}:8080.*no reply seen",
            r"EndpointSlices of shop/remote hold: 10\.244\.2\.21:8080$",
        ),
    ),
    "no-endpoints": Proof(
        "node-a",
        "shop/remote",
        ("rule trace on node-a: .*verdict reject", "the sender received an ICMP error"),
        Outcome.NO_ENDPOINTS,
        "refused",
    ),
    "forward-policy-drop": Proof(
        "node-a",
        "filter FORWARD policy",
        (
            "rule trace on node-a: filter FORWARD policy, verdict drop",
            "kernel drop report on node-a: NETFILTER_DROP in .*cni0",
        ),
    ),
    "bridge-nf-off": Proof(
        "node-a",
        "net.bridge.bridge-nf-call-iptables",
        (
            "sysctl net.bridge.bridge-nf-call-iptables = 0",
            r"the answer reached the sender from 10\.244\.1\.31:8080, not from 10\.96\.1\.3:80",
        ),
        arrives=True,
    ),
    "tunnel-port-blocked": Proof(
        "node-b",
        r"filter INPUT \d",
        (
            r"rule trace on node-b: filter INPUT \d: .*--dport (8472|4789) -j DROP, verdict drop",
            "kernel drop report on node-b: NETFILTER_DROP in .*eth0",
            "last seen going in on eth0 of node-b",
        ),
    ),
    "ip-forward-off": Proof(
        "node-a",
        r"net\.ipv4\.ip_forward",
        (
            r"sysctl net\.ipv4\.ip_forward = 0",
            "kernel drop report on node-a: IP_INADDRERRORS in ip_error.*(cni0|caliaa50613ef2d)",
            "last seen going in on (cni0|caliaa50613ef2d) of node-a",
        ),
    ),
    "fdb-stale": Proof(
        "node-a",
        r"FDB entry of (flannel\.1|vxlan\.calico) for 02:00:00:00:00:02",
        (r"172\.30\.0\.99", r"last seen going out on \S+ of node-a|left eth0 of node-a"),
    ),
    "fdb-missing": Proof(
        "node-a",
        r"FDB entry of (flannel\.1|vxlan\.calico) for 02:00:00:00:00:02",
        (
            r"kernel drop report on node-a: NO_TX_TARGET in vxlan_xmit.*(flannel\.1|vxlan\.calico)",
            "has no entry for 02:00:00:00:00:02",
        ),
    ),
    "pod-route-missing": Proof(
        "node-a",
        r"10\.244\.2\.0/24",
        (
            r"it left eth0 of node-a without encapsulation, for 10\.244\.2\.21:8080",
            r"conntrack on node-a: .*10\.244\.2\.21:8080.*no reply seen",
        ),
    ),
    "no-listener": Proof(
        "node-b",
        "shop/remote-1 port 8080",
        ("TCP RST seen leaving eth0 of pod shop/remote-1", "NO_SOCKET in tcp_v4_rcv"),
        Outcome.REFUSED,
        "refused",
    ),
    "policy-deny-ingress": Proof(
        "node-b",
        "^NetworkPolicy shop/remote-closed, tier default$",
        (
            r"rule trace on node-b: filter cali-tw-cali8dac270f675 \d+: .*-j DROP, verdict drop",
            r"policies see 10\.244\.1\.10:\d+ > 10\.244\.2\.21:8080",
            "the only policy in direction ingress .*: NetworkPolicy shop/remote-closed",
            "kernel drop report on node-b: NETFILTER_DROP",
        ),
    ),
    "policy-deny-egress": Proof(
        "node-a",
        r"Policy shop/(client-quarantine, tier security|default\.client-quarantine, tier default)$",
        (
            r"rule trace on node-a: filter cali-po-_\S{19} \d: .*-j DROP, verdict drop",
            r"policies see 10\.244\.1\.10:\d+ > 10\.244\.2\.21:8080",
            "last seen going in on caliaa50613ef2d of node-a",
        ),
    ),
    "rp-filter": Proof(
        "node-b",
        r"rp_filter of (flannel\.1|vxlan\.calico|eth0)",
        (
            "kernel drop report on node-b: IP_RPFILTER",
            r"the route of node-b back to 10\.244\.1\.10: 10\.244\.1\.10 dev (cni0|cali)",
            r"sysctl net\.ipv4\.conf\.(flannel/1|vxlan/calico|eth0)\.rp_filter = 1 on node-b",
        ),
    ),
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many faults lose the DNS question too; its time is another test's matter."""
    monkeypatch.setattr(dns_lookup, "ASK_SECONDS", 0.15)


@pytest.mark.parametrize("name", PROOFS)
def test_named_and_healed(each_bench: Any, name: str) -> None:
    fault = inject.find(name)
    with each_bench.broken(name):
        made = each_bench.trace(fault.target, "pod/client", fault.namespace, timeout=0.4)
    proof = PROOFS[name]
    it_is_named(made, fault, proof)
    nothing_was_made_up(made, proof)
    healed = each_bench.trace(fault.target, "pod/client", fault.namespace)
    assert (healed.outcome, healed.findings) == (Outcome.DELIVERED, ())


def it_is_named(made: Trace, fault: Fault, proof: Proof) -> None:
    finding = made.findings[0]
    assert (finding.cause, finding.severity) == (fault.cause or fault.name, "error")
    assert finding.node == proof.node == fault.node
    assert re.search(proof.object, finding.object)
    for pattern in proof.evidence:
        assert any(re.search(pattern, line) for line in finding.evidence), finding.evidence
    assert finding.summary
    assert finding.remedy
    assert made.outcome is proof.outcome
    # what is lost with it (the question to DNS) is no second error
    assert [other.severity for other in made.findings[1:] if other.severity == "error"] == []


def nothing_was_made_up(made: Trace, proof: Proof) -> None:
    """The sender's own experience, and taps that watched the whole time."""
    (returned,) = made.evidence.probe_results
    assert returned.result == proof.told
    assert [layer for layer in made.evidence.sources if layer.lost or layer.unavailable] == []
    assert made.hops[0].action == "sent"
    assert any(hop.action == "delivered" for hop in made.hops) == proof.arrives


def test_two_faults_at_once_name_the_one_that_the_packet_meets(vxlan_bench: Any) -> None:
    """The route is asked before the tunnel: nothing reaches the port that is blocked too."""
    with vxlan_bench.broken("tunnel-port-blocked"), vxlan_bench.broken("pod-route-missing"):
        made = vxlan_bench.trace("svc/remote", "pod/client", timeout=0.4)
        assert made.findings[0].cause == "pod-route-missing"


def test_a_fault_elsewhere_is_not_named(vxlan_bench: Any) -> None:
    with vxlan_bench.broken("tunnel-port-blocked"):
        # By its pod, not by its name: half of the DNS servers are behind the tunnel.
        made = vxlan_bench.trace("pod/near-1", "pod/client", timeout=0.4)
    assert made.outcome is Outcome.DELIVERED
    assert made.findings == ()

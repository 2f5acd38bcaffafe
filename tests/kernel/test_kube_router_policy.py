"""kube-router's policies as k3s has them on Flannel: chains of a real node, on the lab's node-b.

The rules are those of a k3s node (v1.30), of which only addresses and names are the lab's; the
kernel's rule trace must tell which one rejected the probe, and the report which policy that is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kptrace.lab import host_commands
from kptrace.model import Outcome

pytestmark = [pytest.mark.kernel, pytest.mark.row(proxy="iptables", network="vxlan")]

FIREWALL, POLICY = "KUBE-POD-FW-24CAQJ4LYSAY3PHB", "KUBE-NWPLCY-5VLCZNPWIAXAL2HB"
POD = "POD name:remote-1 namespace: shop"


def why(text: str) -> str:
    return f'-m comment --comment "{text}"'


def rules(admitted: str) -> str:
    unmarked = "-m mark ! --mark 0x10000/0x10000"
    return f"""*filter
:KUBE-ROUTER-FORWARD - [0:0]
:{FIREWALL} - [0:0]
:{POLICY} - [0:0]
-I FORWARD 1 {why("kube-router netpol - TEMCG2JMHZYE7H7T")} -j KUBE-ROUTER-FORWARD
-A KUBE-ROUTER-FORWARD -d 10.244.2.21/32 {why(f"rule to jump traffic destined to {POD}")} \
-j {FIREWALL}
-A {FIREWALL} {why("rule for stateful firewall for pod")} -m conntrack \
--ctstate RELATED,ESTABLISHED -j ACCEPT
-A {FIREWALL} {why("rule to drop invalid state for pod")} -m conntrack --ctstate INVALID -j DROP
-A {FIREWALL} -d 10.244.2.21/32 {why("run through nw policy only-metrics")} -j {POLICY}
-A {FIREWALL} {why(f"rule to log dropped traffic {POD}")} {unmarked} -m limit --limit 10/min \
--limit-burst 10 -j NFLOG --nflog-group 100
-A {FIREWALL} {why(f"rule to REJECT traffic destined for {POD}")} {unmarked} -j REJECT \
--reject-with icmp-port-unreachable
-A {FIREWALL} -j MARK --set-xmark 0x0/0x10000
-A {POLICY} -s {admitted} -p tcp -m tcp --dport 8080 -j MARK --set-xmark 0x10000/0x10000
-A {POLICY} -m mark --mark 0x10000/0x10000 -j RETURN
COMMIT
"""


@contextmanager
def enforced(bench: Any, admitted: str) -> Iterator[None]:
    netns = bench.lab.plan.node("node-b").netns
    host_commands.run(("iptables-nft-restore", "--noflush"), rules(admitted), netns)
    bench.renew()
    try:
        yield
    finally:
        host_commands.run(("iptables-nft", "-D", "FORWARD", "1"), netns=netns)
        undo = f"*filter\n:KUBE-ROUTER-FORWARD -\n:{FIREWALL} -\n:{POLICY} -\n"
        undo += f"-X KUBE-ROUTER-FORWARD\n-X {FIREWALL}\n-X {POLICY}\nCOMMIT\n"
        host_commands.run(("iptables-nft-restore", "--noflush"), undo, netns)
        bench.renew()


def test_whom_it_admits_passes(vxlan_bench: Any) -> None:
    with enforced(vxlan_bench, "10.244.1.10/32"):
        made = vxlan_bench.trace("svc/remote", "pod/client")
    assert (made.outcome, made.findings) == (Outcome.DELIVERED, ())


def test_whom_it_does_not_admit_is_rejected_and_told_by_which_policy(vxlan_bench: Any) -> None:
    with enforced(vxlan_bench, "10.244.1.31/32"):
        made = vxlan_bench.trace("svc/remote", "pod/client")
    assert made.outcome is Outcome.REJECTED
    found = made.findings[0]
    assert (found.cause, found.node) == ("policy-drop", "node-b")
    assert found.object == "NetworkPolicy shop/only-metrics"
    assert "does not admit 8080/TCP that pod shop/remote-1 receives" in found.summary
    assert any(f"rule trace on node-b: filter {FIREWALL} 5" in line for line in found.evidence)
    assert found.remedy[0].startswith("kubectl get networkpolicy only-metrics -n shop -o yaml")
    (ended,) = (hop for hop in made.hops if hop.action == "rejected")
    assert (ended.node, ended.rule.chain, ended.rule.number) == ("node-b", FIREWALL, 5)

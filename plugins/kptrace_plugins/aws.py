"""AWS VPC CNI: pods have addresses of the VPC, rules choose the interface (ENI) by source.

``ip rule`` 512 sends what is for a pod to the main table, 1536 (older: 1024, 1025) what is from
one to the table of its ENI (amazon-vpc-cni-k8s, docs/cni-proposal.md).
"""

from __future__ import annotations

from collections.abc import Mapping

from kptrace.plugins.registry import DetectedCni
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace_plugins import signs

name = "aws"

PRIORITIES = (512, 1536)
LIMITS = (
    "between nodes the VPC routes: its route tables, security groups and network ACLs are not seen",
    "NetworkPolicies are BPF programs of its agent on eni* (`/var/log/aws-routed-eni/"
    "network-policy-agent.log` on the node)",
)


def wants() -> tuple[str, ...]:
    return ()


def detect(node: Snapshot, files: Mapping[str, str]) -> DetectedCni | None:
    pods = signs.links(node, "eni*", "aws*")
    rules = [rule for rule in node.policy if rule.priority in PRIORITIES]
    if not pods:
        return None
    chain = "" if rules else signs.chain(node, "nat AWS-SNAT-CHAIN-0", "nat AWS-CONNMARK-CHAIN-0")
    if not rules and not chain:
        return None
    signal = f"devices {signs.named(pods)}, " + (rules[0].text if rules else f"chain {chain}")
    return DetectedCni(name="AWS VPC CNI", sure=0.9, signal=signal, limits=LIMITS)

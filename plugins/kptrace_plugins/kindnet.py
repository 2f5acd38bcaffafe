"""kindnet, of kind: a veth a pod, routes via the nodes' addresses, its own masquerading.

Since 2024 it enforces NetworkPolicies too: new connections of the pods that a policy selects are
queued to a program of its own (kube-network-policies, table ``kindnet-network-policies``).
"""

from __future__ import annotations

from collections.abc import Mapping

from kptrace.plugins.registry import DetectedCni
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace_plugins import signs

name = "kindnet"

LIMITS = (
    "NetworkPolicies are decided by kindnet itself in user space (NFQUEUE): a packet that it drops "
    "is last seen where it was queued, and its log names the policy",
)


def wants() -> tuple[str, ...]:
    return ()


def detect(node: Snapshot, files: Mapping[str, str]) -> DetectedCni | None:
    table = signs.nft_table(node, "kindnet*")
    chain = "" if table else signs.chain(node, "nat KIND-MASQ-AGENT")
    if not chain and not table:
        return None
    signal = f"table {table}" if table else f"chain {chain}"
    return DetectedCni(name="kindnet", sure=0.9, signal=signal, limits=LIMITS)

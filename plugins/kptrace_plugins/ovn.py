"""OVN-Kubernetes: recognised, not walked: Open vSwitch decides, by OVN's logical flows."""

from __future__ import annotations

from collections.abc import Mapping

from kptrace.plugins.registry import DetectedCni
from kptrace.simulate.bpf.programs import BpfDatapath
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace_plugins import signs

name = "ovn-kubernetes"

LIMITS = (
    "OVN's load balancers translate Services and its ACLs enforce policies inside Open vSwitch: "
    "packets are seen at pods, ovn-k8s-mp0, the tunnel and the node's device, not the flows",
    "`ovnkube-trace` and `ovs-appctl ofproto/trace br-int` tell the flows",
)


def wants() -> tuple[str, ...]:
    return ()


def detect(node: Snapshot, files: Mapping[str, str]) -> DetectedCni | None:
    management = signs.links(node, "ovn-k8s-mp*")
    if not management:
        return None
    return DetectedCni(
        name="OVN-Kubernetes",
        sure=1.0,
        signal=f"device {management[0].name}",
        proxy="ovn",
        limits=LIMITS,
        programs=BpfDatapath(
            owner="Open vSwitch", frontends=None, taken=("ovn-k8s-mp*", "ovs-system")
        ),
    )

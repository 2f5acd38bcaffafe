"""Antrea: recognised, not walked: Open vSwitch decides where its pods' packets go."""

from __future__ import annotations

from collections.abc import Mapping

from kptrace.plugins.registry import DetectedCni
from kptrace.simulate.bpf.programs import BpfDatapath
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace_plugins import signs

name = "antrea"

LIMITS = (
    "Open vSwitch translates Services, enforces policies and chooses the tunnel: packets are seen "
    "at pods, antrea-gw0, the tunnel and the node's device, not the flows that moved them",
    "`antctl trace-packet` and `ovs-appctl ofproto/trace br-int` tell the flows",
)


def wants() -> tuple[str, ...]:
    return ()


def detect(node: Snapshot, files: Mapping[str, str]) -> DetectedCni | None:
    gateway = signs.links(node, "antrea-gw0")
    if not gateway:
        return None
    return DetectedCni(
        name="Antrea",
        sure=1.0,
        signal="device antrea-gw0",
        limits=LIMITS,
        programs=BpfDatapath(owner="Open vSwitch", taken=("antrea-gw0", "ovs-system")),
    )

"""The bridge plugin of containernetworking alone: a bridge, and nothing between nodes."""

from __future__ import annotations

from collections.abc import Mapping

from kptrace.plugins.registry import DetectedCni
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace_plugins import signs

name = "bridge"


def wants() -> tuple[str, ...]:
    return ()


def detect(node: Snapshot, files: Mapping[str, str]) -> DetectedCni | None:
    for link in signs.links(node, "cni0", "cbr0"):
        if link.kind == "bridge":
            return DetectedCni(name="bridge plugin", sure=0.3, signal=f"bridge {link.name}")
    return None

"""Canal: Flannel carries the packets, Calico's Felix enforces policies on ``cali*`` devices."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from kptrace.plugins.registry import DetectedCni
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace_plugins import flannel, signs

name = "canal"


def wants() -> tuple[str, ...]:
    return ()


def detect(node: Snapshot, files: Mapping[str, str]) -> DetectedCni | None:
    pods = signs.links(node, "cali*")
    carrier = flannel.detect(node, files) if pods else None
    if carrier is None:
        return None
    return msgspec.structs.replace(
        carrier,
        name=carrier.name.replace("Flannel", "Canal: Calico's policies on Flannel"),
        sure=0.95,
        signal=f"{carrier.signal} and devices {signs.named(pods)}",
    )

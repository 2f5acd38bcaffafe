"""Calico in eBPF mode: recognised by its pinned maps or its own veth pair, not walked.

Services are translated by programs at connect() and on the devices, from maps that kptrace does
not read. Its chains mark forwarded packets NOTRACK, so conntrack knows nothing of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from kptrace.plugins.registry import DetectedCni
from kptrace.simulate.bpf.programs import BpfDatapath
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace_plugins import signs

name = "calico-ebpf"

PINS = "bpf-pins.txt"
MAP = "cali_v4_nat_fe"
LIMITS = (
    "Services are translated by Calico's BPF programs: which backend they choose, and why, is "
    "seen only from the packets",
    "conntrack knows nothing of forwarded packets (NOTRACK)",
    "a packet may pass from device to device without the node's rules and routes",
)


def wants() -> tuple[str, ...]:
    return (PINS,)


def detect(node: Snapshot, files: Mapping[str, str]) -> DetectedCni | None:
    pins = [line for line in files.get(PINS, "").splitlines() if f"/{MAP}" in line]
    pair = signs.links(node, "bpfin.cali", "bpfout.cali")
    if not pins and not pair:
        return None
    return DetectedCni(
        name="Calico (eBPF)",
        sure=1.0,
        signal=f"pinned map {pins[0]}" if pins else f"device {pair[0].name}",
        proxy="calico-ebpf",
        limits=LIMITS,
        programs=BpfDatapath(
            owner="Calico", frontends=None, taken=("cali*",), silent=("cali*", "bpf*.cali")
        ),
    )

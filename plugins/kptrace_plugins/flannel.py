"""Flannel: one device a backend, or routes alone (v0.28: pkg/backend/*, pkg/trafficmngr/*)."""

from __future__ import annotations

from collections.abc import Mapping

from kptrace.plugins.registry import DetectedCni
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace_plugins import signs

name = "flannel"

CHAINS = ("filter FLANNEL-FWD", "nat FLANNEL-POSTRTG")
TABLES = ("flannel-ipv4", "flannel-ipv6")
# device, kind where it matters, how people call the backend, what cannot be told there
BACKENDS = (
    ("flannel.ipip", "ipip", "Flannel (IPIP)", ()),
    (
        "flannel-wg*",
        "",
        "Flannel (WireGuard)",
        ("packets between nodes are encrypted: the device is seen, not what is on the wire",),
    ),
    (
        "flannel0",
        "tun",
        "Flannel (UDP)",
        ("flanneld carries packets in user space: the device is seen, not what is on the wire",),
    ),
    ("flannel*.*", "vxlan", "Flannel (VXLAN)", ()),
)


def wants() -> tuple[str, ...]:
    return ()


def detect(node: Snapshot, files: Mapping[str, str]) -> DetectedCni | None:
    for pattern, kind, called, limits in BACKENDS:
        links = [link for link in signs.links(node, pattern) if kind in ("", link.kind)]
        if links:
            signal = f"device {links[0].name}"
            return DetectedCni(name=called, sure=0.9, signal=signal, limits=limits)
    chain = signs.chain(node, *CHAINS) or signs.nft_table(node, *TABLES)
    if chain and signs.links(node, "cni0"):
        signal = f"{chain} and bridge cni0, no tunnel"
        return DetectedCni(name="Flannel (host-gw)", sure=0.8, signal=signal)
    if chain:
        return DetectedCni(name="Flannel", sure=0.5, signal=f"{chain}; no device tells the backend")
    return None

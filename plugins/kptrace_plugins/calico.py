"""Calico with kernel rules (iptables, nftables): IPIP, VXLAN, WireGuard or none.

A pod's device is ``cali`` and 11 hex digits, with one MAC for all. The node's own block is a
blackhole route, of BIRD or (newer) of Felix, which numbers its routes 80. ``tunl0`` alone proves
nothing: the module makes it, DOWN, in every namespace (Flannel's IPIP has it too).
"""

from __future__ import annotations

from collections.abc import Mapping

from kptrace.model.family import Family
from kptrace.plugins.registry import DetectedCni
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace_plugins import signs

name = "calico"

WRITERS = ("bird", "12", "80")
MAC = "ee:ee:ee:ee:ee:ee"
ENCRYPTED = "packets between nodes are encrypted: the device is seen, not what is on the wire"


def wants() -> tuple[str, ...]:
    return ()


def detect(node: Snapshot, files: Mapping[str, str]) -> DetectedCni | None:
    pods = signs.links(node, "cali*")
    for tunnel in signs.links(node, "wireguard.cali", "wg-v6.cali"):
        if tunnel.up:
            signal = f"device {tunnel.name}"
            return _calico("WireGuard", 0.95, signal, (ENCRYPTED,))
    for tunnel in signs.links(node, "vxlan.calico", "vxlan-v6.calico"):
        if tunnel.up:
            return _calico(_crossing("VXLAN", node), 0.9, f"device {tunnel.name} is up")
    if _ipip(node) and (pods or signs.routes(node, *WRITERS, device="tunl0")):
        return _calico(_crossing("IPIP", node), 0.9, "tunl0 is up and has an address")
    blocks = signs.routes(node, *WRITERS, type="blackhole")
    if any(link.mac == MAC for link in pods) and blocks:
        signal = f"devices {signs.named(pods)}, route {blocks[0].text}, no tunnel"
        return _calico("direct", 0.8, signal)
    if pods:
        return _calico("", 0.6, f"devices {signs.named(pods)}")
    return None


def _calico(mode: str, sure: float, signal: str, limits: tuple[str, ...] = ()) -> DetectedCni:
    called = f"Calico ({mode})" if mode else "Calico"
    return DetectedCni(name=called, sure=sure, signal=signal, limits=limits)


def _ipip(node: Snapshot) -> bool:
    tunnel = node.link("tunl0")
    return tunnel is not None and tunnel.up and bool(node.on("tunl0", Family.IPV4))


def _crossing(mode: str, node: Snapshot) -> str:
    """Add CrossSubnet to the mode where blocks of other nodes are reached without the tunnel."""
    direct = [
        route
        for route in signs.routes(node, *WRITERS, type="unicast")
        for hop in route.nexthops
        # IPv6 pools have modes of their own, mostly without a tunnel
        if hop.gateway and ":" not in hop.gateway and not _is_tunnel(node, hop.interface)
    ]
    return f"{mode}, CrossSubnet" if direct else mode


def _is_tunnel(node: Snapshot, device: str) -> bool:
    link = node.link(device)
    return link is not None and link.tunnel

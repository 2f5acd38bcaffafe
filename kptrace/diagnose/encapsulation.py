"""The encapsulation in words: what carries the probe, who decided where to, and how much fits.

In: the sighting on the tunnel device and that of the packet which carries it. Out: clauses, the
first of which is enough: ``VXLAN 1, 172.30.0.11 > 172.30.0.12:8472``; then what chose the remote
node (FDB, the route's gateway, the device itself, a BPF program) and what the tunnel leaves of the
underlay's MTU.

What WireGuard carries is not visible between its devices, so nothing is said of that.

A VXLAN device sends to where the FDB has the frame's destination MAC, which the neighbour table
gave for the route's gateway; an IPIP device without a remote of its own sends to the gateway. One
in ``external`` mode (Cilium) takes what the program wrote beside the packet.
"""

from __future__ import annotations

from collections.abc import Iterator

from kptrace.diagnose.probe_evidence import ProbeEvidence
from kptrace.model import CapturedPacket, Packet, Tunnel
from kptrace.simulate.ip.routing import RouteQuery, lookup
from kptrace.simulate.snapshot.network import Link
from kptrace.simulate.snapshot.snapshot import Snapshot

CLAUSE = "; "
# devices behind which nobody knows the probe again: what goes on the wire is another packet
OPAQUE = {
    "wireguard": "WireGuard: encrypted from here on, the inside is not visible on the wire",
    "tun": "handed to a program in user space: what that sends is not visible",
}
_TAKEN_OFF = {"wireguard": "decrypted by WireGuard", "tun": "from a program in user space"}


def opaque(evidence: ProbeEvidence, sighting: CapturedPacket) -> str:
    """What is to be said of a device that hides the probe; empty: it does not."""
    link = evidence.link(sighting.netns, sighting.interface)
    texts_by_name = OPAQUE if sighting.direction == "out" else _TAKEN_OFF
    return texts_by_name.get(link.kind, "") if link and not sighting.netns.pod else ""


def carried(evidence: ProbeEvidence, before: CapturedPacket, after: CapturedPacket) -> str:
    return CLAUSE.join(_clauses(evidence, before, after))


def _clauses(
    evidence: ProbeEvidence, before: CapturedPacket, after: CapturedPacket
) -> Iterator[str]:
    tunnel = after.packet.tunnel
    assert tunnel is not None
    yield _named(tunnel, after.packet)
    snapshot = evidence.snapshots.get(after.netns)
    device = snapshot.link(before.interface) if snapshot else None
    if snapshot is None or device is None or before.netns != after.netns:
        return
    yield from _decided(snapshot, device, before, after)
    yield from _room(device, snapshot.link(after.interface), after.packet)


def _named(tunnel: Tunnel, packet: Packet) -> str:
    vni = f" {tunnel.vni}" if tunnel.vni is not None else ""
    port = f":{packet.flow.dport}" if packet.flow.dport else ""
    return f"{tunnel.kind.upper()}{vni}, {packet.flow.src} > {packet.flow.dst}{port}"


# --- where to -----------------------------------------------------------------------------------


def _decided(
    snapshot: Snapshot, device: Link, before: CapturedPacket, after: CapturedPacket
) -> Iterator[str]:
    remote = after.packet.flow.dst
    gateway = _gateway(snapshot, device, before.packet)
    if device.ipip is not None:
        if device.ipip.remote:
            yield f"{device.name} has the one remote {device.ipip.remote}"
        elif gateway == remote:
            yield f"to the route's gateway {gateway}"
    for tunnel_ in (device.geneve, device.gre):
        if tunnel_ is not None and tunnel_.external:
            yield f"the program that sent it chose {remote}"
        elif tunnel_ is not None and tunnel_.remote == remote:
            yield f"{device.name} has the one remote {remote}"
    if device.vxlan is None:
        return
    known = {entry.destination for entry in snapshot.tunnel_entries(device.name, before.dst_mac)}
    if before.dst_mac and remote in known:
        whose = f"{gateway} is {before.dst_mac}, which" if gateway else before.dst_mac
        yield f"{whose} the FDB has at {remote}"
    elif device.vxlan.external:
        yield f"the program that sent it chose {remote}"
    elif device.vxlan.remote == remote:
        yield f"{device.name} has the one remote {remote}"


def _gateway(snapshot: Snapshot, device: Link, packet: Packet) -> str:
    """Of the route by which the packet came to the device."""
    result = lookup(snapshot, RouteQuery(flow=packet.innermost.flow, mark=None))
    hops = (hop for hop in result.nexthops if hop.interface == device.name)
    return next((hop.gateway for hop in hops if hop.gateway), "")


# --- how much fits ------------------------------------------------------------------------------


def _room(device: Link, under: Link | None, packet: Packet) -> Iterator[str]:
    overhead = _overhead(device, packet)
    if under is None or not overhead:
        return
    left = under.mtu - overhead
    fits = f"{under.name} {under.mtu} less {overhead}"
    if device.mtu <= left:
        spare = f", {left - device.mtu} to spare" if device.mtu < left else ""
        yield f"packets of {device.mtu} bytes fit ({fits}{spare})"
    else:
        takes = f"{device.name} takes {device.mtu}"
        yield f"packets over {left} bytes do not fit ({fits}), though {takes}"


def _overhead(device: Link, packet: Packet) -> int:
    """What the packets' own lengths say, which counts Geneve's options; else the device's."""
    inner = packet.inner
    if packet.length and inner is not None and inner.length:
        return packet.length - inner.length
    return device.overhead(ipv6=packet.flow.ipv6)

"""Encapsulation and decapsulation: VXLAN and IPIP; the others: geneve_gre.py, wireguard.py.

A VXLAN device needs two entries to send: the neighbour's link address (``ip neigh``) and where
that address lives (``bridge fdb``, else the device's own remote). The outer packet is a new packet
of this node: it passes OUTPUT and POSTROUTING and is routed on its own. At the far end it passes
PREROUTING and INPUT, the device with that port and VNI takes it, and the inner packet comes in by
this device, as if from a wire (vxlan_core.c, ip_tunnel_core.c).

The outer packet inherits the mark (skb_scrub_packet clears it only between namespaces), which is
why kube-proxy takes its mark off again before it masquerades.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from kptrace.model import CauseId, Flow, Outcome, Packet, Tunnel
from kptrace.model.family import Family
from kptrace.simulate.ip.skb import Skb
from kptrace.simulate.simulation import Simulation
from kptrace.simulate.snapshot.network import Link, Vxlan
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace.simulate.stages import Arrived, Local, Output, Receive, Stage
from kptrace.simulate.tunnels import wireguard
from kptrace.simulate.tunnels.geneve_gre import (
    OuterHeader,
    geneve_device,
    geneve_header,
    gre_device,
    gre_header,
    unknown_remote,
)


def encapsulate(simulation: Simulation, skb: Skb, link: Link) -> Stage:
    """Wrap a packet as the tunnel device does; return the stage that sends the outer packet."""
    outer = _header_builder(link)(simulation, skb, link)
    inner = msgspec.structs.replace(skb.packet, mark=0)
    inherits = outer.mark is None
    mark = skb.mark if outer.mark is None else outer.mark
    packet = Packet(flow=outer.flow, mark=mark, tunnel=outer.kind, inner=inner)
    unknown = skb.unknown_mark if inherits else set()
    sent = Skb(netns=skb.netns, packet=packet, inner_mac=outer.mac, unknown=unknown)
    simulation.add_step(
        "encap", sent, link.name, description=f"{outer.kind.kind} to {outer.flow.dst}"
    )
    return Output(sent)


def _header_builder(link: Link) -> Callable[[Simulation, Skb, Link], OuterHeader]:
    if link.vxlan is not None:
        return _vxlan_header
    if link.ipip is not None:
        return _ipip_header
    if link.geneve is not None:
        return geneve_header
    return gre_header if link.gre is not None else wireguard.outer_header


def _vxlan_header(simulation: Simulation, skb: Skb, link: Link) -> OuterHeader:
    own = link.vxlan
    assert own is not None
    mac = _remote_mac(simulation, skb, link, own)
    simulation.add_step("seen", skb, link.name, "out")
    remote = _remote_address(simulation, skb, link, own, mac)
    flow = Flow(protocol="udp", src=own.local, dst=remote, sport=0, dport=own.port)
    return OuterHeader(Tunnel(kind="vxlan", vni=own.vni), flow, mac)


def _ipip_header(simulation: Simulation, skb: Skb, link: Link) -> OuterHeader:
    own = link.ipip
    assert own is not None
    simulation.add_step("seen", skb, link.name, "out")
    remote = own.remote or (skb.hop.gateway if skb.hop else "") or skb.flow.dst
    return OuterHeader(Tunnel(kind="ipip"), Flow(protocol="ipip", src=own.local, dst=remote))


def _remote_mac(simulation: Simulation, skb: Skb, link: Link, vxlan: Vxlan) -> str:
    """Return the link address of the next hop behind the tunnel."""
    next_hop = (skb.hop.gateway if skb.hop else "") or skb.flow.dst
    entry = simulation.at(skb).neighbour(link.name, next_hop)
    if entry and entry.mac:
        simulation.add_step(
            "neighbour", skb, link.name, description=f"{next_hop} is at {entry.mac}"
        )
        return entry.mac
    if vxlan.learning or vxlan.external:
        home = simulation.topology.home(next_hop)
        held = simulation.topology.snapshots[home].holds(next_hop) if home else None
        far = simulation.topology.snapshots[home].link(held.interface) if home and held else None
        if far is not None:  # it asks over the tunnel, and the far end answers
            return far.mac
    description = f"{link.name} has no link address for {next_hop} and does not ask for it"
    object_name = f"{skb.netns.node}: {next_hop} dev {link.name}"
    raise simulation.end(
        skb, Outcome.DROPPED, CauseId.VTEP_NEIGHBOUR_MISSING, object_name, description, link.name
    )


def _remote_address(simulation: Simulation, skb: Skb, link: Link, vxlan: Vxlan, mac: str) -> str:
    """Return where the FDB says the link address is; checked against the nodes that were read."""
    entries = simulation.at(skb).tunnel_entries(link.name, mac)
    remote = entries[0].destination if entries else vxlan.remote
    object_name = f"{skb.netns.node}: {mac} dev {link.name}"
    if not remote:
        description = f"{link.name} does not know at which node {mac} is"
        raise simulation.end(
            skb, Outcome.DROPPED, CauseId.FDB_MISSING, object_name, description, link.name
        )
    home = simulation.topology.home(remote)
    if home is None and _target_node_is_known(simulation, skb):
        description = f"{link.name} sends {mac} to {remote}, which is no node's address"
        raise simulation.end(
            skb, Outcome.DROPPED, CauseId.FDB_STALE, f"{object_name} dst {remote}", description
        )
    return remote


def _target_node_is_known(simulation: Simulation, skb: Skb) -> bool:
    """Whether the node behind the tunnel was read, so that its addresses are known."""
    topology, dst = simulation.topology, skb.flow.dst
    pod = topology.pod_at(dst)
    nodes = {netns.node for netns in topology.snapshots if not netns.pod}
    home = topology.home(dst)
    return (home is not None and home.node in nodes) or (pod is not None and pod.node in nodes)


def deliver(simulation: Simulation, stage: Local) -> Stage | Arrived:
    """Deliver a packet for this node itself: to a tunnel device or a socket."""
    skb = stage.skb
    if skb.packet.tunnel is None or skb.packet.inner is None:
        return Arrived(skb, skb.netns)
    kind = skb.packet.tunnel.kind
    link = _RECEIVING_DEVICE[kind](simulation.at(skb), skb.packet)
    if (
        link is None
        and kind == "wireguard"
        and (untold := wireguard.device_without_peers(simulation.at(skb)))
    ):
        raise unknown_remote(simulation, skb, untold, "whose port nobody told (`wg show`)")
    if link is None or not link.up:
        what = (
            f"{link.name} is down"
            if link
            else _no_device_description(simulation.at(skb), skb.packet)
        )
        object_name = f"{skb.netns.node}: {link.name if link else _tunnel_description(skb.packet)}"
        cause = CauseId.LINK_DOWN if link else CauseId.TUNNEL_DEVICE_MISSING
        raise simulation.end(skb, Outcome.DROPPED, cause, object_name, what)
    # inside one namespace the mark stays with the packet (skb_scrub_packet), but not decrypted
    keeps = kind != "wireguard"
    inner = msgspec.structs.replace(skb.packet.inner, mark=skb.mark if keeps else 0)
    unknown = skb.unknown_mark if keeps else set()
    taken = Skb(netns=skb.netns, packet=inner, mac=skb.inner_mac, unknown=unknown)
    simulation.add_step(
        "decap",
        taken,
        link.name,
        description=f"{_tunnel_description(skb.packet)} from {skb.flow.src}",
    )
    if link.wireguard is not None:
        wireguard.check_source(simulation, taken, link)
    return Receive(taken, link)


def _ipip_device(snapshot: Snapshot, packet: Packet) -> Link | None:
    devices = [link for link in snapshot.links if link.ipip is not None]
    matching = [link for link in devices if link.ipip and link.ipip.remote in ("", packet.flow.src)]
    exact = [link for link in matching if link.ipip and link.ipip.remote]
    return next(iter(exact or [link for link in matching if link.up] or matching), None)


def _vxlan_device(snapshot: Snapshot, packet: Packet) -> Link | None:
    """Return the device whose socket has the port: one for each family (vxlan_open)."""
    port, vni = packet.flow.dport, packet.tunnel.vni if packet.tunnel else None
    for link in snapshot.links:
        vxlan = link.vxlan
        if vxlan is None or vxlan.port != port or not (vxlan.external or vni in (None, vxlan.vni)):
            continue
        own = vxlan.local or vxlan.remote
        if not own or Family.of(own) is packet.flow.family:
            return link
    return None


def _no_device_description(snapshot: Snapshot, packet: Packet) -> str:
    """``no device takes VXLAN 1 on port 8472 (flannel.1 takes VXLAN 1 on port 4789)``"""
    tunnel, port = packet.tunnel, packet.flow.dport
    assert tunnel is not None
    others = [
        f"{link.name} takes VXLAN {link.vxlan.vni} on port {link.vxlan.port}"
        for link in snapshot.links
        if link.vxlan is not None and tunnel.kind == "vxlan"
        if (link.vxlan.vni, link.vxlan.port) != (tunnel.vni, port)
    ]
    return f"no device takes {_tunnel_description(packet)}" + (
        f" ({'; '.join(others)})" if others else ""
    )


def _tunnel_description(packet: Packet) -> str:
    assert packet.tunnel is not None
    kind, vni, port = packet.tunnel.kind, packet.tunnel.vni, packet.flow.dport
    if kind == "ipip":
        return "IP in IP"
    if kind == "gre":
        return f"GRE with key {vni}" if vni is not None else "GRE"
    if kind == "wireguard":
        return f"WireGuard on port {port}"
    return f"{kind.upper()} {vni} on port {port}"


_RECEIVING_DEVICE: dict[str, Callable[[Snapshot, Packet], Link | None]] = {
    "vxlan": _vxlan_device,
    "ipip": _ipip_device,
    "geneve": geneve_device,
    "gre": gre_device,
    "wireguard": wireguard.receiving_device,
}

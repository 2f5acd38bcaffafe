"""Tunnels: VXLAN and IP in IP, into them and out again.

A VXLAN device needs two entries to send: the neighbour's link address (``ip neigh``) and where
that address lives (``bridge fdb``, else the device's own remote). The outer packet is a new packet
of this node: it passes OUTPUT and POSTROUTING and is routed on its own. At the far end it passes
PREROUTING and INPUT, the device with that port and VNI takes it, and the inner packet comes in by
this device, as if from a wire (vxlan_core.c, ip_tunnel_core.c).

The outer packet inherits the mark (skb_scrub_packet clears it only between namespaces), which is
why kube-proxy takes its mark off again before it masquerades.
"""

from __future__ import annotations

import msgspec

from kptrace.model import Flow, Outcome, Packet, Tunnel
from kptrace.walk.network import Link, Vxlan
from kptrace.walk.skb import Skb
from kptrace.walk.snapshot import Snapshot
from kptrace.walk.stages import Arrived, Local, Output, Receive, Stage
from kptrace.walk.story import Story


def encapsulate(story: Story, skb: Skb, link: Link) -> Stage:
    if link.vxlan is not None:
        mac = _far_end(story, skb, link, link.vxlan)
        story.note("seen", skb, link.name, "out")
        remote = _remote(story, skb, link, link.vxlan, mac)
        kind = Tunnel(kind="vxlan", vni=link.vxlan.vni)
        flow = Flow(
            protocol="udp", src=link.vxlan.local, dst=remote, sport=0, dport=link.vxlan.port
        )
    else:
        assert link.ipip is not None
        mac = ""
        story.note("seen", skb, link.name, "out")
        remote = link.ipip.remote or (skb.hop.gateway if skb.hop else "") or skb.flow.dst
        kind = Tunnel(kind="ipip")
        flow = Flow(protocol="ipip", src=link.ipip.local, dst=remote)
    inner = msgspec.structs.replace(skb.packet, mark=0)
    outer = Packet(flow=flow, mark=skb.mark, tunnel=kind, inner=inner)
    sent = Skb(place=skb.place, packet=outer, inner_mac=mac, unknown=skb.unknown_mark)
    story.note("encap", sent, link.name, words=f"{kind.kind} to {remote}")
    return Output(sent)


def _far_end(story: Story, skb: Skb, link: Link, vxlan: Vxlan) -> str:
    """The link address of the next hop behind the tunnel."""
    wanted = (skb.hop.gateway if skb.hop else "") or skb.flow.dst
    entry = story.at(skb).neighbour(link.name, wanted)
    if entry and entry.mac:
        story.note("neighbour", skb, link.name, words=f"{wanted} is at {entry.mac}")
        return entry.mac
    if vxlan.learning or vxlan.external:
        home = story.world.home(wanted)
        held = story.world.snapshots[home].holds(wanted) if home else None
        far = story.world.snapshots[home].link(held.interface) if home and held else None
        if far is not None:  # it asks over the tunnel, and the far end answers
            return far.mac
    words = f"{link.name} has no link address for {wanted} and does not ask for it"
    blame = f"{skb.place.node}: {wanted} dev {link.name}"
    raise story.end(skb, Outcome.DROPPED, "vtep-neighbour-missing", blame, words, link.name)


def _remote(story: Story, skb: Skb, link: Link, vxlan: Vxlan, mac: str) -> str:
    """Where the FDB says the link address is; checked against the nodes that we know."""
    entries = story.at(skb).tunnel_entries(link.name, mac)
    remote = entries[0].destination if entries else vxlan.remote
    blame = f"{skb.place.node}: {mac} dev {link.name}"
    if not remote:
        words = f"{link.name} does not know at which node {mac} is"
        raise story.end(skb, Outcome.DROPPED, "fdb-missing", blame, words, link.name)
    home = story.world.home(remote)
    if home is None and _knows_target(story, skb):
        words = f"{link.name} sends {mac} to {remote}, which is no node's address"
        raise story.end(skb, Outcome.DROPPED, "fdb-stale", f"{blame} dst {remote}", words)
    return remote


def _knows_target(story: Story, skb: Skb) -> bool:
    """Whether the node behind the tunnel was looked at, so that its addresses are known."""
    world, dst = story.world, skb.flow.dst
    pod = world.pod_at(dst)
    nodes = {place.node for place in world.snapshots if not place.pod}
    home = world.home(dst)
    return (home is not None and home.node in nodes) or (pod is not None and pod.node in nodes)


def deliver(story: Story, stage: Local) -> Stage | Arrived:
    """A packet for this node itself: a tunnel takes it, or a socket."""
    skb = stage.skb
    if skb.packet.tunnel is None or skb.packet.inner is None:
        return Arrived(skb, skb.place)
    link = _taking(story.at(skb), skb.packet)
    if link is None or not link.up:
        what = f"{link.name} is down" if link else _nobody_takes(story.at(skb), skb.packet)
        blame = f"{skb.place.node}: {link.name if link else _named(skb.packet)}"
        cause = "link-down" if link else "tunnel-device-missing"
        raise story.end(skb, Outcome.DROPPED, cause, blame, what)
    # inside one namespace the mark stays with the packet (skb_scrub_packet)
    inner = msgspec.structs.replace(skb.packet.inner, mark=skb.mark)
    unknown = skb.unknown_mark
    taken = Skb(place=skb.place, packet=inner, mac=skb.inner_mac, unknown=unknown)
    story.note("decap", taken, link.name, words=f"{_named(skb.packet)} from {skb.flow.src}")
    return Receive(taken, link)


def _taking(snapshot: Snapshot, packet: Packet) -> Link | None:
    tunnel = packet.tunnel
    assert tunnel is not None
    if tunnel.kind == "vxlan":
        return _device(snapshot, packet.flow.dport, tunnel.vni, 6 if packet.flow.ipv6 else 4)
    found = [link for link in snapshot.links if link.ipip is not None]
    near = [one for one in found if one.ipip and one.ipip.remote in ("", packet.flow.src)]
    exact = [one for one in near if one.ipip and one.ipip.remote]
    return next(iter(exact or [one for one in near if one.up] or near), None)


def _device(snapshot: Snapshot, port: int, vni: int | None, family: int) -> Link | None:
    """The device whose socket has the port: one for each family (vxlan_open)."""
    for link in snapshot.links:
        vxlan = link.vxlan
        if vxlan is None or vxlan.port != port or not (vxlan.external or vni in (None, vxlan.vni)):
            continue
        own = vxlan.local or vxlan.remote
        if not own or (":" in own) == (family == 6):
            return link
    return None


def _nobody_takes(snapshot: Snapshot, packet: Packet) -> str:
    """``no device takes VXLAN 1 on port 8472 (flannel.1 takes VXLAN 1 on port 4789)``"""
    tunnel, port = packet.tunnel, packet.flow.dport
    assert tunnel is not None
    others = [
        f"{link.name} takes VXLAN {link.vxlan.vni} on port {link.vxlan.port}"
        for link in snapshot.links
        if link.vxlan is not None and tunnel.kind == "vxlan"
        if (link.vxlan.vni, link.vxlan.port) != (tunnel.vni, port)
    ]
    return f"no device takes {_named(packet)}" + (f" ({'; '.join(others)})" if others else "")


def _named(packet: Packet) -> str:
    assert packet.tunnel is not None
    if packet.tunnel.kind == "ipip":
        return "IP in IP"
    return f"{packet.tunnel.kind.upper()} {packet.tunnel.vni} on port {packet.flow.dport}"

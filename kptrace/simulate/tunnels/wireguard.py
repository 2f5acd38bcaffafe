"""WireGuard: which peer gets a packet, and which device takes it off again.

The peer is the one whose allowed IPs have the packet's destination by the longest prefix; without
one, or without an endpoint, the kernel refuses the packet and tells its sender so (wg_xmit). The
outer packet goes from the port that the device listens on to the peer's endpoint, with the device's
own mark; what it carries is encrypted. At the far end the source must be among the allowed IPs of
the peer that sent it (receive.c, allowedips.c).
"""

from __future__ import annotations

from kptrace.model import CauseId, Flow, Outcome, Packet, Tunnel
from kptrace.simulate.ip.skb import Skb
from kptrace.simulate.simulation import Simulation
from kptrace.simulate.snapshot.network import Link
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace.simulate.tunnels.geneve_gre import OuterHeader, unknown_remote

CAUSE = CauseId.WIREGUARD_PEER_MISSING


def outer_header(simulation: Simulation, skb: Skb, link: Link) -> OuterHeader:
    """Return the outer header to the peer that has the destination. Raises Terminated
    without one.
    """
    own = link.wireguard
    simulation.add_step("seen", skb, link.name, "out")
    if own is None:
        raise unknown_remote(simulation, skb, link, "whose peers nobody told (`wg show`)")
    dst = skb.flow.dst
    peer = own.peer_of(dst)
    object_name = f"{skb.netns.node}: {link.name}"
    if peer is None:
        description = f"no peer of {link.name} has {dst} among its allowed IPs"
        raise simulation.end(skb, Outcome.REJECTED, CAUSE, object_name, description, link.name)
    if peer.endpoint is None:
        description = f"{link.name} has no endpoint for the peer that has {dst}"
        raise simulation.end(
            skb, Outcome.REJECTED, CAUSE, f"{object_name} peer {peer.key}", description, link.name
        )
    address, port = peer.endpoint
    flow = Flow(protocol="udp", src="", dst=address, sport=own.port, dport=port)
    return OuterHeader(Tunnel(kind="wireguard"), flow, mark=own.mark)


def receiving_device(snapshot: Snapshot, packet: Packet) -> Link | None:
    """Return the device that listens on the packet's port."""
    for link in snapshot.links:
        if link.wireguard is not None and link.wireguard.port == packet.flow.dport:
            return link
    return None


def check_source(simulation: Simulation, skb: Skb, link: Link) -> None:
    """Raise where no peer has the source of ``skb``, the packet that was decrypted."""
    own, src = link.wireguard, skb.flow.src
    if own is not None and own.peer_of(src) is None:
        description = f"no peer of {link.name} has the source {src} among its allowed IPs"
        object_name = f"{skb.netns.node}: {link.name}"
        raise simulation.end(skb, Outcome.DROPPED, CAUSE, object_name, description, link.name)


def device_without_peers(snapshot: Snapshot) -> Link | None:
    """Return a WireGuard device whose port and peers are not known (``wg show`` was not read)."""
    return next((x for x in snapshot.links if x.kind == "wireguard" and x.wireguard is None), None)

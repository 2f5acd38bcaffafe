"""Tunnels whose device has one remote: Geneve and GRE.

Where the device itself says where its packets go (``ip link add ... remote``), they are predicted;
where a program or Open vSwitch writes that beside each packet (``external``: OVN, Antrea, Cilium),
or a GRE device has many ends, they cannot be. Geneve and gretap carry Ethernet frames, so the next
hop's link address is asked for over the tunnel; GRE carries IP packets (geneve.c, ip_gre.c).
"""

from __future__ import annotations

from typing import NamedTuple

from kptrace.model import Flow, NoteKind, Outcome, Packet, Tunnel
from kptrace.simulate.ip.skb import Skb
from kptrace.simulate.simulation import Simulation
from kptrace.simulate.snapshot.network import Geneve, Gre, Link
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace.simulate.stages import Terminated


class OuterHeader(NamedTuple):
    """How a packet is encapsulated.

    mac: of the frame that is carried
    mark: None: that of the packet that is carried
    """

    kind: Tunnel
    flow: Flow
    mac: str = ""
    mark: int | None = None


def geneve_header(simulation: Simulation, skb: Skb, link: Link) -> OuterHeader:
    """Return the outer header that a Geneve device adds. Raises Terminated if its remote is
    unknown.
    """
    own = link.geneve
    assert own is not None
    _check_remote(simulation, skb, link, own)
    mac = _next_hop(simulation, skb, link)
    simulation.add_step("seen", skb, link.name, "out")
    flow = Flow(protocol="udp", src="", dst=own.remote, dport=own.port)
    return OuterHeader(Tunnel(kind="geneve", vni=own.vni), flow, mac)


def gre_header(simulation: Simulation, skb: Skb, link: Link) -> OuterHeader:
    """Return the outer header that a GRE device adds. Raises Terminated if its remote is
    unknown.
    """
    own = link.gre
    assert own is not None
    _check_remote(simulation, skb, link, own)
    mac = _next_hop(simulation, skb, link) if own.framed else ""
    simulation.add_step("seen", skb, link.name, "out")
    flow = Flow(protocol="gre", src=own.local, dst=own.remote)
    return OuterHeader(Tunnel(kind="gre", vni=own.key_out), flow, mac)


def geneve_device(snapshot: Snapshot, packet: Packet) -> Link | None:
    """Return the device of this port and VNI and, if it has one, this remote (geneve_lookup)."""
    for link in snapshot.links:
        own = link.geneve
        if own is None or own.port != packet.flow.dport:
            continue
        fits = packet.tunnel is not None and own.vni == packet.tunnel.vni
        if own.external or (fits and own.remote == packet.flow.src):
            return link
    return None


def gre_device(snapshot: Snapshot, packet: Packet) -> Link | None:
    """Return the closest of the devices that fit: with both ends, with one, with none.

    As ip_tunnel_lookup does.
    """
    flow, key = packet.flow, packet.tunnel.vni if packet.tunnel else None
    near = [
        link
        for link in snapshot.links
        if (own := link.gre)
        and own.remote in ("", flow.src)
        and own.local in ("", flow.dst)
        and (own.external or own.key_in == key)
        and (link.up or own.remote)
    ]
    return max(near, key=_ends, default=None)


def _ends(link: Link) -> int:
    assert link.gre is not None
    return 2 * bool(link.gre.remote) + bool(link.gre.local)


def _check_remote(simulation: Simulation, skb: Skb, link: Link, own: Geneve | Gre) -> None:
    if own.external:
        why = "which is told by a program, packet by packet, where to send it (external)"
    elif not own.remote:
        why = "which has many ends"
    else:
        return
    raise unknown_remote(simulation, skb, link, why)


def unknown_remote(simulation: Simulation, skb: Skb, link: Link, why: str) -> Terminated:
    """Return the inconclusive end of a packet whose tunnel's remote is not known."""
    description = (
        f"it leaves by {link.name}, a {link.kind} device, {why}: the far end is not known here"
    )
    return simulation.end(skb, Outcome.INCONCLUSIVE, None, link.name, description)


def _next_hop(simulation: Simulation, skb: Skb, link: Link) -> str:
    """Return the link address, known or asked for over the tunnel; empty: not known."""
    next_hop = (skb.hop.gateway if skb.hop else "") or skb.flow.dst
    entry = simulation.at(skb).neighbour(link.name, next_hop)
    home = simulation.topology.home(next_hop)
    snapshot = simulation.topology.snapshots[home] if home else None
    far_address = snapshot.holds(next_hop) if snapshot else None
    far_link = snapshot.link(far_address.interface) if snapshot and far_address else None
    mac = entry.mac if entry and entry.mac else far_link.mac if far_link else ""
    if not mac:
        simulation.choices.certain = False
        simulation.add_note(
            NoteKind.NEIGHBOUR_UNKNOWN,
            f"who answers for {next_hop} behind {link.name} is not known",
        )
        return ""
    simulation.add_step("neighbour", skb, link.name, description=f"{next_hop} is at {mac}")
    return mac

"""Devices whose packets a BPF program takes: where the packet goes, the program decides.

What programs decide is not read here, so nothing after it is certain. But where a network has one
usual path (``BpfDatapath.tunnel``), that is simulated: to a pod of this node by its own device, to
a pod of another node by the tunnel device, whose program names the remote node itself (the tunnel's
key is metadata, no FDB entry). Else the simulation ends and says at which device.
"""

from __future__ import annotations

import msgspec

from kptrace.model import Flow, Netns, NoteKind, Outcome, Packet, Tunnel
from kptrace.model.family import Family
from kptrace.simulate.bpf.programs import BpfDatapath
from kptrace.simulate.ip.skb import Skb
from kptrace.simulate.simulation import Simulation
from kptrace.simulate.snapshot.network import Link
from kptrace.simulate.stages import Cross, Output, Stage


def bpf_egress(simulation: Simulation, skb: Skb, link: Link, programs: BpfDatapath) -> Stage:
    """Take a packet that the routes send out of a device with a program; return the next stage.

    Raises Terminated (inconclusive) where the program's choice cannot be told.
    """
    _mark_uncertain(simulation, programs, link)
    home = simulation.topology.home(skb.flow.dst)
    pod = simulation.topology.pod_at(skb.flow.dst)
    node = home.node if home else pod.node if pod else ""
    if node == skb.netns.node:
        port = _pod_device(simulation, skb, home)
        if port is not None:
            return Cross(skb, port)
    remote = _node_address(simulation, node)
    tunnel = simulation.at(skb).link(programs.tunnel)
    if node and node != skb.netns.node and remote and tunnel and tunnel.vxlan:
        return _encapsulate(simulation, skb, tunnel, remote)
    raise _unknown_destination(simulation, skb, link, programs)


def bpf_ingress(simulation: Simulation, skb: Skb, link: Link, programs: BpfDatapath) -> Exception:
    """Return the end of a packet that comes in by a device with a program: inconclusive."""
    _mark_uncertain(simulation, programs, link)
    return _unknown_destination(simulation, skb, link, programs)


def _mark_uncertain(simulation: Simulation, programs: BpfDatapath, link: Link) -> None:
    simulation.choices.certain = False
    simulation.add_note(
        NoteKind.BPF_NOT_READ,
        f"{programs.owner}'s programs take it at {link.name}; what they decide is not read",
    )


def _unknown_destination(
    simulation: Simulation, skb: Skb, link: Link, programs: BpfDatapath
) -> Exception:
    description = f"where {programs.owner} sends what it takes at {link.name} is not known"
    return simulation.end(skb, Outcome.INCONCLUSIVE, None, link.name, description)


def _pod_device(simulation: Simulation, skb: Skb, home: Netns | None) -> Link | None:
    """Return the node's end of the veth that leads to the namespace ``home``."""
    for link in simulation.at(skb).links:
        far = simulation.topology.peer(skb.netns, link) if home else None
        if far is not None and far[0] == home and home.pod:
            return link
    return None


def _node_address(simulation: Simulation, node: str) -> str:
    """Return the node's IPv4 address on the device of its default route; empty if not known."""
    snapshot = simulation.topology.snapshot(Netns(node=node))
    routes = snapshot.table("main", Family.IPV4) if snapshot else ()
    for route in routes:
        if snapshot and route.default and route.nexthops:
            held = snapshot.on(route.nexthops[0].interface, Family.IPV4)
            return held[0].address if held else ""
    return ""


def _encapsulate(simulation: Simulation, skb: Skb, tunnel: Link, remote: str) -> Stage:
    assert tunnel.vxlan is not None
    simulation.add_step("seen", skb, tunnel.name, "out")
    flow = Flow(protocol="udp", src=tunnel.vxlan.local, dst=remote, dport=tunnel.vxlan.port)
    inner = msgspec.structs.replace(skb.packet, mark=0)
    outer = Packet(flow=flow, mark=skb.mark, tunnel=Tunnel(kind="vxlan"), inner=inner)
    sent = Skb(netns=skb.netns, packet=outer, unknown=skb.unknown_mark)
    simulation.add_step(
        "encap", sent, tunnel.name, description=f"vxlan to {remote}, as the program says"
    )
    return Output(sent)

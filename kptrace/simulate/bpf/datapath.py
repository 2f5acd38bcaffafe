"""Handed over: a BPF program takes what comes to a device, and where it goes the program says.

What programs decide is not read here, so nothing after it is certain. But where a network has one
usual way (``BpfDatapath.tunnel``), that is walked: to a pod of this node by its own device, to one
of another node by the tunnel device, whose program names the remote node itself (the tunnel's key
is metadata, no FDB entry). Else the walk ends, and says at which device.
"""

from __future__ import annotations

import msgspec

from kptrace.model import Flow, Netns, Outcome, Packet, Tunnel
from kptrace.simulate.bpf.programs import BpfDatapath
from kptrace.simulate.ip.skb import Skb
from kptrace.simulate.simulation import Simulation
from kptrace.simulate.snapshot.network import Link
from kptrace.simulate.stages import Cross, Output, Stage


def bpf_egress(story: Simulation, skb: Skb, link: Link, programs: BpfDatapath) -> Stage:
    """What the routes send out of such a device."""
    _doubt(story, programs, link)
    home = story.world.home(skb.flow.dst)
    pod = story.world.pod_at(skb.flow.dst)
    node = home.node if home else pod.node if pod else ""
    if node == skb.place.node:
        port = _port(story, skb, home)
        if port is not None:
            return Cross(skb, port)
    remote = _address(story, node)
    tunnel = story.at(skb).link(programs.tunnel)
    if node and node != skb.place.node and remote and tunnel and tunnel.vxlan:
        return _encapsulated(story, skb, tunnel, remote)
    raise _lost(story, skb, link, programs)


def bpf_ingress(story: Simulation, skb: Skb, link: Link, programs: BpfDatapath) -> Exception:
    """What comes in by such a device."""
    _doubt(story, programs, link)
    return _lost(story, skb, link, programs)


def _doubt(story: Simulation, programs: BpfDatapath, link: Link) -> None:
    story.choices.certain = False
    story.remark(
        f"{programs.owner}'s programs take it at {link.name}; what they decide is not read"
    )


def _lost(story: Simulation, skb: Skb, link: Link, programs: BpfDatapath) -> Exception:
    words = f"where {programs.owner} sends what it takes at {link.name} is not known"
    return story.end(skb, Outcome.INCONCLUSIVE, None, link.name, words)


def _port(story: Simulation, skb: Skb, home: Netns | None) -> Link | None:
    """The node's end of the pod's veth."""
    for link in story.at(skb).links:
        far = story.world.peer(skb.place, link) if home else None
        if far is not None and far[0] == home and home.pod:
            return link
    return None


def _address(story: Simulation, node: str) -> str:
    """The node's own, on the device that leads outside."""
    snapshot = story.world.snapshot(Netns(node=node))
    routes = snapshot.table("main", 4) if snapshot else ()
    for route in routes:
        if snapshot and route.default and route.nexthops:
            held = snapshot.on(route.nexthops[0].interface, 4)
            return held[0].address if held else ""
    return ""


def _encapsulated(story: Simulation, skb: Skb, tunnel: Link, remote: str) -> Stage:
    assert tunnel.vxlan is not None
    story.note("seen", skb, tunnel.name, "out")
    flow = Flow(protocol="udp", src=tunnel.vxlan.local, dst=remote, dport=tunnel.vxlan.port)
    inner = msgspec.structs.replace(skb.packet, mark=0)
    outer = Packet(flow=flow, mark=skb.mark, tunnel=Tunnel(kind="vxlan"), inner=inner)
    sent = Skb(place=skb.place, packet=outer, unknown=skb.unknown_mark)
    story.note("encap", sent, tunnel.name, words=f"vxlan to {remote}, as the program says")
    return Output(sent)

"""Devices: how a packet leaves a namespace and comes into the next one.

``transmit``: from the IP layer to a device, with the neighbour entry that this needs. ``cross``:
over a veth or the wire to the other end. ``receive``: what the device there does with it.

An entry that somebody set (PERMANENT) is taken as it is. Any other one the kernel checks itself
(STALE, DELAY) or asks for anew (FAILED), so whoever answers on the link is asked first.
"""

from __future__ import annotations

import msgspec

from kptrace.model import CauseId, Netns, Outcome
from kptrace.simulate.bpf.datapath import bpf_egress, bpf_ingress
from kptrace.simulate.ip.skb import Skb
from kptrace.simulate.simulation import Simulation
from kptrace.simulate.snapshot.network import Link
from kptrace.simulate.stages import Arrived, Cross, Frame, Input, Receive, Stage, Transmit
from kptrace.simulate.topology import Port
from kptrace.simulate.tunnels.vxlan_ipip import encapsulate


def transmit(story: Simulation, stage: Transmit) -> Stage | Arrived:
    skb, link = stage.skb, stage.link
    _check_up(story, skb, link)
    programs = story.at(skb).programs
    if programs is not None and programs.takes(link.name):
        return bpf_egress(story, skb, link, programs)
    if link.kind in _UNKNOWN_TUNNELS:
        words = f"it leaves by {link.name}, a {link.kind} device, whose far end is not known here"
        raise story.end(skb, Outcome.INCONCLUSIVE, None, link.name, words)
    if link.tunnel:
        return encapsulate(story, skb, link)
    if link.kind == "bridge":
        resolve(story, skb, link)
        story.note("seen", skb, link.name, "out")
        return Frame(skb, link)
    resolve(story, skb, link)
    return Cross(skb, link)


_UNKNOWN_TUNNELS = frozenset({"tun", "erspan", "ip6erspan"})


def cross(story: Simulation, stage: Cross) -> Stage | Arrived:
    skb, link = stage.skb, stage.link
    _check_up(story, skb, link)
    story.note("seen", skb, link.name, "out")
    port = story.world.peer(skb.place, link)
    if port is None and not skb.place.pod and (link.master or skb.unseen):
        return hand_over(story, skb, link)
    port = port or _on_the_wire(story, skb, link)
    if port is None:
        return leave_known_topology(story, skb, link)
    place, end = port
    # a veth scrubs what the kernel kept beside the packet: mark and connection
    packet = msgspec.structs.replace(skb.packet, mark=0)
    passed = Skb(place=place, packet=packet, mac=skb.mac, inner_mac=skb.inner_mac, dscp=skb.dscp)
    return Receive(passed, end)


def receive(story: Simulation, stage: Receive) -> Stage | Arrived:
    skb, link = stage.skb, stage.link
    if not link.up:
        words = f"{link.name} is down"
        raise story.end(skb, Outcome.DROPPED, CauseId.LINK_DOWN, link.name, words, link.name)
    story.note("seen", skb, link.name, "in")
    programs = story.at(skb).programs
    if programs is not None and (programs.takes(link.name) or programs.takes(link.master)):
        raise bpf_ingress(story, skb, link, programs)
    master = story.at(skb).link(link.master) if link.master else None
    if master is not None and master.kind == "bridge":
        return Frame(skb, master, link)
    skb.iif = master.name if master else link.name
    if skb.mac and link.mac and skb.mac != link.mac and not link.noarp:
        words = f"the frame is for {skb.mac}, but {link.name} has {link.mac}"
        raise story.end(skb, Outcome.DROPPED, CauseId.NEIGHBOUR_STALE, link.name, words, link.name)
    return Input(skb)


def resolve(story: Simulation, skb: Skb, link: Link) -> None:
    """Set the frame's destination: the neighbour entry, or whoever would answer for it."""
    snapshot = story.at(skb)
    wanted = (skb.hop.gateway if skb.hop else "") or skb.flow.dst
    entry = snapshot.neighbour(link.name, wanted)
    if _leads_to_unseen(story, skb, link, wanted):
        skb.unseen, skb.mac = True, entry.mac if entry else ""
        return
    skb.toward = story.world.answering(skb.place, link, wanted)
    if link.noarp:
        return
    if entry and entry.mac and entry.permanent:
        skb.mac = entry.mac
    elif skb.toward:
        skb.mac = skb.toward[1].mac
    elif entry and entry.mac:
        skb.mac = entry.mac
    else:
        _unresolved(story, skb, link, wanted, failed=entry is not None)
        return
    story.note("neighbour", skb, link.name, words=f"{wanted} is at {skb.mac}")


def _leads_to_unseen(story: Simulation, skb: Skb, link: Link, wanted: str) -> bool:
    """A device of a pod's own (Calico) whose other end is in a namespace that was not looked at."""
    pod = story.world.pod_at(wanted)
    alone = link.kind == "veth" and not link.master and not skb.place.pod
    if pod is None or not alone or story.world.peer(skb.place, link) is not None:
        return False
    here = pod.node == skb.place.node
    return here and Netns(node=pod.node, pod=pod.pod) not in story.world.snapshots


def _unresolved(story: Simulation, skb: Skb, link: Link, wanted: str, failed: bool) -> None:
    """Nobody whom we know answers. On the wire and for pods not looked at, that proves nothing."""
    skb.mac = ""
    pod = story.world.pod_at(wanted)
    if pod is not None and Netns(node=pod.node, pod=pod.pod) not in story.world.snapshots:
        skb.unseen = True
        return
    outwards = link.kind != "bridge" and story.world.peer(skb.place, link) is None
    if outwards and not failed:
        return
    stale = skb.translated or _was_translated(story)
    cause = CauseId.STALE_DNAT if stale and wanted == skb.flow.dst else CauseId.NEIGHBOUR_FAILED
    words = f"nobody on {link.name} has {wanted}"
    blame = f"{skb.place.node}: {wanted} dev {link.name}"
    if not (story.world.endpoints or story.world.on_link(skb.place, link)):
        raise story.end(skb, Outcome.INCONCLUSIVE, cause, blame, words, link.name)
    raise story.end(skb, Outcome.DROPPED, cause, blame, words, link.name)


def _was_translated(story: Simulation) -> bool:
    return any(step.action == "dnat" for step in story.steps) and not story.replying


def _on_the_wire(story: Simulation, skb: Skb, link: Link) -> Port | None:
    """The node that takes the frame: the next hop, else, behind routers nobody looked at, the one
    that has the packet's destination.
    """
    if skb.toward:
        return skb.toward
    home = story.world.home(skb.flow.dst)
    snapshot = story.world.snapshot(home) if home and not home.pod else None
    if home is None or home == skb.place or snapshot is None:
        return None
    held = snapshot.holds(skb.flow.dst)
    end = snapshot.link(held.interface) if held else None
    wired = end is not None and not end.tunnel and end.kind != "bridge"
    if end is None or not wired:
        return None
    skb.mac = end.mac
    return home, end


def hand_over(story: Simulation, skb: Skb, link: Link) -> Arrived:
    """Handed to a pod whose own namespace is in no snapshot."""
    pod = story.world.pod_at(skb.flow.dst)
    name = pod.pod if pod and pod.pod else skb.flow.dst
    story.note_missing(unseen_pod(skb.place.node, name))
    place = Netns(node=skb.place.node, pod=name)
    skb.iif = link.name
    return Arrived(skb, place, unseen=True)


def unseen_pod(node: str, name: str) -> str:
    """What a prediction lacks there."""
    return f"{node}: the namespace of {name}"


def leave_known_topology(story: Simulation, skb: Skb, link: Link) -> Arrived:
    """It leaves what was looked at. What that means depends on whose address it is for."""
    world, dst = story.world, skb.packet.flow.dst
    asker = world.home(story.asked.src)
    at_large = asker is None or not asker.pod  # a pod whose node we know is reached by that alone
    if at_large and story.replying and not skb.packet.tunnel and skb.flow.dst == story.asked.src:
        return Arrived(skb, None, unseen=True)
    if skb.packet.tunnel:
        words = f"the tunnel's packet leaves for {dst}, which was not looked at"
        raise story.end(skb, Outcome.INCONCLUSIVE, None, dst, words)
    if skb.place.pod and Netns(node=skb.place.node) not in world.snapshots:
        words = f"it leaves the pod by {link.name} for its node, which was not looked at"
        raise story.end(skb, Outcome.INCONCLUSIVE, None, dst, words)
    route = f"{skb.place.node}: {_route_words(story)}"
    if dst == story.asked.dst and not story.replying and world.is_service(dst):
        if story.at(skb).unbound(skb.flow):
            words = f"IPVS has {dst}, but the node has not: it leaves by {link.name} as it is"
            raise story.end(
                skb, Outcome.NOT_PROGRAMMED, CauseId.IPVS_ADDRESS_MISSING, dst, words, link.name
            )
        words = f"no rule translated {dst}; it leaves by {link.name} as it is"
        raise story.end(
            skb, Outcome.NOT_PROGRAMMED, CauseId.PROXY_RULES_MISSING, dst, words, link.name
        )
    pod = world.pod_at(dst)
    home = world.home(dst)
    if (home and home != skb.place) or (pod and Netns(node=pod.node) in world.snapshots):
        words = f"{dst} leaves by {link.name}, where nobody known forwards it to its node"
        story.choices.certain = False
        raise story.end(skb, Outcome.DROPPED, CauseId.POD_ROUTE_MISSING, route, words, link.name)
    if pod is None and world.endpoints and _was_translated(story):
        words = f"no endpoint has {dst}"
        raise story.end(skb, Outcome.DROPPED, CauseId.STALE_DNAT, dst, words, link.name)
    where = f" on {pod.node}" if pod and pod.node else ""
    words = f"it leaves by {link.name} for {dst}{where}, which was not looked at"
    raise story.end(skb, Outcome.INCONCLUSIVE, None, dst, words)


def _route_words(story: Simulation) -> str:
    routes = [step.description for step in story.steps if step.action == "route"]
    return routes[-1] if routes else ""


def _check_up(story: Simulation, skb: Skb, link: Link) -> None:
    if link.up and link.carrier:
        return
    words = f"{link.name} {'has no carrier' if link.up else 'is down'}"
    raise story.end(skb, Outcome.DROPPED, CauseId.LINK_DOWN, link.name, words, link.name)

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


def transmit(simulation: Simulation, stage: Transmit) -> Stage | Arrived:
    skb, link = stage.skb, stage.link
    _check_up(simulation, skb, link)
    programs = simulation.at(skb).programs
    if programs is not None and programs.takes(link.name):
        return bpf_egress(simulation, skb, link, programs)
    if link.kind in _UNKNOWN_TUNNELS:
        description = (
            f"it leaves by {link.name}, a {link.kind} device, whose far end is not known here"
        )
        raise simulation.end(skb, Outcome.INCONCLUSIVE, None, link.name, description)
    if link.tunnel:
        return encapsulate(simulation, skb, link)
    if link.kind == "bridge":
        resolve(simulation, skb, link)
        simulation.add_step("seen", skb, link.name, "out")
        return Frame(skb, link)
    resolve(simulation, skb, link)
    return Cross(skb, link)


_UNKNOWN_TUNNELS = frozenset({"tun", "erspan", "ip6erspan"})


def cross(simulation: Simulation, stage: Cross) -> Stage | Arrived:
    skb, link = stage.skb, stage.link
    _check_up(simulation, skb, link)
    simulation.add_step("seen", skb, link.name, "out")
    port = simulation.topology.peer(skb.netns, link)
    if port is None and not skb.netns.pod and (link.master or skb.unseen):
        return deliver_to_unseen_pod(simulation, skb, link)
    port = port or _on_the_wire(simulation, skb, link)
    if port is None:
        return leave_known_topology(simulation, skb, link)
    netns, end = port
    # a veth scrubs what the kernel kept beside the packet: mark and connection
    packet = msgspec.structs.replace(skb.packet, mark=0)
    passed = Skb(netns=netns, packet=packet, mac=skb.mac, inner_mac=skb.inner_mac, dscp=skb.dscp)
    return Receive(passed, end)


def receive(simulation: Simulation, stage: Receive) -> Stage | Arrived:
    skb, link = stage.skb, stage.link
    if not link.up:
        description = f"{link.name} is down"
        raise simulation.end(
            skb, Outcome.DROPPED, CauseId.LINK_DOWN, link.name, description, link.name
        )
    simulation.add_step("seen", skb, link.name, "in")
    programs = simulation.at(skb).programs
    if programs is not None and (programs.takes(link.name) or programs.takes(link.master)):
        raise bpf_ingress(simulation, skb, link, programs)
    master = simulation.at(skb).link(link.master) if link.master else None
    if master is not None and master.kind == "bridge":
        return Frame(skb, master, link)
    skb.iif = master.name if master else link.name
    if skb.mac and link.mac and skb.mac != link.mac and not link.noarp:
        description = f"the frame is for {skb.mac}, but {link.name} has {link.mac}"
        raise simulation.end(
            skb, Outcome.DROPPED, CauseId.NEIGHBOUR_STALE, link.name, description, link.name
        )
    return Input(skb)


def resolve(simulation: Simulation, skb: Skb, link: Link) -> None:
    """Set the frame's destination: the neighbour entry, or whoever would answer for it."""
    snapshot = simulation.at(skb)
    next_hop = (skb.hop.gateway if skb.hop else "") or skb.flow.dst
    entry = snapshot.neighbour(link.name, next_hop)
    if _leads_to_unseen(simulation, skb, link, next_hop):
        skb.unseen, skb.mac = True, entry.mac if entry else ""
        return
    skb.toward = simulation.topology.answering(skb.netns, link, next_hop)
    if link.noarp:
        return
    if entry and entry.mac and entry.permanent:
        skb.mac = entry.mac
    elif skb.toward:
        skb.mac = skb.toward[1].mac
    elif entry and entry.mac:
        skb.mac = entry.mac
    else:
        _unresolved(simulation, skb, link, next_hop, failed=entry is not None)
        return
    simulation.add_step("neighbour", skb, link.name, description=f"{next_hop} is at {skb.mac}")


def _leads_to_unseen(simulation: Simulation, skb: Skb, link: Link, next_hop: str) -> bool:
    """A device of a pod's own (Calico) whose other end is in a namespace that was not looked at."""
    pod = simulation.topology.pod_at(next_hop)
    alone = link.kind == "veth" and not link.master and not skb.netns.pod
    if pod is None or not alone or simulation.topology.peer(skb.netns, link) is not None:
        return False
    here = pod.node == skb.netns.node
    return here and Netns(node=pod.node, pod=pod.pod) not in simulation.topology.snapshots


def _unresolved(simulation: Simulation, skb: Skb, link: Link, next_hop: str, failed: bool) -> None:
    """Nobody whom we know answers. On the wire and for pods not looked at, that proves nothing."""
    skb.mac = ""
    pod = simulation.topology.pod_at(next_hop)
    if pod is not None and Netns(node=pod.node, pod=pod.pod) not in simulation.topology.snapshots:
        skb.unseen = True
        return
    outwards = link.kind != "bridge" and simulation.topology.peer(skb.netns, link) is None
    if outwards and not failed:
        return
    stale = skb.translated or _was_translated(simulation)
    cause = CauseId.STALE_DNAT if stale and next_hop == skb.flow.dst else CauseId.NEIGHBOUR_FAILED
    description = f"nobody on {link.name} has {next_hop}"
    object_name = f"{skb.netns.node}: {next_hop} dev {link.name}"
    if not (simulation.topology.endpoints or simulation.topology.on_link(skb.netns, link)):
        raise simulation.end(skb, Outcome.INCONCLUSIVE, cause, object_name, description, link.name)
    raise simulation.end(skb, Outcome.DROPPED, cause, object_name, description, link.name)


def _was_translated(simulation: Simulation) -> bool:
    return any(step.action == "dnat" for step in simulation.steps) and not simulation.replying


def _on_the_wire(simulation: Simulation, skb: Skb, link: Link) -> Port | None:
    """The node that takes the frame: the next hop, else, behind routers nobody looked at, the one
    that has the packet's destination.
    """
    if skb.toward:
        return skb.toward
    home = simulation.topology.home(skb.flow.dst)
    snapshot = simulation.topology.snapshot(home) if home and not home.pod else None
    if home is None or home == skb.netns or snapshot is None:
        return None
    held = snapshot.holds(skb.flow.dst)
    end = snapshot.link(held.interface) if held else None
    wired = end is not None and not end.tunnel and end.kind != "bridge"
    if end is None or not wired:
        return None
    skb.mac = end.mac
    return home, end


def deliver_to_unseen_pod(simulation: Simulation, skb: Skb, link: Link) -> Arrived:
    """Handed to a pod whose own namespace is in no snapshot."""
    pod = simulation.topology.pod_at(skb.flow.dst)
    name = pod.pod if pod and pod.pod else skb.flow.dst
    simulation.note_missing(missing_pod_netns(skb.netns.node, name))
    netns = Netns(node=skb.netns.node, pod=name)
    skb.iif = link.name
    return Arrived(skb, netns, unseen=True)


def missing_pod_netns(node: str, name: str) -> str:
    """What a prediction lacks there."""
    return f"{node}: the namespace of {name}"


def leave_known_topology(simulation: Simulation, skb: Skb, link: Link) -> Arrived:
    """It leaves what was looked at. What that means depends on whose address it is for."""
    topology, dst = simulation.topology, skb.packet.flow.dst
    asker = topology.home(simulation.asked.src)
    at_large = asker is None or not asker.pod  # a pod whose node we know is reached by that alone
    if (
        at_large
        and simulation.replying
        and not skb.packet.tunnel
        and skb.flow.dst == simulation.asked.src
    ):
        return Arrived(skb, None, unseen=True)
    if skb.packet.tunnel:
        description = f"the tunnel's packet leaves for {dst}, which was not looked at"
        raise simulation.end(skb, Outcome.INCONCLUSIVE, None, dst, description)
    if skb.netns.pod and Netns(node=skb.netns.node) not in topology.snapshots:
        description = f"it leaves the pod by {link.name} for its node, which was not looked at"
        raise simulation.end(skb, Outcome.INCONCLUSIVE, None, dst, description)
    route = f"{skb.netns.node}: {_route_words(simulation)}"
    if dst == simulation.asked.dst and not simulation.replying and topology.is_service(dst):
        if simulation.at(skb).unbound(skb.flow):
            description = f"IPVS has {dst}, but the node has not: it leaves by {link.name} as it is"
            raise simulation.end(
                skb,
                Outcome.NOT_PROGRAMMED,
                CauseId.IPVS_ADDRESS_MISSING,
                dst,
                description,
                link.name,
            )
        description = f"no rule translated {dst}; it leaves by {link.name} as it is"
        raise simulation.end(
            skb, Outcome.NOT_PROGRAMMED, CauseId.PROXY_RULES_MISSING, dst, description, link.name
        )
    pod = topology.pod_at(dst)
    home = topology.home(dst)
    if (home and home != skb.netns) or (pod and Netns(node=pod.node) in topology.snapshots):
        description = f"{dst} leaves by {link.name}, where nobody known forwards it to its node"
        simulation.choices.certain = False
        raise simulation.end(
            skb, Outcome.DROPPED, CauseId.POD_ROUTE_MISSING, route, description, link.name
        )
    if pod is None and topology.endpoints and _was_translated(simulation):
        description = f"no endpoint has {dst}"
        raise simulation.end(skb, Outcome.DROPPED, CauseId.STALE_DNAT, dst, description, link.name)
    where = f" on {pod.node}" if pod and pod.node else ""
    description = f"it leaves by {link.name} for {dst}{where}, which was not looked at"
    raise simulation.end(skb, Outcome.INCONCLUSIVE, None, dst, description)


def _route_words(simulation: Simulation) -> str:
    routes = [step.description for step in simulation.steps if step.action == "route"]
    return routes[-1] if routes else ""


def _check_up(simulation: Simulation, skb: Skb, link: Link) -> None:
    if link.up and link.carrier:
        return
    description = f"{link.name} {'has no carrier' if link.up else 'is down'}"
    raise simulation.end(skb, Outcome.DROPPED, CauseId.LINK_DOWN, link.name, description, link.name)

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
from kptrace.simulate.stages import (
    Arrived,
    Cross,
    Frame,
    Input,
    Receive,
    Stage,
    Terminated,
    Transmit,
)
from kptrace.simulate.topology import Port
from kptrace.simulate.tunnels.vxlan_ipip import encapsulate


def transmit(simulation: Simulation, stage: Transmit) -> Stage | Arrived:
    """Hand a packet of the IP layer to a device: a tunnel, a bridge, a program or the wire."""
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
    """Send a frame out of its namespace: to a veth's other end, to a node on the wire, or away."""
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
    """Take a frame that comes in by a device and give it to the bridge or the IP layer."""
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
    """Set the frame's destination: from the neighbour entry, or whoever would answer for it."""
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
    """Whether the device is a pod's own (Calico) and its other end is in a namespace not read."""
    pod = simulation.topology.pod_at(next_hop)
    alone = link.kind == "veth" and not link.master and not skb.netns.pod
    if pod is None or not alone or simulation.topology.peer(skb.netns, link) is not None:
        return False
    here = pod.node == skb.netns.node
    return here and Netns(node=pod.node, pod=pod.pod) not in simulation.topology.snapshots


def _unresolved(simulation: Simulation, skb: Skb, link: Link, next_hop: str, failed: bool) -> None:
    """Raise where nobody known answers for the next hop.

    On the wire and for pods whose namespace was not read, that proves nothing.
    """
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
    """Return the node that takes the frame.

    It is the next hop, else, where routers that were not read lie between, the owner of the
    packet's destination.
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
    """Return the arrival at a pod whose own namespace is in no snapshot."""
    pod = simulation.topology.pod_at(skb.flow.dst)
    name = pod.pod if pod and pod.pod else skb.flow.dst
    simulation.note_missing(missing_pod_netns(skb.netns.node, name))
    netns = Netns(node=skb.netns.node, pod=name)
    skb.iif = link.name
    return Arrived(skb, netns, unseen=True)


def missing_pod_netns(node: str, name: str) -> str:
    """Return the text by which a prediction names a pod's namespace that was not read."""
    return f"{node}: the namespace of {name}"


def leave_known_topology(simulation: Simulation, skb: Skb, link: Link) -> Arrived:
    """Decide what it means that a packet leaves the namespaces that were read.

    An answer to a sender outside has arrived; everything else raises Terminated: dropped where it
    is known that nobody takes the packet, else inconclusive.
    """
    if _is_answer_to_outside(simulation, skb):
        return Arrived(skb, None, unseen=True)
    raise (
        _unread_underlay(simulation, skb)
        or _unread_node(simulation, skb, link)
        or _untranslated_service(simulation, skb, link)
        or _missing_pod_route(simulation, skb, link)
        or _no_endpoint(simulation, skb, link)
        or _unread_destination(simulation, skb, link)
    )


def _is_answer_to_outside(simulation: Simulation, skb: Skb) -> bool:
    """A sender that is a pod of a known node is reached by the topology alone."""
    sender = simulation.topology.home(simulation.asked.src)
    outside = sender is None or not sender.pod
    plain = not skb.packet.tunnel
    return outside and plain and simulation.replying and skb.flow.dst == simulation.asked.src


def _unread_underlay(simulation: Simulation, skb: Skb) -> Terminated | None:
    if not skb.packet.tunnel:
        return None
    dst = skb.flow.dst
    description = f"the tunnel's packet leaves for {dst}, which was not looked at"
    return simulation.end(skb, Outcome.INCONCLUSIVE, None, dst, description)


def _unread_node(simulation: Simulation, skb: Skb, link: Link) -> Terminated | None:
    """A pod's packet whose node is in no snapshot."""
    if not skb.netns.pod or Netns(node=skb.netns.node) in simulation.topology.snapshots:
        return None
    description = f"it leaves the pod by {link.name} for its node, which was not looked at"
    return simulation.end(skb, Outcome.INCONCLUSIVE, None, skb.flow.dst, description)


def _untranslated_service(simulation: Simulation, skb: Skb, link: Link) -> Terminated | None:
    """A Service's address that leaves as it is."""
    dst = skb.flow.dst
    requested = dst == simulation.asked.dst and not simulation.replying
    if not requested or not simulation.topology.is_service(dst):
        return None
    if simulation.at(skb).unbound(skb.flow):
        cause = CauseId.IPVS_ADDRESS_MISSING
        description = f"IPVS has {dst}, but the node has not: it leaves by {link.name} as it is"
        return simulation.end(skb, Outcome.NOT_PROGRAMMED, cause, dst, description, link.name)
    description = f"no rule translated {dst}; it leaves by {link.name} as it is"
    return simulation.untranslated(skb, dst, description, link.name)


def _missing_pod_route(simulation: Simulation, skb: Skb, link: Link) -> Terminated | None:
    """The destination's node was read, and nobody known forwards the packet to it."""
    topology, dst = simulation.topology, skb.flow.dst
    home, pod = topology.home(dst), topology.pod_at(dst)
    elsewhere = home is not None and home != skb.netns
    node_was_read = pod is not None and Netns(node=pod.node) in topology.snapshots
    if not elsewhere and not node_was_read:
        return None
    simulation.choices.certain = False
    route = f"{skb.netns.node}: {_last_route(simulation)}"
    description = f"{dst} leaves by {link.name}, where nobody known forwards it to its node"
    cause = CauseId.POD_ROUTE_MISSING
    return simulation.end(skb, Outcome.DROPPED, cause, route, description, link.name)


def _no_endpoint(simulation: Simulation, skb: Skb, link: Link) -> Terminated | None:
    """A rule sent it to an address that the API does not know."""
    topology, dst = simulation.topology, skb.flow.dst
    if topology.pod_at(dst) or not topology.endpoints or not _was_translated(simulation):
        return None
    description = f"no endpoint has {dst}"
    return simulation.end(skb, Outcome.DROPPED, CauseId.STALE_DNAT, dst, description, link.name)


def _unread_destination(simulation: Simulation, skb: Skb, link: Link) -> Terminated:
    dst = skb.flow.dst
    pod = simulation.topology.pod_at(dst)
    place = f" on {pod.node}" if pod and pod.node else ""
    description = f"it leaves by {link.name} for {dst}{place}, which was not looked at"
    return simulation.end(skb, Outcome.INCONCLUSIVE, None, dst, description)


def _last_route(simulation: Simulation) -> str:
    routes = [step.description for step in simulation.steps if step.action == "route"]
    return routes[-1] if routes else ""


def _check_up(simulation: Simulation, skb: Skb, link: Link) -> None:
    if link.up and link.carrier:
        return
    description = f"{link.name} {'has no carrier' if link.up else 'is down'}"
    raise simulation.end(skb, Outcome.DROPPED, CauseId.LINK_DOWN, link.name, description, link.name)

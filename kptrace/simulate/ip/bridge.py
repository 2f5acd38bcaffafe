"""A Linux bridge, with and without br_netfilter.

Theory (br_netfilter_hooks.c): with bridge-nf-call-iptables=1 a frame passes the IP hooks on the
bridge. PREROUTING runs at the port (iif is the bridge, physdev the port). If it changed the
destination, the kernel looks for a route: when that leads back out of the same bridge, the frame
gets that neighbour's address and stays a frame ("bridged DNAT", TTL untouched, then FORWARD with
both interfaces the bridge, and POSTROUTING); else it is given to the node itself, which does not
run PREROUTING again. With =0 no hook sees a bridged frame, so the answer of a backend on the
client's own bridge is never translated back.
"""

from __future__ import annotations

from kptrace.model import CauseId, Outcome
from kptrace.model.family import Family
from kptrace.simulate.ip.device import deliver_to_unseen_pod, resolve
from kptrace.simulate.ip.routing import RouteQuery, route_input
from kptrace.simulate.ip.skb import Skb
from kptrace.simulate.simulation import Simulation
from kptrace.simulate.snapshot.network import Link
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace.simulate.stages import Arrived, Cross, Frame, Input, Stage

_SYSCTL = {
    Family.IPV4: "net.bridge.bridge-nf-call-iptables",
    Family.IPV6: "net.bridge.bridge-nf-call-ip6tables",
}


def netfilter_off(snapshot: Snapshot, bridge: Link, family: Family) -> str:
    """Return the sysctl that keeps bridged frames from the IP hooks, with its value; empty:
    none.
    """
    name = _SYSCTL[family]
    value = snapshot.sysctl(name)
    if value or bridge.nf_call[family.position]:
        return ""
    return f"{name}=0" if value == 0 else f"{name} is not there: br_netfilter is not loaded"


def switch(simulation: Simulation, stage: Frame) -> Stage | Arrived:
    """Forward a frame: to the node itself, or out of the port that leads to its address.

    Returns the next stage; raises Terminated where the frame ends on the bridge.
    """
    skb, bridge, port = stage.skb, stage.bridge, stage.port
    off = netfilter_off(simulation.at(skb), bridge, skb.family)
    if port is not None and not off:
        _prerouting(simulation, skb, bridge, port)
    if port is not None and _for_the_node(simulation, skb, bridge):
        skb.iif, skb.oif = bridge.name, ""
        simulation.add_step("seen", skb, bridge.name, "in")
        return Input(skb)
    out = _port_toward(simulation, skb, bridge)
    if out is None:
        _check_flooded(simulation, skb, bridge)
    if port is not None:
        if out is not None:
            _check_ports(simulation, skb, port, out)
        if off:
            simulation.bypassed.append(f"{skb.netns.node}: {off}")
        else:
            _bridged_hooks(simulation, skb, bridge, port, out)
    return Cross(skb, out) if out else deliver_to_unseen_pod(simulation, skb, bridge)


def _prerouting(simulation: Simulation, skb: Skb, bridge: Link, port: Link) -> None:
    skb.iif, skb.physin = bridge.name, port.name
    before = skb.flow.dst
    simulation.hook("prerouting", skb)
    skb.prerouted = True
    if skb.flow.dst == before:
        return
    decision = route_input(
        simulation.at(skb), RouteQuery(flow=skb.flow, mark=skb.known_mark, iif=bridge.name)
    )
    interfaces = {hop.interface for hop in decision.nexthops} if decision.usable else set()
    if decision.local or interfaces != {bridge.name}:
        skb.mac = bridge.mac
        return
    skb.hop = decision.nexthops[0]
    resolve(simulation, skb, bridge)


def _for_the_node(simulation: Simulation, skb: Skb, bridge: Link) -> bool:
    if skb.mac:
        return skb.mac == bridge.mac
    return not skb.unseen and simulation.at(skb).holds(skb.flow.dst) is not None


def _port_toward(simulation: Simulation, skb: Skb, bridge: Link) -> Link | None:
    """Return the port that leads to the frame's address: by the veths themselves, else as
    learned.
    """
    snapshot = simulation.at(skb)
    for port in snapshot.ports(bridge.name):
        peer = simulation.topology.peer(skb.netns, port)
        if peer and skb.mac and peer[1].mac == skb.mac:
            return port
    learned = snapshot.port_of(bridge.name, skb.mac) if skb.mac else ""
    return snapshot.link(learned) if learned else None


def _check_flooded(simulation: Simulation, skb: Skb, bridge: Link) -> None:
    """Raise where a flooded frame reaches nobody or an unknown port.

    A frame without a known port goes out of all ports; a pod whose namespace was not read may take
    it.
    """
    if not skb.unseen and skb.mac and _all_seen(simulation, skb, bridge):
        description = f"no port of {bridge.name} leads to {skb.mac}"
        object_name = f"{skb.netns.node}: {bridge.name}"
        raise simulation.end(
            skb, Outcome.DROPPED, CauseId.NEIGHBOUR_FAILED, object_name, description, bridge.name
        )
    if simulation.topology.pod_at(skb.flow.dst) is None:
        description = f"the port of {bridge.name} that leads to {skb.flow.dst} is not known"
        raise simulation.end(skb, Outcome.INCONCLUSIVE, None, bridge.name, description)


def _all_seen(simulation: Simulation, skb: Skb, bridge: Link) -> bool:
    ports = simulation.at(skb).ports(bridge.name)
    return all(simulation.topology.peer(skb.netns, port) for port in ports)


def _check_ports(simulation: Simulation, skb: Skb, port: Link, out: Link) -> None:
    """Raise where should_deliver() of br_forward.c refuses: hairpin off, or isolated ports."""
    if port.name == out.name and not port.hairpin:
        description = (
            f"the frame would have to go back out of {port.name}, and hairpin is off there"
        )
        object_name = f"{skb.netns.node}: {port.name}"
        raise simulation.end(
            skb, Outcome.DROPPED, CauseId.HAIRPIN_OFF, object_name, description, port.name
        )
    if port.isolated and out.isolated:
        description = f"the ports {port.name} and {out.name} are isolated from each other"
        object_name = f"{skb.netns.node}: {out.name}"
        raise simulation.end(
            skb, Outcome.DROPPED, CauseId.PORT_ISOLATED, object_name, description, port.name
        )


def _bridged_hooks(
    simulation: Simulation, skb: Skb, bridge: Link, port: Link, out: Link | None
) -> None:
    skb.iif = skb.oif = bridge.name
    skb.physin, skb.physout = port.name, out.name if out else "?"
    if out is None:
        skb.unknown.add("physdev out")
    simulation.hook("forward", skb)
    skb.iif = ""
    simulation.hook("postrouting", skb)

"""The IP layer: sending, receiving, forwarding, with the hooks in the kernel's order.

``output``: route, OUTPUT, again a route if nat changed the destination or a chain of type route
(mangle) the mark (ip_route_me_harder: with the mark that it had then), POSTROUTING.
``receive``: PREROUTING, route, then INPUT or (TTL, FORWARD, POSTROUTING).
"""

from __future__ import annotations

from kptrace.model import CauseId, Outcome
from kptrace.model.addresses import address
from kptrace.model.family import Family
from kptrace.simulate.ip.routing import (
    RouteLookupResult,
    RouteQuery,
    lookup,
    may_route_localnet,
    route_input,
    source_address,
)
from kptrace.simulate.ip.skb import Skb
from kptrace.simulate.simulation import Simulation
from kptrace.simulate.snapshot.network import Link
from kptrace.simulate.stages import Arrived, Input, Local, Output, Stage, Terminated, Transmit


def output(simulation: Simulation, stage: Output) -> Stage | Arrived:
    """Send a packet of this namespace; return the next stage. Raises Terminated where it ends."""
    skb = stage.skb
    decision = _route_out(simulation, skb, skb.known_mark)
    if not skb.flow.src:
        skb.set_source(
            source_address(simulation.at(skb), decision, skb.hop, skb.flow.dst), skb.flow.sport
        )
        if not simulation.sent_flow.src:
            simulation.sent_flow = skb.flow
    skb.rerouted = False
    if simulation.hook("output", skb):
        return Output(skb)
    if skb.rerouted:
        decision = _route_out(simulation, skb, skb.rerouted_mark)
    _check_loopback_source(simulation, skb)
    _note_route(simulation, skb, decision)
    simulation.hook("postrouting", skb)
    return _send(simulation, skb, decision)


def receive(simulation: Simulation, stage: Input) -> Stage | Arrived:
    """Take a packet that came in by a device: deliver it here or forward it.

    Raises Terminated where the kernel drops it (source checks, forwarding off, no route, a rule).
    """
    skb = stage.skb
    old_destination = skb.flow.dst
    if not skb.prerouted:
        simulation.hook("prerouting", skb)
    skb.prerouted = False
    # over lo it has its route already, unless nat drops that (nf_nat_ipv4_pre_routing)
    if skb.socket or (skb.iif == "lo" and skb.flow.dst == old_destination):
        return _deliver(simulation, skb)
    query = RouteQuery(flow=skb.flow, mark=skb.known_mark, iif=skb.iif)
    decision = route_input(simulation.at(skb), query)
    if decision.fault:
        object_name = f"{skb.netns.node}: {decision.description}"
        raise simulation.end(
            skb, Outcome.DROPPED, decision.fault, object_name, decision.description
        )
    if decision.type in ("local", "broadcast", "multicast", "anycast"):
        return _deliver(simulation, skb)
    if not decision.usable:
        raise no_route(simulation, skb, decision)
    return _forward(simulation, skb, decision)


def _forward(simulation: Simulation, skb: Skb, decision: RouteLookupResult) -> Stage | Arrived:
    if skb.packet.ttl <= 1:
        description = "its TTL is used up: the nodes send it in a circle"
        raise simulation.end(skb, Outcome.DROPPED, CauseId.ROUTING_LOOP, decision.text, description)
    skb.set_ttl(skb.packet.ttl - 1)
    skb.hop = simulation.pick_hop(skb, decision)
    skb.oif = skb.hop.interface
    _note_route(simulation, skb, decision)
    _check_mtu(simulation, skb, decision)
    simulation.hook("forward", skb)
    simulation.hook("postrouting", skb)
    return _send(simulation, skb, decision)


def _deliver(simulation: Simulation, skb: Skb) -> Stage:
    skb.oif = ""
    return Output(skb) if simulation.hook("input", skb) else Local(skb)


def _route_out(simulation: Simulation, skb: Skb, mark: int | None) -> RouteLookupResult:
    decision = lookup(simulation.at(skb), RouteQuery(flow=skb.flow, mark=mark))
    if not decision.usable:
        raise no_route(simulation, skb, decision)
    skb.hop = simulation.pick_hop(skb, decision)
    skb.oif = "lo" if decision.local else skb.hop.interface
    return decision


def _send(simulation: Simulation, skb: Skb, decision: RouteLookupResult) -> Stage | Arrived:
    snapshot = simulation.at(skb)
    if decision.local:
        simulation.add_step("seen", skb, "lo", "out")
        skb.iif, skb.oif = "lo", ""
        simulation.add_step("seen", skb, "lo", "in")
        return Input(skb)
    link = snapshot.link(skb.oif)
    if link is None and not snapshot.links_are_known:
        link = Link(index=0, name=skb.oif)  # what the route names; of what kind, nobody knows
    if link is None:
        description = f"the route leads out of {skb.oif}, which does not exist"
        raise simulation.end(skb, Outcome.DROPPED, CauseId.LINK_DOWN, skb.oif, description, skb.oif)
    return Transmit(skb, link)


def _note_route(simulation: Simulation, skb: Skb, decision: RouteLookupResult) -> None:
    simulation.add_step("route", skb, skb.oif, description=decision.text)


def no_route(simulation: Simulation, skb: Skb, decision: RouteLookupResult) -> Terminated:
    """Return the end of a packet without a usable route, and what that means."""
    node, text = skb.netns.node, decision.text
    if decision.type in ("blackhole", "unreachable", "prohibit"):
        outcome = Outcome.DROPPED if decision.type == "blackhole" else Outcome.REJECTED
        description = decision.description or f"the route is {text}"
        return simulation.end(skb, outcome, CauseId.BLACKHOLE_ROUTE, f"{node}: {text}", description)
    dst = skb.flow.dst
    description = f"no route to {dst}"
    if (
        dst == simulation.asked.dst
        and not simulation.replying
        and simulation.topology.is_service(dst)
    ):
        description += ", a Service's address that no rule translated"
        return simulation.untranslated(skb, dst, description)
    cause = CauseId.NO_ROUTE if skb.netns.pod else CauseId.POD_ROUTE_MISSING
    return simulation.end(skb, Outcome.REJECTED, cause, f"{node}: no route to {dst}", description)


def _check_loopback_source(simulation: Simulation, skb: Skb) -> None:
    """Raise if a packet from 127.0.0.0/8 leaves without route_localnet (__mkroute_output)."""
    if skb.oif == "lo" or not skb.flow.src or not address(skb.flow.src).is_loopback:
        return
    if skb.family is Family.IPV6 or not may_route_localnet(simulation.at(skb), skb.oif):
        description = f"{skb.flow.src} may not leave by {skb.oif}: route_localnet is 0"
        raise simulation.end(skb, Outcome.REJECTED, CauseId.MARTIAN, skb.oif, description, skb.oif)


def _check_mtu(simulation: Simulation, skb: Skb, decision: RouteLookupResult) -> None:
    link = simulation.at(skb).link(skb.oif)
    mtu = (decision.route.mtu if decision.route else 0) or (link.mtu if link else 0)
    if mtu and skb.packet.length > mtu:
        description = f"{skb.packet.length} bytes do not fit the {mtu} of {skb.oif}"
        raise simulation.end(
            skb, Outcome.REJECTED, CauseId.MTU_EXCEEDED, skb.oif, description, skb.oif
        )

"""The IP layer: sending, receiving, forwarding, with the hooks in the kernel's order.

``output``: route, OUTPUT, again a route if nat changed the destination or a chain of type route
(mangle) the mark (ip_route_me_harder: with the mark that it had then),
POSTROUTING. ``receive``: PREROUTING, route, then INPUT or (TTL, FORWARD, POSTROUTING).
"""

from __future__ import annotations

from kptrace.model import CauseId, Outcome
from kptrace.model.addresses import address
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
from kptrace.simulate.stages import Arrived, Input, Local, Output, Stage, Terminated, Transmit


def output(story: Simulation, stage: Output) -> Stage | Arrived:
    skb = stage.skb
    found = _route_out(story, skb, skb.known_mark)
    if not skb.flow.src:
        skb.set_source(source_address(story.at(skb), found, skb.hop, skb.flow.dst), skb.flow.sport)
        if not story.sent_flow.src:
            story.sent_flow = skb.flow
    skb.rerouted = False
    if story.hook("output", skb):
        return Output(skb)
    if skb.rerouted:
        found = _route_out(story, skb, skb.rerouted_mark)
    _check_loopback_source(story, skb)
    _note_route(story, skb, found)
    story.hook("postrouting", skb)
    return _send(story, skb, found)


def receive(story: Simulation, stage: Input) -> Stage | Arrived:
    skb = stage.skb
    wanted = skb.flow.dst
    if not skb.prerouted:
        story.hook("prerouting", skb)
    skb.prerouted = False
    # over lo it has its route already, unless nat drops that (nf_nat_ipv4_pre_routing)
    if skb.socket or (skb.iif == "lo" and skb.flow.dst == wanted):
        return _deliver(story, skb)
    query = RouteQuery(flow=skb.flow, mark=skb.known_mark, iif=skb.iif)
    found = route_input(story.at(skb), query)
    if found.fault:
        where = f"{skb.place.node}: {found.words}"
        raise story.end(skb, Outcome.DROPPED, found.fault, where, found.words)
    if found.type in ("local", "broadcast", "multicast", "anycast"):
        return _deliver(story, skb)
    if not found.usable:
        raise no_route(story, skb, found)
    return _forward(story, skb, found)


def _forward(story: Simulation, skb: Skb, found: RouteLookupResult) -> Stage | Arrived:
    if skb.packet.ttl <= 1:
        words = "its TTL is used up: the nodes send it in a circle"
        raise story.end(skb, Outcome.DROPPED, CauseId.ROUTING_LOOP, found.text, words)
    skb.set_ttl(skb.packet.ttl - 1)
    skb.hop = story.pick_hop(skb, found)
    skb.oif = skb.hop.interface
    _note_route(story, skb, found)
    _check_mtu(story, skb, found)
    story.hook("forward", skb)
    story.hook("postrouting", skb)
    return _send(story, skb, found)


def _deliver(story: Simulation, skb: Skb) -> Stage:
    skb.oif = ""
    return Output(skb) if story.hook("input", skb) else Local(skb)


def _route_out(story: Simulation, skb: Skb, mark: int | None) -> RouteLookupResult:
    found = lookup(story.at(skb), RouteQuery(flow=skb.flow, mark=mark))
    if not found.usable:
        raise no_route(story, skb, found)
    skb.hop = story.pick_hop(skb, found)
    skb.oif = "lo" if found.local else skb.hop.interface
    return found


def _send(story: Simulation, skb: Skb, found: RouteLookupResult) -> Stage | Arrived:
    snapshot = story.at(skb)
    if found.local:
        story.note("seen", skb, "lo", "out")
        skb.iif, skb.oif = "lo", ""
        story.note("seen", skb, "lo", "in")
        return Input(skb)
    link = snapshot.link(skb.oif)
    if link is None:
        words = f"the route leads out of {skb.oif}, which does not exist"
        raise story.end(skb, Outcome.DROPPED, CauseId.LINK_DOWN, skb.oif, words, skb.oif)
    return Transmit(skb, link)


def _note_route(story: Simulation, skb: Skb, found: RouteLookupResult) -> None:
    story.note("route", skb, skb.oif, words=found.text)


def no_route(story: Simulation, skb: Skb, found: RouteLookupResult) -> Terminated:
    """The route that kills it, or that there is none, and what that means."""
    node, text = skb.place.node, found.text
    if found.type in ("blackhole", "unreachable", "prohibit"):
        outcome = Outcome.DROPPED if found.type == "blackhole" else Outcome.REJECTED
        words = found.words or f"the route is {text}"
        return story.end(skb, outcome, CauseId.BLACKHOLE_ROUTE, f"{node}: {text}", words)
    dst = skb.flow.dst
    words = f"no route to {dst}"
    if dst == story.asked.dst and not story.replying and story.world.is_service(dst):
        words += ", a Service's address that no rule translated"
        return story.end(skb, Outcome.NOT_PROGRAMMED, CauseId.PROXY_RULES_MISSING, dst, words)
    cause = CauseId.NO_ROUTE if skb.place.pod else CauseId.POD_ROUTE_MISSING
    return story.end(skb, Outcome.REJECTED, cause, f"{node}: no route to {dst}", words)


def _check_loopback_source(story: Simulation, skb: Skb) -> None:
    """A packet from 127.0.0.0/8 may leave only with route_localnet (__mkroute_output)."""
    if skb.oif == "lo" or not skb.flow.src or not address(skb.flow.src).is_loopback:
        return
    if skb.family == 6 or not may_route_localnet(story.at(skb), skb.oif):
        words = f"{skb.flow.src} may not leave by {skb.oif}: route_localnet is 0"
        raise story.end(skb, Outcome.REJECTED, CauseId.MARTIAN, skb.oif, words, skb.oif)


def _check_mtu(story: Simulation, skb: Skb, found: RouteLookupResult) -> None:
    link = story.at(skb).link(skb.oif)
    mtu = (found.route.mtu if found.route else 0) or (link.mtu if link else 0)
    if mtu and skb.packet.length > mtu:
        words = f"{skb.packet.length} bytes do not fit the {mtu} of {skb.oif}"
        raise story.end(skb, Outcome.REJECTED, CauseId.MTU_EXCEEDED, skb.oif, words, skb.oif)

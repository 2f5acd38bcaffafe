"""What one node alone decides about a packet: ``simulate_node``.

Every branch that the node's hooks and routes give a packet is followed up to the moment when it is
handed to a device or to a socket of the node. Nothing else has to be known for that, and no answer
is simulated: what kube-proxy wrote on this node is judged by this alone.

A packet of a pod is taken at the IP layer, where its frame comes up from the node's own device.
Where the node's routes are not known, every address is taken as reachable by one device of
unknown name (``with_default_routes``), and a rule that asks for that name is followed both ways.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from kptrace.model import Branch, CauseId, Endpoint, Flow, Netns, Outcome, Packet, Value
from kptrace.model.addresses import network
from kptrace.model.family import Family
from kptrace.simulate.bpf import socket_lb
from kptrace.simulate.branching import BranchPoints, enumerate_branches
from kptrace.simulate.ip import ip
from kptrace.simulate.ip.routing import RouteQuery, lookup
from kptrace.simulate.ip.skb import Skb
from kptrace.simulate.simulation import Simulation
from kptrace.simulate.snapshot.network import InterfaceAddress, Link, Nexthop, Route
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace.simulate.stages import Arrived, Input, Local, Output, Stage, Terminated, Transmit
from kptrace.simulate.topology import Topology

UNKNOWN_DEVICE = "?"
_NAMES_OF_DEVICES = ("meta iifname", "meta oifname", "meta iif", "meta oif")
_SOURCE = ("ip saddr", "ip6 saddr")


class IngressInterface(Value):
    """Where a packet comes in: the device of the IP layer, and the bridge port that took the
    frame.
    """

    interface: str
    port: str = ""


class WeightedBranch(Value):
    """A branch, and how many of the kernel's choices lead to it (twice the same map element: 2)."""

    branch: Branch
    times: int = 1


class NodeResult(Value):
    """The branches of one packet on one node, and the files that would have been needed."""

    ways: tuple[WeightedBranch, ...]
    missing: tuple[str, ...] = ()


def simulate_node(
    packet: Packet,
    node: Netns,
    topology: Topology,
    arrival: IngressInterface | None,
    socket: bool = True,
) -> NodeResult:
    """Simulate what the hooks and routes of ``node`` do with ``packet``, branch by branch.

    packet: an empty source is not known; for the node's own packets the kernel chooses it
    arrival: the interface by which the packet comes in; None for a packet of the node itself
    socket: whether the sender's socket is on this node, so that programs at connect() see it

    Returns every branch with its weight, up to the moment when the packet is handed to a device
    or to a socket of the node.
    """
    missing: list[str] = []

    def walk(choices: BranchPoints) -> Branch:
        simulation = Simulation(topology, choices, packet.flow)
        branch = _simulate(simulation, _skb(packet, node, topology, arrival), arrival, socket)
        missing.extend(name for name in simulation.missing if name not in missing)
        return branch

    branches, left = enumerate_branches(walk)
    weights: dict[Branch, list[float]] = {}
    for explored in branches:
        weights.setdefault(explored.result, []).append(explored.weight)
    ways = [
        WeightedBranch(
            branch=msgspec.structs.replace(branch, weight=sum(shares)), times=len(shares)
        )
        for branch, shares in weights.items()
    ]
    if left > 0:
        description = "there are more ways than can be told apart"
        rest = Branch(weight=left, steps=(), outcome=Outcome.INCONCLUSIVE, deterministic=False)
        ways.append(WeightedBranch(branch=msgspec.structs.replace(rest, description=description)))
    return NodeResult(ways=tuple(ways), missing=tuple(missing))


def with_default_routes(snapshot: Snapshot, addresses: Iterable[str]) -> Snapshot:
    """Return the snapshot with a default route for each family of which no route is known.

    addresses: the node's own, as the API has them; used where ``ip addr`` is missing
    """
    known = {route.family for route in snapshot.routes}
    absent = [family for family in Family if family not in known]
    if not absent:
        return snapshot
    held = () if snapshot.addresses else tuple(map(_supposed_address, addresses))
    routes = tuple(_supposed_route(family.everything) for family in absent)
    return msgspec.structs.replace(
        snapshot,
        links=(*snapshot.links, Link(index=0, name=UNKNOWN_DEVICE)),
        addresses=(*snapshot.addresses, *held),
        routes=(*snapshot.routes, *routes),
    )


def routes_are_unknown(snapshot: Snapshot, family: Family) -> bool:
    """Whether the routes of a family are not known, so that a default route stands for them: then
    no name of a device can be told for its packets. The other family is not concerned.
    """
    return any(
        hop.interface == UNKNOWN_DEVICE
        for route in snapshot.routes
        if route.family is family
        for hop in route.nexthops
    )


def _supposed_address(text: str) -> InterfaceAddress:
    return InterfaceAddress(
        interface=UNKNOWN_DEVICE, address=text, length=Family.of(text).address_bits
    )


def _supposed_route(text: str) -> Route:
    hop = Nexthop(interface=UNKNOWN_DEVICE)
    return Route(destination=network(text), nexthops=(hop,), text="the routes are not known")


def ingress_interface(snapshot: Snapshot, source: str) -> IngressInterface | None:
    """Return the interface by which a packet from this address comes in: the one that leads back.

    None where that is not known or the address is the node's own.
    """
    decision = lookup(snapshot, RouteQuery(flow=Flow(protocol="", src="", dst=source)))
    if decision.local or not decision.usable:
        return None
    link = snapshot.link(decision.nexthops[0].interface)
    if link is None or link.kind != "bridge":
        return IngressInterface(interface=link.name) if link else None
    from kptrace.simulate.ip.bridge import (
        netfilter_off,  # with all that tells where a frame goes next
    )

    off = netfilter_off(snapshot, link, Family.of(source))
    ports = snapshot.ports(link.name)
    return IngressInterface(interface=link.name, port=ports[0].name if ports and not off else "")


def _skb(packet: Packet, node: Netns, topology: Topology, arrival: IngressInterface | None) -> Skb:
    skb = Skb(netns=node, packet=packet)
    if arrival is not None:
        skb.iif, skb.physin = arrival.interface, arrival.port
    snapshot = topology.snapshots[node]
    if skb.iif == UNKNOWN_DEVICE or routes_are_unknown(snapshot, skb.family):
        skb.unknown.update(_NAMES_OF_DEVICES)
    if not packet.flow.src and (arrival is not None or not snapshot.addresses):
        skb.unknown.update(_SOURCE)
    return skb


def _simulate(
    simulation: Simulation, skb: Skb, arrival: IngressInterface | None, socket: bool
) -> Branch:
    try:
        socket_lb.stop_where_devices_translate(simulation, skb, socket)
        if socket:
            socket_lb.translate(simulation, skb)
        end = _delivery(
            simulation, _run_ip_layer(simulation, Output(skb) if arrival is None else Input(skb))
        )
    except Terminated as ended:
        end = ended
    return Branch(
        weight=0.0,
        steps=tuple(simulation.steps),
        outcome=end.outcome,
        deterministic=simulation.choices.certain,
        backend=_backend(simulation, skb),
        cause=end.cause,
        object=end.object_name,
        description=end.description,
        notes=tuple(simulation.notes),
    )


def _run_ip_layer(simulation: Simulation, stage: Stage | Arrived) -> Stage | Arrived:
    """Run until the packet leaves the IP layer.

    A packet to the node itself passes it twice, by way of lo.
    """
    while isinstance(stage, Output | Input):
        stage = (
            ip.output(simulation, stage)
            if isinstance(stage, Output)
            else ip.receive(simulation, stage)
        )
    return stage


def _delivery(simulation: Simulation, stage: Stage | Arrived) -> Terminated:
    """Return the end of a packet that was handed on: to a backend, or untranslated."""
    assert isinstance(stage, Transmit | Local)
    skb = stage.skb
    if skb.socket is not None:
        description = (
            "a local proxy takes the packet (TPROXY): what it does with it is not known here"
        )
        return Terminated(Outcome.INCONCLUSIVE, None, "", description)
    asked = simulation.asked
    if (
        skb.translated
        or _translated_at_connect(simulation)
        or simulation.topology.endpoint(asked.dst, asked.dport, asked.protocol)
    ):
        return Terminated(Outcome.DELIVERED)
    snapshot = simulation.at(skb)
    if snapshot.serves(asked) and "ip-addr.json" in snapshot.missing:
        text = "the node's addresses were not read: ip-addr.json is not there"
        description = f"IPVS has {asked.dst}, and {text}"
        return simulation.end(skb, Outcome.INCONCLUSIVE, None, asked.dst, description)
    if snapshot.unbound(asked):
        description = f"IPVS has {asked.dst}, but no device of the node has this address"
        return Terminated(
            Outcome.NOT_PROGRAMMED, CauseId.IPVS_ADDRESS_MISSING, asked.dst, description
        )
    unread = simulation.unread_rules(skb)
    if unread:
        text = f"no rule that was read translates {asked.dst} port {asked.dport}"
        description = f"{text}; {unread.description}"
        return simulation.end(skb, Outcome.INCONCLUSIVE, None, asked.dst, description)
    way = f"it leaves by {stage.link.name}" if isinstance(stage, Transmit) else "the node keeps it"
    description = f"no rule translates {asked.dst} port {asked.dport}: {way} as it is"
    return Terminated(Outcome.NOT_PROGRAMMED, CauseId.PROXY_RULES_MISSING, asked.dst, description)


def _translated_at_connect(simulation: Simulation) -> bool:
    return any(step.hook == "connect" for step in simulation.steps)


def _backend(simulation: Simulation, skb: Skb) -> Endpoint | None:
    """Return the endpoint that a rule sends the packet to.

    A rule may translate an address to itself, which cannot be seen.
    """
    flow = simulation.sent_flow
    if skb.tracked is not None and skb.translated:
        flow = skb.tracked.connection.translated
    known = simulation.topology.endpoint(flow.dst, flow.dport, flow.protocol)
    if known or not (skb.translated or _translated_at_connect(simulation)):
        return known
    return Endpoint(address=flow.dst, port=flow.dport, protocol=flow.protocol)

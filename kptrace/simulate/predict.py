"""What will become of a packet: ``predict``.

A branch holds the packet's steps up to its end and, when it was delivered, those of the answer,
from the first step with the action ``reply``. An answer that does not come back makes the branch
undelivered: for its sender it is.

A source or target whose namespace is in no snapshot is entered and left at its node's device; a
packet that leaves for a namespace that was not read ends as ``inconclusive``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from kptrace.model import Branch, CauseId, Endpoint, Flow, Netns, Outcome, Packet, Prediction
from kptrace.model.addresses import address
from kptrace.model.family import Family
from kptrace.simulate.bpf import socket_lb
from kptrace.simulate.branching import (
    BRANCH_LIMIT,
    BranchPoints,
    ExploredBranch,
    enumerate_branches,
)
from kptrace.simulate.ip import bridge, device, ip
from kptrace.simulate.ip.skb import Skb
from kptrace.simulate.simulation import Simulation
from kptrace.simulate.snapshot.network import Link
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace.simulate.stages import (
    Arrived,
    Cross,
    Frame,
    Input,
    Local,
    Output,
    Receive,
    Stage,
    Terminated,
    Transmit,
)
from kptrace.simulate.topology import Topology
from kptrace.simulate.tunnels import vxlan_ipip

_STAGES: dict[type, Callable[[Simulation, Any], Stage | Arrived]] = {
    Output: ip.output,
    Input: ip.receive,
    Local: vxlan_ipip.deliver,
    Transmit: device.transmit,
    Cross: device.cross,
    Receive: device.receive,
    Frame: bridge.switch,
}
_ICMP_REPLIES = {(8, 0): (0, 0), (128, 0): (129, 0)}
# a packet crosses about ten devices; the TTL ends circles of nodes, this one of bridges
_STAGE_LIMIT = 1000


def predict(
    packet: Packet,
    source: Netns | None,
    topology: Topology,
    ingress: tuple[Netns, str] | None = None,
    limit: int = BRANCH_LIMIT,
) -> Prediction:
    """Predict every branch of a packet's path and of its answer's.

    packet: as its sender makes it; an empty source is chosen by the kernel, a port 0 is not known
    source: the sender's namespace; None for a sender outside of the cluster
    ingress: for a sender outside: the namespace and the interface by which the packet comes in
    limit: the number of branches after which the rest is reported as one inconclusive branch

    Returns the branches with weights that sum to 1, the likeliest first, and what was missing.
    """
    packet = _normalise(packet)
    missing: list[str] = []

    def walk(choices: BranchPoints) -> Branch:
        simulation = Simulation(topology, choices, packet.flow)
        branch = _simulate(simulation, packet, source, ingress)
        missing.extend(name for name in simulation.missing if name not in missing)
        return branch

    explored, left = enumerate_branches(walk, limit)
    return Prediction(branches=_branches(explored, left), missing=tuple(missing))


def _normalise(packet: Packet) -> Packet:
    flow = packet.flow
    texts = {name: str(address(text)) if text else "" for name, text in
             (("src", flow.src), ("dst", flow.dst))}  # fmt: skip
    flags = packet.flags or ("S" if flow.protocol == "tcp" else "")
    return msgspec.structs.replace(packet, flow=msgspec.structs.replace(flow, **texts), flags=flags)


def _branches(explored: list[ExploredBranch[Branch]], left: float) -> tuple[Branch, ...]:
    """Merge branches that are alike and sort them, the likeliest first."""
    merged: dict[Branch, float] = {}
    for way in explored:
        branch = msgspec.structs.replace(way.result, weight=0.0)
        merged[branch] = merged.get(branch, 0.0) + way.weight
    if left > 0:
        description = "there are more ways than can be told apart"
        rest = Branch(
            weight=0.0,
            steps=(),
            outcome=Outcome.INCONCLUSIVE,
            deterministic=False,
            description=description,
        )
        merged[rest] = left
    total = sum(merged.values())
    branches = [
        msgspec.structs.replace(branch, weight=weight / total) for branch, weight in merged.items()
    ]
    return tuple(sorted(branches, key=lambda branch: -branch.weight))


def _simulate(
    simulation: Simulation, packet: Packet, source: Netns | None, ingress: tuple[Netns, str] | None
) -> Branch:
    try:
        arrived = _run_stages(simulation, _first_stage(simulation, packet, source, ingress))
        reached = _delivery(simulation, arrived)
        delivered = reached.outcome is Outcome.DELIVERED
        return _branch(
            simulation, _simulate_reply(simulation, arrived, source) if delivered else reached
        )
    except Terminated as end:
        return _branch(simulation, end)


def _run_stages(simulation: Simulation, stage: Stage | Arrived) -> Arrived:
    for _ in range(_STAGE_LIMIT):
        if isinstance(stage, Arrived):
            return stage
        stage = _STAGES[type(stage)](simulation, stage)
    assert not isinstance(stage, Arrived)
    raise Terminated(Outcome.INCONCLUSIVE, None, "", "the packet goes round and round")


# --- the beginning ----------------------------------------------------------------------------


def _first_stage(
    simulation: Simulation, packet: Packet, source: Netns | None, ingress: tuple[Netns, str] | None
) -> Stage | Arrived:
    if source is not None and source in simulation.topology.snapshots:
        skb = Skb(netns=source, packet=packet, owner=simulation.topology.sender)
        simulation.add_step("sent", skb)
        socket_lb.translate(simulation, skb)
        return Output(skb)
    if source is not None:
        simulation.note_missing(f"{source.node}/{source.name}: its own namespace")
        skb = Skb(netns=source, packet=packet)
        socket_lb.translate(simulation, skb)
        return _enter_from_unseen_pod(simulation, skb.packet, Netns(node=source.node))
    if ingress is None:
        raise Terminated(Outcome.INCONCLUSIVE, None, "", "where the packet comes in is not known")
    netns, interface = ingress
    snapshot = simulation.topology.snapshot(netns)
    link = snapshot.link(interface) if snapshot else None
    if link is None:
        description = f"{netns.node} {interface} was not looked at"
        raise Terminated(Outcome.INCONCLUSIVE, None, "", description)
    return Receive(Skb(netns=netns, packet=packet, mac=link.mac), link)


def _enter_from_unseen_pod(simulation: Simulation, packet: Packet, node: Netns) -> Stage | Arrived:
    """Let a packet of a pod whose namespace was not read come in by the pod's device on the
    node.
    """
    snapshot = simulation.topology.snapshot(node)
    port = _pod_device(snapshot, packet.flow.src) if snapshot and packet.flow.src else None
    if snapshot is None or port is None:
        description = f"the device of {packet.flow.src or 'the source'} on {node.node} is not known"
        simulation.choices.certain = False
        raise Terminated(Outcome.INCONCLUSIVE, None, "", description)
    skb = Skb(netns=node, packet=packet, mac=port.mac)
    master = snapshot.link(port.master) if port.master else None
    if master is not None:
        on_link = any(
            address(packet.flow.dst) in route.destination and not route.default
            for route in snapshot.table("main", skb.family)
            if [hop.interface for hop in route.nexthops if not hop.gateway] == [master.name]
        )
        if on_link and not snapshot.holds(packet.flow.dst):
            device.resolve(simulation, skb, master)
        else:
            skb.mac = master.mac
    return Receive(skb, port)


def _pod_device(snapshot: Snapshot, text: str) -> Link | None:
    """Return the device behind which a pod is: its own route's, or the bridge port with its
    address.
    """
    for entry in snapshot.neighbours:
        if entry.address != text or not entry.mac:
            continue
        port = snapshot.link(snapshot.port_of(entry.interface, entry.mac) or entry.interface)
        if port is not None and port.kind != "bridge":
            return port
    pod_address = address(text)
    for route in snapshot.table("main", Family.of(text)):
        if pod_address in route.destination and route.destination.num_addresses == 1:
            return snapshot.link(route.nexthops[0].interface) if route.nexthops else None
    for route in snapshot.table("main", Family.of(text)):
        if pod_address in route.destination and route.nexthops and not route.default:
            bridge_ = snapshot.link(route.nexthops[0].interface)
            ports = snapshot.ports(bridge_.name) if bridge_ and bridge_.kind == "bridge" else ()
            if ports:  # any port will do: they differ by name alone
                return ports[0]
    return None


# --- the end, and the way back ----------------------------------------------------------------


def _delivery(simulation: Simulation, arrived: Arrived) -> Terminated:
    """Return the end that it means that a socket's host has the packet."""
    skb, flow = arrived.skb, arrived.skb.flow
    netns = arrived.netns
    untouched = flow.dst == simulation.asked.dst and flow.dport == simulation.asked.dport
    if netns is not None and not netns.pod and untouched and not skb.socket:
        known = simulation.topology.endpoint(flow.dst, flow.dport, flow.protocol)
        mine = flow.dport in simulation.topology.node_ports or simulation.topology.is_service(
            flow.dst
        )
        if known is None and mine:
            description = f"no rule translated port {flow.dport}; the node itself got the packet"
            return simulation.untranslated(skb, flow.dst, description)
    here = Skb(netns=netns or skb.netns, packet=skb.packet)
    simulation.add_step("delivered", here, skb.iif)
    return Terminated(Outcome.DELIVERED)


def _simulate_reply(simulation: Simulation, arrived: Arrived, source: Netns | None) -> Terminated:
    """Simulate the answer; an answer that its sender does not get as expected is a failure."""
    simulation.replying = True
    sent = arrived.skb.packet
    flags = "SA" if sent.flow.protocol == "tcp" else ""
    icmp = _ICMP_REPLIES.get(sent.icmp) if sent.icmp else None
    packet = Packet(flow=sent.flow.reverse, flags=flags, icmp=icmp)
    dscp = arrived.skb.dscp if icmp else 0  # icmp_reply, icmpv6_echo_reply: as it was asked
    skb = Skb(netns=arrived.netns or arrived.skb.netns, packet=packet, dscp=dscp)
    simulation.add_step("reply", skb)
    try:
        if arrived.unseen:
            back = _run_stages(
                simulation, _enter_from_unseen_pod(simulation, packet, arrived.skb.netns)
            )
        else:
            back = _run_stages(simulation, Output(skb))
    except Terminated as end:
        if end.outcome is Outcome.INCONCLUSIVE:
            description = f"the way back is not known: {end.description}"
            return Terminated(Outcome.DELIVERED, description=description)
        description = f"the packet arrives, but its answer does not: {end.description}"
        return Terminated(Outcome.DROPPED, end.cause, end.object_name, description)
    return _check_reply(simulation, back, source)


def _check_reply(simulation: Simulation, back: Arrived, source: Netns | None) -> Terminated:
    expected = simulation.sent_flow.reverse
    if back.skb.flow == expected and (back.unseen or back.netns == source):
        return Terminated(Outcome.DELIVERED)
    got = f"{back.skb.flow.src}:{back.skb.flow.sport}"
    description = (
        f"the answer reaches its sender from {got}, not from {expected.src}:{expected.sport}"
    )
    if simulation.bypassed:
        object_name = simulation.bypassed[-1]
        return simulation.end(
            back.skb,
            Outcome.DROPPED,
            CauseId.BRIDGE_NF_OFF,
            object_name,
            f"{description} ({object_name})",
        )
    return simulation.end(back.skb, Outcome.DROPPED, CauseId.REPLY_NOT_TRANSLATED, got, description)


def _branch(simulation: Simulation, end: Terminated) -> Branch:
    return Branch(
        weight=1.0,
        steps=tuple(simulation.steps),
        outcome=end.outcome,
        deterministic=simulation.choices.certain,
        backend=_backend(simulation),
        cause=end.cause,
        object=end.object_name,
        description=end.description,
        notes=tuple(simulation.notes),
    )


def _backend(simulation: Simulation) -> Endpoint | None:
    """Return the last destination that rules gave the packet on its way out, or an
    endpoint's own.
    """
    flow: Flow | None = None
    for step in simulation.steps:
        if step.action == "reply":
            break
        if step.action == "dnat" or (step.action == "delivered" and flow is None):
            flow = step.packet.innermost.flow
    if flow is None:
        flow = simulation.asked
        return simulation.topology.endpoint(flow.dst, flow.dport, flow.protocol)
    known = simulation.topology.endpoint(flow.dst, flow.dport, flow.protocol)
    return known or Endpoint(address=flow.dst, port=flow.dport, protocol=flow.protocol)

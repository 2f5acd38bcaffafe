"""connect(): a program on it may put a backend in the place of a Service's address.

In: the packet as its sender asks for it, before there is one. Out: the packet as the socket will
send it; or the End, where the program refuses the call. What comes back is not touched: the socket
knows the backend only, so an answer from it is what it expects.

An address that no frontend has is looked up again where it is a node's: one frontend stands for the
node port on every node (bpf/bpf_sock.c, sock4_wildcard_lookup).
"""

from __future__ import annotations

from kptrace.model import CauseId, Netns, Outcome, RuleRef, SimulatedStep
from kptrace.simulate.bpf.programs import ANY, BpfDatapath, Frontend
from kptrace.simulate.ip.skb import Skb
from kptrace.simulate.simulation import Simulation
from kptrace.simulate.stages import Terminated


def translate(simulation: Simulation, skb: Skb) -> None:
    node = simulation.topology.snapshot(Netns(node=skb.netns.node))
    programs = node.programs if node else None
    if programs is None:
        return
    if programs.frontends is None:
        _unread(simulation, skb, programs)
        return
    found = _frontend(simulation, skb, programs)
    if found is None:
        return
    if found.left:
        simulation.choices.certain = False
        simulation.remark(found.left)
        return
    if not found.backends:
        description = f"{found.text} has no backend: {programs.owner} lets connect() fail"
        raise simulation.end(
            skb, Outcome.NO_ENDPOINTS, CauseId.NO_ENDPOINTS, found.text, description
        )
    if found.remembers:
        simulation.remark(
            "a client that was there before is kept to its backend (ClientIP affinity)"
        )
    chosen = simulation.choices.pick([1.0] * len(found.backends))
    skb.set_destination(*found.backends[chosen])
    simulation.sent_flow = skb.flow
    simulation.steps.append(
        SimulatedStep(
            netns=skb.netns,
            action="dnat",
            packet=skb.packet,
            hook="connect",
            rule=_rule(skb, programs, found, chosen + 1),
            description=f"{programs.owner} puts a backend in its place at connect()",
            deterministic=simulation.choices.certain,
        )
    )


def stop_where_devices_translate(simulation: Simulation, skb: Skb, socket: bool) -> None:
    """A packet that programs on devices translate, which are not read: what is left to them at
    connect(), and all that comes from outside.
    """
    node = simulation.topology.snapshot(Netns(node=skb.netns.node))
    programs = node.programs if node else None
    found = _frontend(simulation, skb, programs) if programs and programs.frontends else None
    if programs is None or found is None or (socket and not found.left):
        return
    description = found.left or f"{programs.owner} translates what comes from outside on devices"
    simulation.choices.certain = False
    raise Terminated(Outcome.INCONCLUSIVE, None, "", f"{description}: its programs are not read")


def _frontend(simulation: Simulation, skb: Skb, programs: BpfDatapath) -> Frontend | None:
    flow = skb.flow
    found = programs.frontend(flow.dst, flow.dport, flow.protocol)
    home = simulation.topology.home(flow.dst) if found is None else None
    if home is None or home.pod:
        return found
    return programs.frontend(ANY[skb.family == 6], flow.dport, flow.protocol)


def _unread(simulation: Simulation, skb: Skb, programs: BpfDatapath) -> None:
    flow = skb.flow
    if simulation.topology.is_service(flow.dst) or flow.dport in simulation.topology.node_ports:
        description = (
            f"{programs.owner} translates {flow.dst} at connect(), from maps that were not read"
        )
        simulation.choices.certain = False
        raise Terminated(Outcome.INCONCLUSIVE, None, "", description)


def _rule(skb: Skb, programs: BpfDatapath, found: Frontend, slot: int) -> RuleRef:
    address, port = found.backends[slot - 1]
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return RuleRef(
        backend="bpf",
        family="ip6" if skb.family == 6 else "ip",
        table=programs.table,
        chain=found.text.split(" ")[0],
        number=slot,
        text=f"{found.text} slot {slot} -> {where}",
        description=f"backend {slot} of {len(found.backends)}, chosen at connect()",
    )

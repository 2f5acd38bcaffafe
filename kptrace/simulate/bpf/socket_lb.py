"""connect(): a program on it may replace a Service's address by a backend.

The answer is not touched: the socket knows the backend only, so an answer from it is what the
socket expects.

An address that no frontend has is looked up again where it is a node's: one frontend stands for the
node port on every node (bpf/bpf_sock.c, sock4_wildcard_lookup).
"""

from __future__ import annotations

from kptrace.model import CauseId, Netns, NoteKind, Outcome, RuleRef, SimulatedStep
from kptrace.simulate.bpf.programs import ANY_NODE_ADDRESS, BpfDatapath, Frontend
from kptrace.simulate.ip.skb import Skb
from kptrace.simulate.simulation import Simulation
from kptrace.simulate.stages import Terminated


def translate(simulation: Simulation, skb: Skb) -> None:
    """Translate the destination of ``skb`` as the node's programs do at connect(); changes ``skb``.

    Raises Terminated where the program lets connect() fail or its maps were not read.
    """
    node = simulation.topology.snapshot(Netns(node=skb.netns.node))
    programs = node.programs if node else None
    if programs is None:
        return
    if programs.frontends is None:
        _stop_at_unread_maps(simulation, skb, programs)
        return
    frontend = _frontend(simulation, skb, programs)
    if frontend is None:
        return
    if frontend.left:
        simulation.choices.certain = False
        simulation.add_note(NoteKind.BPF_NOT_READ, frontend.left)
        return
    if not frontend.backends:
        description = f"{frontend.text} has no backend: {programs.owner} lets connect() fail"
        raise simulation.end(
            skb, Outcome.NO_ENDPOINTS, CauseId.NO_ENDPOINTS, frontend.text, description
        )
    if frontend.remembers:
        simulation.add_note(
            NoteKind.NEW_CLIENT_ASSUMED,
            "a client that was there before is kept to its backend (ClientIP affinity)",
        )
    chosen = simulation.choices.pick([1.0] * len(frontend.backends))
    skb.set_destination(*frontend.backends[chosen])
    simulation.sent_flow = skb.flow
    simulation.steps.append(
        SimulatedStep(
            netns=skb.netns,
            action="dnat",
            packet=skb.packet,
            hook="connect",
            rule=_rule(skb, programs, frontend, chosen + 1),
            description=f"{programs.owner} puts a backend in its place at connect()",
            deterministic=simulation.choices.certain,
        )
    )


def stop_where_devices_translate(simulation: Simulation, skb: Skb, socket: bool) -> None:
    """End the simulation of a packet that programs on devices translate, which are not read.

    These are the frontends that are left to them at connect(), and all that comes from outside.
    Raises Terminated (inconclusive).
    """
    node = simulation.topology.snapshot(Netns(node=skb.netns.node))
    programs = node.programs if node else None
    frontend = _frontend(simulation, skb, programs) if programs and programs.frontends else None
    if programs is None or frontend is None or (socket and not frontend.left):
        return
    description = frontend.left or f"{programs.owner} translates what comes from outside on devices"
    simulation.choices.certain = False
    raise Terminated(Outcome.INCONCLUSIVE, None, "", f"{description}: its programs are not read")


def _frontend(simulation: Simulation, skb: Skb, programs: BpfDatapath) -> Frontend | None:
    flow = skb.flow
    frontend = programs.frontend(flow.dst, flow.dport, flow.protocol)
    home = simulation.topology.home(flow.dst) if frontend is None else None
    if home is None or home.pod:
        return frontend
    return programs.frontend(ANY_NODE_ADDRESS[skb.family.position], flow.dport, flow.protocol)


def _stop_at_unread_maps(simulation: Simulation, skb: Skb, programs: BpfDatapath) -> None:
    flow = skb.flow
    if simulation.topology.is_service(flow.dst) or flow.dport in simulation.topology.node_ports:
        description = (
            f"{programs.owner} translates {flow.dst} at connect(), from maps that were not read"
        )
        simulation.choices.certain = False
        raise Terminated(Outcome.INCONCLUSIVE, None, "", description)


def _rule(skb: Skb, programs: BpfDatapath, frontend: Frontend, slot: int) -> RuleRef:
    address, port = frontend.backends[slot - 1]
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return RuleRef(
        backend="bpf",
        family=skb.family,
        table=programs.table,
        chain=frontend.text.split(" ")[0],
        number=slot,
        text=f"{frontend.text} slot {slot} -> {where}",
        description=f"backend {slot} of {len(frontend.backends)}, chosen at connect()",
    )

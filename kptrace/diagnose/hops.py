"""A Case's sightings and rule hits -> hops: where the packet was and what was done to it there.

Each sighting is a hop. Between two of them the packet may look different: that is a DNAT, an SNAT,
an encapsulation or its end, and a hop of its own, with the rule that did it where the rule trace
told one. What nobody saw but what must have happened (the route between two interfaces) is marked
``observed=False``.

Where a DNAT shows depends on the bridge: with bridge-nf-call-iptables=1 the nat table runs at the
bridge port, so cni0 already shows the backend; with 0 cni0 still shows the ClusterIP. So the hop
stands between the two interfaces where the packet changed, whatever they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kptrace.diagnose.chain_traversal import DNAT, SNAT, MatchedRuleEvent
from kptrace.diagnose.encapsulation import carried, opaque
from kptrace.diagnose.ipvs_backend import confirmed, told
from kptrace.diagnose.probe_evidence import ProbeEvidence
from kptrace.model import (
    CapturedPacket,
    Flow,
    Hop,
    HopAction,
    Netns,
    Packet,
    RuleRef,
    SimulatedStep,
)
from kptrace.rules.model.expressions import Redirect


def forward_hops(evidence: ProbeEvidence, delivered: bool) -> tuple[Hop, ...]:
    """The way out. ``delivered``: the last sighting is the backend's, and it took the packet."""
    hops: list[Hop] = []
    previous = _socket(evidence)
    if previous is not None:
        whose = "the pod" if previous.netns.pod else "the node"
        hops.append(_hop(evidence, previous, "sent", f"by a socket of {whose}"))
    last = evidence.last
    for sighting in evidence.journey.forward:
        if previous is not None:
            between = tuple(_between(evidence, previous, sighting))
            if between and between[-1].action == "encap" and hops[-1].action == "seen":
                hops.pop()  # the tunnel device's own sighting: the encapsulation says it better
            hops += between
        action: HopAction = "seen" if hops else "sent"
        if previous is not None and previous.packet.tunnel and not sighting.packet.tunnel:
            action = "decap"
        if sighting is last and delivered:
            action = "delivered"
            hops += _redirected(evidence, sighting)
        hops.append(
            _hop(evidence, sighting, action, _seen_words(evidence, sighting, action, previous))
        )
        previous = sighting
    return tuple(hops)


def _redirected(evidence: ProbeEvidence, last: CapturedPacket) -> Iterator[Hop]:
    """By the receiving pod's own rules, behind its last tap: the sidecar of a service mesh."""
    flow = last.packet.innermost.flow
    for traversal in evidence.passages:
        redirect = traversal.nat_rule(Redirect) if traversal.place == last.netns else None
        if redirect is None or traversal.hook != "prerouting" or not redirect[0].redirected:
            continue
        met, via = redirect
        port = met.redirected
        packet = msgspec.structs.replace(
            last.packet.innermost, flow=msgspec.structs.replace(flow, dport=port)
        )
        yield Hop(
            node=last.netns.node,
            netns=last.netns.name,
            interface=last.interface,
            direction=last.direction,
            action="dnat",
            packet=packet,
            rule=met.ref,
            preceding_rules=tuple(event.ref for event in via),
            description=f"{_end(flow.dst, flow.dport)} => {_end(flow.dst, port)}",
            rewrites=(("dport", str(flow.dport), str(port)),),
        )


def _socket(evidence: ProbeEvidence) -> CapturedPacket | None:
    """Where a packet begins that no tap shows so, but its socket knows: a node's own, before
    OUTPUT; a pod's, if it was changed before the first tap: by a program at connect(), or by rules
    of the pod's own namespace.
    """
    returned = evidence.returned
    if returned is None or not returned.sent_ns:
        return None
    first = next(iter(evidence.journey.forward), None)
    if evidence.source.netns.pod and not (first and _changed_before(first, returned.flow)):
        return None
    bare = Packet(flow=returned.flow, flags="S" if returned.flow.protocol == "tcp" else "")
    packet = first.packet.innermost if first else bare
    return CapturedPacket(
        netns=evidence.source.netns,
        interface="",
        ifindex=0,
        direction="out",
        packet=msgspec.structs.replace(packet, flow=returned.flow),
        time_ns=first.time_ns if first else returned.sent_ns,
        probe_id=returned.probe_id,
    )


def _changed_before(first: CapturedPacket, asked: Flow) -> bool:
    flow = first.packet.innermost.flow
    return bool(first.netns.pod) and (flow.dst, flow.dport) != (asked.dst, asked.dport)


def back_hops(evidence: ProbeEvidence) -> tuple[Hop, ...]:
    """The answer's way, every sighting of it."""
    hops = []
    previous: CapturedPacket | None = None
    for sighting in evidence.journey.back:
        inner = sighting.packet.innermost
        before = previous.packet.innermost.flow if previous else None
        changed = _changes(before, inner.flow) if before else ()
        hop = _hop(evidence, sighting, "reply", _answer_words(inner))
        hops.append(msgspec.structs.replace(hop, rewrites=changed))
        previous = sighting
    return tuple(hops)


def changed_at_the_end(evidence: ProbeEvidence) -> Iterator[Hop]:
    """What rules did to the packet after the last tap and before it was dropped."""
    last, packet = evidence.last, evidence.packet_when_dropped
    if last is None or packet is None or last.packet.tunnel:
        return
    old, new = last.packet.innermost.flow, packet.flow
    end = msgspec.structs.replace(last, interface="", direction="out", packet=packet)
    if (old.dst, old.dport) != (new.dst, new.dport):
        yield _nat(evidence, last, end, "dnat")
    if (old.src, old.sport) != (new.src, new.sport):
        yield _nat(evidence, last, end, "snat")


def _between(
    evidence: ProbeEvidence, before: CapturedPacket, after: CapturedPacket
) -> Iterator[Hop]:
    old, new = before.packet.innermost.flow, after.packet.innermost.flow
    if (old.dst, old.dport) != (new.dst, new.dport):
        yield _nat(evidence, before, after, "dnat")
    arrived = before.direction == "in" or not before.interface
    if before.netns == after.netns and arrived and after.direction == "out":
        yield from _route(evidence, after)
    if (old.src, old.sport) != (new.src, new.sport):
        yield _nat(evidence, before, after, "snat")
    if after.packet.tunnel and not before.packet.tunnel:
        yield _encap(evidence, before, after)


def _nat(
    evidence: ProbeEvidence, before: CapturedPacket, after: CapturedPacket, action: HopAction
) -> Hop:
    old, new = before.packet.innermost.flow, after.packet.innermost.flow
    netns = after.netns if before.direction == "out" and not before.netns.pod else before.netns
    if before.netns.pod and not after.netns.pod:
        netns = after.netns
    nat_event = _rewriter(evidence, netns.node, DNAT if action == "dnat" else SNAT, old)
    changed = tuple(
        change
        for change in _changes(old, new)
        if change[0] in (("dst", "dport") if action == "dnat" else ("src", "sport"))
    )
    observed = nat_event is not None
    rule, via = (
        _refs(nat_event) if nat_event else (_predicted_rule(evidence, action, netns.node), ())
    )
    if rule is not None and rule.backend == "ipvs":
        by = confirmed(evidence, netns.node, old, new)
        observed = bool(by)
        rule, via = told(evidence, netns.node, rule, by, old.src)
    return Hop(
        node=netns.node,
        netns=netns.name,
        interface=after.interface,
        direction=after.direction,
        action=action,
        packet=_rewritten(before.packet, new, action),
        rule=rule,
        preceding_rules=via,
        description=_nat_words(old, new, action),
        rewrites=changed,
        observed=observed,
    )


def _rewriter(
    evidence: ProbeEvidence, node: str, kinds: tuple[type, ...], old: Flow
) -> tuple[MatchedRuleEvent, tuple[MatchedRuleEvent, ...]] | None:
    for traversal in evidence.passages:
        if traversal.place.node == node and not traversal.outer:
            nat_event = traversal.nat_rule(*kinds)
            if nat_event:
                return nat_event
    return None


def _refs(
    event_and_path: tuple[MatchedRuleEvent, tuple[MatchedRuleEvent, ...]],
) -> tuple[RuleRef, tuple[RuleRef, ...]]:
    met, via = event_and_path
    return met.ref, tuple(event.ref for event in via)


def _predicted_rule(evidence: ProbeEvidence, action: str, node: str) -> RuleRef | None:
    """Without a rule trace: the rule that must have done it, if the branch is the one taken."""
    for step in evidence.branch.steps if evidence.branch else ():
        if step.action == action and step.netns.node == node and step.rule:
            return step.rule
    return None


def _rewritten(packet: Packet, new: Flow, action: str) -> Packet:
    old = packet.innermost.flow
    flow = (
        Flow(protocol=old.protocol, src=old.src, sport=old.sport, dst=new.dst, dport=new.dport)
        if action == "dnat"
        else new
    )
    return msgspec.structs.replace(packet.innermost, flow=flow)


def _route(evidence: ProbeEvidence, after: CapturedPacket) -> Iterator[Hop]:
    """The routing decision that this packet took, known from the device it left by."""
    step = _route_step(evidence, after)
    if step is None:
        return
    passed = tuple(
        met.ref
        for traversal in evidence.passages
        if traversal.place == after.netns and traversal.hook == "forward" and not traversal.outer
        if (by := traversal.accepted_by) is not None
        for met in (*traversal.leading_to(by), by)
    )
    yield Hop(
        node=after.netns.node,
        netns=after.netns.name,
        interface=after.interface,
        direction="",
        action="route",
        packet=after.packet.innermost,
        preceding_rules=passed,
        description=step.description,
        observed=False,
    )


def _route_step(evidence: ProbeEvidence, after: CapturedPacket) -> SimulatedStep | None:
    for step in evidence.branch.steps if evidence.branch else ():
        same = step.packet.innermost.flow.dst == after.packet.innermost.flow.dst
        if step.action == "route" and step.netns == after.netns and same:
            return step
    return None


def _encap(evidence: ProbeEvidence, before: CapturedPacket, after: CapturedPacket) -> Hop:
    return Hop(
        node=after.netns.node,
        netns=after.netns.name,
        interface=before.interface,
        direction="out",
        action="encap",
        packet=after.packet,
        offset_us=evidence.journey.offset_us(before.netns.node, before.time_ns),
        description=carried(evidence, before, after),
    )


def _hop(evidence: ProbeEvidence, sighting: CapturedPacket, action: HopAction, text: str) -> Hop:
    netns = sighting.netns
    return Hop(
        node=netns.node,
        netns=netns.name,
        interface=sighting.interface,
        direction=sighting.direction,
        action=action,
        packet=sighting.packet,
        offset_us=evidence.journey.offset_us(netns.node, sighting.time_ns),
        description=text,
    )


def _seen_words(
    evidence: ProbeEvidence,
    sighting: CapturedPacket,
    action: HopAction,
    previous: CapturedPacket | None,
) -> str:
    link = evidence.link(sighting.netns, sighting.interface)
    # A bridge port passes on what is for other MACs; anything else drops it.
    if sighting.other_host and not (link and link.master):
        return f"addressed to {sighting.dst_mac or 'another MAC'}, which is not this interface's"
    if action == "decap" and previous is not None and previous.packet.tunnel:
        tunnel = previous.packet.tunnel
        vni = f" {tunnel.vni}" if tunnel.vni is not None else ""
        return f"{tunnel.kind.upper()}{vni} taken off"
    return opaque(evidence, sighting) or _handed_past(evidence, sighting, previous)


def _handed_past(
    evidence: ProbeEvidence, sighting: CapturedPacket, previous: CapturedPacket | None
) -> str:
    """A program gave it from one device to another (bpf_redirect_peer, BPF host routing), so that
    the devices in between, which it should have crossed, showed nothing.
    """
    if previous is None:
        return ""
    steps = [
        step for step in (evidence.branch.steps if evidence.branch else ()) if step.action == "seen"
    ]
    where = [(step.netns, step.interface, step.direction) for step in steps]
    ends = [(s.netns, s.interface, s.direction) for s in (previous, sighting)]
    if not all(end in where for end in ends):
        return ""
    passed = steps[where.index(ends[0]) + 1 : where.index(ends[1])]
    if not passed or not all(evidence.silent(step) for step in passed):
        return ""
    node = evidence.snapshots.get(Netns(node=sighting.netns.node))
    owner = node.programs.owner if node and node.programs else "a program"
    flow = sighting.packet.innermost.flow
    names = ", ".join(dict.fromkeys(step.interface for step in passed))
    return f"from {_end(flow.src, flow.sport)}, handed past {names} by {owner}'s program"


def _answer_words(packet: Packet) -> str:
    if packet.icmp is not None:
        return f"{icmp_words(packet)} from {packet.flow.src}"
    return {"SA": "SYN-ACK", "RA": "RST", "R": "RST"}.get(packet.flags, packet.flags or "answer")


ICMP_WORDS = {
    4: {
        (3, 0): "network unreachable",
        (3, 1): "host unreachable",
        (3, 2): "protocol unreachable",
        (3, 3): "port unreachable",
        (3, 4): "fragmentation needed",
        (3, 9): "network prohibited",
        (3, 10): "host prohibited",
        (3, 13): "administratively prohibited",
        (11, 0): "time exceeded",
    },
    6: {
        (1, 0): "no route",
        (1, 1): "administratively prohibited",
        (1, 3): "address unreachable",
        (1, 4): "port unreachable",
        (1, 5): "source address failed policy",
        (1, 6): "reject route",
        (2, 0): "packet too big",
        (3, 0): "time exceeded",
    },
}


def icmp_words(packet: Packet) -> str:
    """``ICMP port unreachable``; numbers where the pair has no common name."""
    assert packet.icmp is not None
    name = ICMP_WORDS[packet.flow.family.version].get(
        packet.icmp, f"type {packet.icmp[0]} code {packet.icmp[1]}"
    )
    return f"ICMP {name}"


def _nat_words(old: Flow, new: Flow, action: str) -> str:
    if action == "dnat":
        return f"{_end(old.dst, old.dport)} => {_end(new.dst, new.dport)}"
    return f"{_end(old.src, old.sport)} => {_end(new.src, new.sport)}"


def _end(address: str, port: int) -> str:
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _changes(old: Flow, new: Flow) -> tuple[tuple[str, str, str], ...]:
    return tuple(
        (name, str(getattr(old, name)), str(getattr(new, name)))
        for name in ("src", "sport", "dst", "dport")
        if getattr(old, name) != getattr(new, name)
    )

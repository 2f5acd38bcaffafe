"""Causes between the nodes: sent out by the one, never come in at the other.

No kernel that was looked at threw the packet away, so what joins the nodes did: a security group, a
firewall, a router without a route to the pods, a switch that carries no packet of an address that
it does not know. What it must let pass depends on what is on the wire: the tunnel's own packet, or
the pods' addresses as they are.
"""

from __future__ import annotations

from collections.abc import Iterator

from kptrace.judge.case import Case
from kptrace.judge.words import answered, last_seen, next_predicted
from kptrace.model import Finding, Flow, Packet, Sighting, Step

_PROTOCOLS = {"ipip": "IP protocol 4 (IP in IP)", "gre": "IP protocol 47 (GRE)"}


def diagnose(case: Case) -> Iterator[Finding]:
    """To be asked when the taps of both nodes were there and nobody else knows."""
    last, following = answered(case) or case.last, next_predicted(case)
    if last is None or following is None or not _between_nodes(case, last, following):
        return
    flow, other = last.packet.flow, following.place.node
    what = "the answer" if answered(case) else "it"
    evidence = [*last_seen(case), "neither kernel reported that it threw the packet away"]
    yield Finding(
        cause="lost-between-nodes",
        severity="error",
        node="",
        object=f"between {last.place.node} and {other}",
        summary=f"{what} left {last.interface} of {last.place.node} "
        f"{_as(last.packet)} and never came to {following.interface} of {other}",
        evidence=tuple(evidence),
        remedy=tuple(_mends(last.packet, flow, following)),
    )


def _between_nodes(case: Case, last: Sighting, following: Step) -> bool:
    """From one node's own link to another's: a tunnel device, too, hands over to such a link."""
    out = last.direction == "out" and not last.place.pod
    into = following.direction == "in" and not following.place.pod
    apart = last.place.node != following.place.node
    return out and into and apart and not case.is_tunnel(last.place, last.interface)


def _as(packet: Packet) -> str:
    flow = packet.flow
    if packet.tunnel is None:
        return f"for {flow.dst}"
    return f"as {packet.tunnel.kind.upper()} for {flow.dst}"


def _mends(packet: Packet, flow: Flow, following: Step) -> Iterator[str]:
    where = f"  # on {following.place.node}: does any come in?"
    if packet.tunnel is None:
        yield (
            f"let packets from {flow.src} to {flow.dst} pass between the nodes: they carry pods' "
            "addresses, so clouds need a route to each node's pod range and the check of source "
            "and destination turned off on the nodes' interfaces"
        )
        yield f"tcpdump -ni {following.interface} host {flow.dst}{where}"
        return
    port = f"UDP port {flow.dport}" if flow.protocol == "udp" else ""
    wanted = port or _PROTOCOLS.get(packet.tunnel.kind, flow.protocol)
    yield (
        f"let {wanted} pass from {flow.src} to {flow.dst}, both ways: security groups, firewalls "
        "and network policies of whatever joins the nodes"
    )
    if packet.tunnel.kind == "ipip":
        yield "or use VXLAN: some clouds (Azure) carry no IP in IP at all"
    match = f"udp port {flow.dport}" if port else f"ip proto {4 if flow.protocol == 'ipip' else 47}"
    yield f"tcpdump -ni {following.interface} {match} and host {flow.src}{where}"

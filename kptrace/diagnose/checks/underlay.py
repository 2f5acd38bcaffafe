"""Causes between the nodes: sent out by the one, never come in at the other.

What leaves a device is seen by its tap last of all, and what comes in first of all. So if both taps
were there and lost nothing, what joins the nodes lost the packet: a security group, a firewall, a
router without a route to the pods, a switch that carries no packet of an address that it does not
know. What it must let pass depends on what is on the wire: the tunnel's own packet, or the pods'
addresses as they are. Only an XDP program of the other node stands before its tap, and no kernel
reports what that drops.
"""

from __future__ import annotations

from collections.abc import Iterator

from kptrace.diagnose.checks import xdp
from kptrace.diagnose.phrases import answered, last_seen, next_predicted
from kptrace.diagnose.probe_evidence import ProbeEvidence
from kptrace.model import CapturedPacket, EvidenceSource, Finding, Flow, Packet, SimulatedStep

_PROTOCOLS = {"ipip": "IP protocol 4 (IP in IP)", "gre": "IP protocol 47 (GRE)"}


def diagnose(evidence: ProbeEvidence, known: tuple[EvidenceSource, ...]) -> Iterator[Finding]:
    last, following = answered(evidence) or evidence.last, next_predicted(evidence)
    if last is None or following is None or not _between_nodes(evidence, last, following):
        return
    if not (_tapped(known, last.netns.node) and _tapped(known, following.netns.node)):
        return
    end = evidence.link(following.netns, following.interface)
    if end is not None and end.xdp:
        yield xdp.perhaps(evidence, following, end.xdp)
        return
    flow, other = last.packet.flow, following.netns.node
    what = "the answer" if answered(evidence) else "it"
    lines = [*last_seen(evidence), *_nor_reported(known, last.netns.node, other)]
    yield Finding(
        cause="lost-between-nodes",
        severity="error",
        node="",
        object=f"between {last.netns.node} and {other}",
        summary=f"{what} left {last.interface} of {last.netns.node} "
        f"{_as(last.packet)} and never came to {following.interface} of {other}",
        evidence=tuple(lines),
        remedy=tuple(_mends(last.packet, flow, following)),
    )


def _tapped(known: tuple[EvidenceSource, ...], node: str) -> bool:
    taps = [layer for layer in known if (layer.name, layer.node) == ("capture", node)]
    return bool(taps) and not any(layer.unavailable or layer.lost for layer in taps)


def _nor_reported(known: tuple[EvidenceSource, ...], *nodes: str) -> Iterator[str]:
    asked = [layer for layer in known if layer.name == "drops" and layer.node in nodes]
    if len(asked) == len(nodes) and not any(layer.unavailable or layer.lost for layer in asked):
        yield "neither kernel reported that it threw the packet away"


def _between_nodes(evidence: ProbeEvidence, last: CapturedPacket, following: SimulatedStep) -> bool:
    """From one node's own link to another's: a tunnel device, too, hands over to such a link."""
    out = last.direction == "out" and not last.netns.pod
    into = following.direction == "in" and not following.netns.pod
    apart = last.netns.node != following.netns.node
    return out and into and apart and not evidence.is_tunnel(last.netns, last.interface)


def _as(packet: Packet) -> str:
    flow = packet.flow
    if packet.tunnel is None:
        return f"for {flow.dst}"
    return f"as {packet.tunnel.kind.upper()} for {flow.dst}"


def _mends(packet: Packet, flow: Flow, following: SimulatedStep) -> Iterator[str]:
    where = f"  # on {following.netns.node}: does any come in?"
    if packet.tunnel is None:
        yield (
            f"let packets from {flow.src} to {flow.dst} pass between the nodes: they carry pods' "
            "addresses, so clouds need a route to each node's pod range and the check of source "
            "and destination turned off on the nodes' interfaces"
        )
        yield f"tcpdump -ni {following.interface} host {flow.dst}{where}"
        return
    port = f"UDP port {flow.dport}" if flow.protocol == "udp" else ""
    requested = port or _PROTOCOLS.get(packet.tunnel.kind, flow.protocol)
    yield (
        f"let {requested} pass from {flow.src} to {flow.dst}, both ways: security groups, "
        "firewalls "
        "and network policies of whatever joins the nodes"
    )
    if packet.tunnel.kind == "ipip":
        yield "or use VXLAN: some clouds (Azure) carry no IP in IP at all"
    match = f"udp port {flow.dport}" if port else f"ip proto {4 if flow.protocol == 'ipip' else 47}"
    yield f"tcpdump -ni {following.interface} {match} and host {flow.src}{where}"

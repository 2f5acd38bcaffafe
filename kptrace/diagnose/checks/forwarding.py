"""Causes in the node's own forwarding: sysctls, routes, neighbours, links.

The kernel's drop reason names most of them (``ip_error`` drops with IP_INADDRERRORS when
forwarding is off, IP_INNOROUTES without a route); the snapshot says which sysctl or route that is.
A packet that a missing pod route sends out by the default route is not dropped on the node at all:
it leaves, un-encapsulated, for a gateway.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from kptrace.diagnose.phrases import answered, drop_report, end, entry_words, last_seen
from kptrace.diagnose.probe_evidence import ProbeEvidence
from kptrace.model import CapturedPacket, Finding, Netns, Node

FORWARDING_OFF = ("IP_INADDRERRORS", "IP_INNOROUTES", "NOT_SPECIFIED")


def diagnose(evidence: ProbeEvidence) -> Iterator[Finding]:
    last = evidence.last
    if last is None:
        return
    ends = (last, *evidence.journey.back[-1:])
    for seen in ends:
        if seen.direction == "in" and not seen.netns.pod:
            yield from _off(evidence, seen)
            break
    yield from _route_missing(evidence, last)
    yield from _too_big(evidence)


def _off(evidence: ProbeEvidence, last: CapturedPacket) -> Iterator[Finding]:
    """Forwarding is off on the interface that the packet came in by, and it went no further.

    Under IPVS the node sends the packet itself, so it is the answer that is not forwarded.
    """
    snapshot = evidence.snapshots.get(last.netns)
    final = last.packet.innermost.flow
    if snapshot is None or snapshot.holds(final.dst):
        return
    family = final.family
    interface = snapshot.conf(family, last.interface, "forwarding")
    if interface != 0:
        return
    whole = "net.ipv6.conf.all.forwarding" if final.ipv6 else "net.ipv4.ip_forward"
    everywhere = snapshot.sysctl(whole) == 0
    device = last.interface.replace(".", "/")  # as sysctl(8) writes it
    name = whole if everywhere else f"net.ipv{family.version}.conf.{device}.forwarding"
    node = last.netns.node
    lines = [f"sysctl {name} = 0 on {node}", *last_seen(evidence)]
    if last is not evidence.last:
        lines.append(f"its answer was last seen going in on {last.interface} of {node}")
    lines += [drop_report(evidence, d) for d in evidence.drops if d.node == node][:1]
    yield Finding(
        cause="ip-forward-off",
        severity="error",
        node=node,
        object=name,
        summary=f"{node} forwards nothing that comes in by {last.interface}: {name} is 0",
        evidence=tuple(lines),
        remedy=(
            f"sysctl -w {name}=1  # on {node}",
            "and find what set it: grep -r forward /etc/sysctl.conf /etc/sysctl.d",
        ),
    )


def _route_missing(evidence: ProbeEvidence, last: CapturedPacket) -> Iterator[Finding]:
    """The packet, or its answer, was for a pod of another node, but the node where it was lost had
    no route to that node's pods.
    """
    answer = answered(evidence)
    lost, requested = (answer, answer.packet.innermost.flow.dst) if answer else (last, "")
    backend = evidence.backend
    if answer is None and backend is not None:
        requested = backend[0]
    owner = _pod_range(evidence, requested) if requested else None
    at = _where_lost(evidence, lost)
    if owner is None or at is None or at.node == owner[0].name:
        return
    node, cidr = owner
    snapshot = evidence.snapshots.get(at)
    address = ip_address(requested)
    if snapshot is None or any(
        address in route.destination and not route.default for route in snapshot.routes
    ):
        return
    which = "the answer" if answer else "it"
    lines = [*last_seen(evidence)]
    if lost.direction == "out":
        flow = lost.packet.innermost.flow
        lines.append(
            f"{which} left {lost.interface} of {at.node} without encapsulation, "
            f"for {end(requested, flow.dport)}, by the default route"
        )
    lines += [drop_report(evidence, d) for d in evidence.drops[:1]]
    lines.append(f"the routes of {at.node} have none to {cidr}, the pod range of {node.name}")
    if evidence.entry is not None:
        lines.append(entry_words(evidence.entry))
    back = ": the packet arrives, its answer does not" if answer else ""
    yield Finding(
        cause="pod-route-missing",
        severity="error",
        node=at.node,
        object=f"route to {cidr}",
        summary=f"{at.node} has no route to {cidr}, the pods of {node.name}{back}",
        evidence=tuple(lines),
        remedy=(
            f"restart the CNI's pod on {at.node}: it writes its routes anew",
            f"ip route get {requested}  # on {at.node}: should name the tunnel or {node.name}",
        ),
    )


def _where_lost(evidence: ProbeEvidence, last: CapturedPacket) -> Netns | None:
    """The node that had to route the packet when it was lost."""
    if last.packet.tunnel is not None:
        return None
    return Netns(node=last.netns.node)


def _pod_range(evidence: ProbeEvidence, address: str) -> tuple[Node, str] | None:
    requested = ip_address(address)
    for node in evidence.documents.nodes:
        for cidr in node.pod_cidrs:
            if requested in ip_network(cidr, strict=False):
                return node, cidr
    return None


def _too_big(evidence: ProbeEvidence) -> Iterator[Finding]:
    drop = evidence.dropped_for("PKT_TOO_BIG")
    if drop is None:
        return
    yield Finding(
        cause="mtu-exceeded",
        severity="error",
        node=drop.node,
        object=f"MTU of {drop.interface}" if drop.interface else "MTU",
        summary=f"the packet is larger than {drop.interface or 'a link'} of {drop.node} takes",
        evidence=(drop_report(evidence, drop), *last_seen(evidence)),
        remedy=("set the pods' MTU to the underlay's less the encapsulation (VXLAN 50, IPIP 20)",),
    )

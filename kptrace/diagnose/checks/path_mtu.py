"""Packets larger than the probe: a link on the way that swallows them without a word.

A probe is small and shows nothing of this; the MTUs that were read do. Where a node has to send on
what does not fit, it tells the sender (ICMP fragmentation needed, RFC 1191) or cuts the packet:
that is how it should be, and no finding. But what crosses a link as a frame is nobody's to answer
for: the other end of a veth and a bridge's port drop what is larger than their own MTU silently
(is_skb_forwardable, net/core/dev.c; they allow four bytes more, for a VLAN tag), and so may another
node's device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kptrace.diagnose.phrases import there, whose
from kptrace.diagnose.probe_evidence import ProbeEvidence
from kptrace.model import Finding, Netns, SimulatedStep
from kptrace.simulate.snapshot.network import Link


class MtuBottleneck(NamedTuple):
    """room: how large a packet of the sender's may be there"""

    step: SimulatedStep
    link: Link
    room: int


def diagnose(evidence: ProbeEvidence) -> Iterator[Finding]:
    steps = evidence.branch.steps if evidence.branch else ()
    split = next((n for n, step in enumerate(steps) if step.action == "reply"), len(steps))
    for way in (steps[:split], steps[split:]):
        crossings = [step for step in way if step.action == "seen"]
        first = evidence.link(crossings[0].netns, crossings[0].interface) if crossings else None
        tight = _silent_link(evidence, crossings)
        if first is not None and tight is not None:
            yield _finding(crossings[0].netns, first, tight)


def _silent_link(
    evidence: ProbeEvidence, crossings: Iterable[SimulatedStep]
) -> MtuBottleneck | None:
    """The first that takes less than what may come to it."""
    limit: int | None = None
    tunnel: Link | None = None
    previous: tuple[SimulatedStep, Link] | None = None
    for step in crossings:
        link = evidence.link(step.netns, step.interface)
        if link is None:
            previous = None
            continue
        carrying = tunnel if step.packet.tunnel is not None else None
        room = link.mtu - (carrying.overhead(ipv6=step.packet.flow.ipv6) if carrying else 0)
        framed = previous is not None and _as_a_frame(previous, step, link)
        if framed and limit is not None and room < limit:
            return MtuBottleneck(step, link, room)
        limit = room if limit is None else min(limit, room)
        previous, tunnel = (step, link), link if link.tunnel else tunnel
    return None


def _as_a_frame(previous: tuple[SimulatedStep, Link], step: SimulatedStep, link: Link) -> bool:
    """Whether the packet came here so, and not by a route."""
    before, other = previous
    from_bridge = other.kind == "bridge" and link.master == other.name
    return before.netns != step.netns or (from_bridge and step.direction == "out")


def _finding(sender: Netns, first: Link, tight: MtuBottleneck) -> Finding:
    step, link, room = tight.step, tight.link, tight.room
    where = f"{link.name} of {whose(step.netns)}"
    carried = f" less {link.mtu - room} for the tunnel" if room != link.mtu else ""
    return Finding(
        cause="mtu-exceeded",
        severity="warning",
        node=step.netns.node,
        object=f"MTU of {link.name} {there(step.netns)}",
        summary=f"packets of more than {room} bytes from {whose(sender)} do not fit {where}, and "
        "nobody tells their sender when they are lost",
        evidence=(
            f"the MTU of {first.name} {there(sender)} is {first.mtu}",
            f"the MTU of {where} is {link.mtu}{carried}",
        ),
        remedy=(
            f"ip link set dev {first.name} mtu {room}  # {there(sender)}; for good: in the CNI's "
            "config",
        ),
    )

"""Causes in the last step of a link: whose link address a packet was sent to.

The kernel keeps a link address for each next hop (``ip neigh``). Where nobody answers for one, the
packet waits for it and is dropped seconds later (NEIGH_FAILED). Where the address is another's,
the frame leaves, and whoever hears it drops it as not his (OTHERHOST, ip_rcv_core): that is
what an entry made by hand, a second pod with the same address or a restarted tunnel leaves behind.
"""

from __future__ import annotations

from collections.abc import Iterator

from kptrace.diagnose.hops import icmp_words
from kptrace.diagnose.phrases import drop_report, last_seen, there, whose
from kptrace.diagnose.probe_evidence import ProbeEvidence
from kptrace.model import CapturedPacket, CauseId, DropEvent, Finding, Netns
from kptrace.simulate.ip.routing import RouteQuery, lookup
from kptrace.simulate.snapshot.network import Link, Neighbour


def diagnose(evidence: ProbeEvidence) -> Iterator[Finding]:
    if evidence.last is None:
        yield from _gateway(evidence)
        return
    down = tuple(_down(evidence))
    yield from down or _failed(evidence)
    yield from _stale(evidence, evidence.last)


# --- nobody answers -------------------------------------------------------------------------------


def _failed(evidence: ProbeEvidence) -> Iterator[Finding]:
    drop = evidence.dropped_for("NEIGH_FAILED", "NEIGH_QUEUEFULL")
    if drop is None:
        return
    requested = _next(drop)
    yield Finding(
        cause="neighbour-failed",
        severity="error",
        node=drop.node,
        object=f"neighbour {requested}{_dev(drop)}".strip(),
        summary=f"nobody on {drop.interface or 'the link'} of {drop.node} answers for "
        f"{requested or 'the next hop'}",
        evidence=(drop_report(evidence, drop), *last_seen(evidence)),
        remedy=(f"ip neigh show{_dev(drop)}  # on {drop.node}: FAILED or INCOMPLETE?",),
    )


def _down(evidence: ProbeEvidence) -> Iterator[Finding]:
    """The one that should answer cannot: its only device is down."""
    owner, final = _down_device(evidence), evidence.final
    if owner is None or final is None:
        return
    netns, link = owner
    namespace, _, name = netns.pod.partition("/")
    yield Finding(
        cause="link-down",
        severity="error",
        node=netns.node,
        object=f"{link.name} of {whose(netns)}",
        summary=f"{link.name} of {whose(netns)} is down, so nobody answers for {final.dst}",
        evidence=(
            f"the flags of {link.name} {there(netns)} lack UP",
            *(drop_report(evidence, drop) for drop in evidence.drops[:1]),
            *last_seen(evidence),
        ),
        remedy=(f"kubectl -n {namespace} delete pod {name}  # a new one gets a new device",),
    )


def _down_device(evidence: ProbeEvidence) -> tuple[Netns, Link] | None:
    """The backend's own device, if it is down; the packet came as far as its node."""
    last, final = evidence.last, evidence.final
    if last is None or final is None or last.packet.tunnel is not None:
        return None
    for netns, snapshot in evidence.snapshots.items():
        held = snapshot.holds(final.dst) if netns.pod else None
        link = snapshot.link(held.interface) if held else None
        if link is not None and not link.up and netns.node == last.netns.node:
            return netns, link
    return None


def _gateway(evidence: ProbeEvidence) -> Iterator[Finding]:
    """Nothing left the sender's own device, and its own kernel says that it found nobody there."""
    netns = evidence.source.netns
    snapshot = evidence.snapshots.get(netns)
    error = next(
        (
            s
            for s in evidence.journey.back
            if s.packet.icmp in ((3, 1), (1, 3)) and s.netns == netns
        ),
        None,
    )
    known = evidence.branch.cause if evidence.branch else None
    if snapshot is None or error is None or known not in (None, CauseId.NEIGHBOUR_FAILED):
        return
    flow = evidence.returned.flow if evidence.returned else evidence.probe.flow
    result = lookup(snapshot, RouteQuery(flow=flow, mark=None))
    if snapshot.holds(error.packet.flow.src) is None or not result.nexthops:
        return
    hop = result.nexthops[0]
    requested, mine = hop.gateway or flow.dst, whose(netns)
    states = snapshot.neighbour(hop.interface, requested)
    held = f" ({', '.join(states.states)} before the probe)" if states else ""
    yield Finding(
        cause="neighbour-failed",
        severity="error",
        node=netns.node,
        object=f"neighbour {requested} dev {hop.interface} of {mine}",
        summary=f"nobody on {hop.interface} of {mine} answers for its gateway {requested}",
        evidence=(
            f"nothing left {hop.interface}, and {mine}'s own kernel told its sender "
            f"{icmp_words(error.packet)}",
            f"the route of {mine}: {result.route.text if result.route else ''}{held}",
            *(drop_report(evidence, d) for d in evidence.drops[:1]),
        ),
        remedy=(
            f"ip neigh show dev {hop.interface}  # {there(netns)}: FAILED or INCOMPLETE?",
            f"look on {netns.node} who should answer: the bridge's address, or proxy_arp and "
            "forwarding of the pod's device (Calico), or rules that drop neighbour discovery",
        ),
    )


def _next(drop: DropEvent) -> str:
    return drop.packet.flow.dst if drop.packet else ""


def _dev(drop: DropEvent) -> str:
    return f" dev {drop.interface}" if drop.interface else ""


# --- another's address ----------------------------------------------------------------------------


def _stale(evidence: ProbeEvidence, last: CapturedPacket) -> Iterator[Finding]:
    """The frame was for a link address that whoever should take it has not.

    Who sent it there is found by its neighbour entry: for the packet's own destination, or for the
    gateway of a route to it.
    """
    drop = evidence.dropped_for("OTHERHOST")
    mac = last.dst_mac
    if drop is None or not mac or drop.netns is None:
        return
    stale_entry = _entry(evidence, mac, last)
    taking = evidence.snapshots.get(drop.netns)
    if stale_entry is None or taking is None or not taking.holds(stale_entry[1].address):
        return  # a frame that was sent to all: this one dropped it rightly
    netns, entry = stale_entry
    link = taking.link(drop.interface)
    if link is None or link.mac == mac:
        return
    taker = f"{drop.interface} of {whose(drop.netns)}"
    lines = [
        f"neighbours of {whose(netns)}: {entry.address} dev {entry.interface} lladdr {mac} "
        + " ".join(entry.states),
        f"{taker} has the link address {link.mac}",
        drop_report(evidence, drop),
        *last_seen(evidence),
    ]
    yield Finding(
        cause="neighbour-stale",
        severity="error",
        node=netns.node,
        object=f"neighbour {entry.address} dev {entry.interface}"
        + (f" of {whose(netns)}" if netns.pod else ""),
        summary=f"{whose(netns)} sends what is for {entry.address} to {mac}, "
        f"but {taker} has {link.mac}",
        evidence=tuple(lines),
        remedy=tuple(_mends(evidence, netns, entry, link)),
    )


def _entry(
    evidence: ProbeEvidence, mac: str, last: CapturedPacket
) -> tuple[Netns, Neighbour] | None:
    """The neighbour entry with this link address, of whoever sent the packet on with it."""
    final = last.packet.innermost.flow
    for sighting in reversed(evidence.journey.forward):
        snapshot = evidence.snapshots.get(sighting.netns)
        if snapshot is None:
            continue
        hops = lookup(snapshot, RouteQuery(flow=final, mark=None)).nexthops
        requested = {final.dst, *(hop.gateway for hop in hops if hop.gateway)}
        for entry in snapshot.neighbours:
            if entry.mac == mac and entry.address in requested:
                return sighting.netns, entry
    return None


def _mends(evidence: ProbeEvidence, netns: Netns, entry: Neighbour, taker: Link) -> Iterator[str]:
    where, device = f"  # {there(netns)}", entry.interface
    if taker.tunnel:
        yield f"restart the CNI's pod on {netns.node}: it writes these entries anew; or by hand"
        yield (
            f"ip neigh replace {entry.address} lladdr {taker.mac} dev {device} nud permanent{where}"
        )
        for known in evidence.snapshots[netns].tunnel_entries(device, entry.mac)[:1]:
            yield f"bridge fdb replace {taker.mac} dev {device} dst {known.destination}{where}"
        return
    yield f"ip neigh del {entry.address} dev {device}{where}: it is then asked for anew"
    if entry.permanent:
        yield "and find who wrote it: an entry that is PERMANENT was not learned"
    else:
        yield f"and look whether two have the address: arping -D -I {device} {entry.address}"

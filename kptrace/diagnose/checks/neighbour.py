"""Causes in the last step of a link: whose link address a packet was sent to.

The kernel keeps a link address for each next hop (``ip neigh``). Where nobody answers for one, the
packet waits for it and is thrown away seconds later (NEIGH_FAILED). Where the address is another's,
the frame leaves, and whoever hears it throws it away as not his (OTHERHOST, ip_rcv_core): that is
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


def diagnose(case: ProbeEvidence) -> Iterator[Finding]:
    if case.last is None:
        yield from _gateway(case)
        return
    down = tuple(_down(case))
    yield from down or _failed(case)
    yield from _stale(case, case.last)


# --- nobody answers -------------------------------------------------------------------------------


def _failed(case: ProbeEvidence) -> Iterator[Finding]:
    drop = case.dropped_for("NEIGH_FAILED", "NEIGH_QUEUEFULL")
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
        evidence=(drop_report(case, drop), *last_seen(case)),
        remedy=(f"ip neigh show{_dev(drop)}  # on {drop.node}: FAILED or INCOMPLETE?",),
    )


def _down(case: ProbeEvidence) -> Iterator[Finding]:
    """The one that should answer cannot: its only device is down."""
    owner, final = _down_device(case), case.final
    if owner is None or final is None:
        return
    place, link = owner
    namespace, _, name = place.pod.partition("/")
    yield Finding(
        cause="link-down",
        severity="error",
        node=place.node,
        object=f"{link.name} of {whose(place)}",
        summary=f"{link.name} of {whose(place)} is down, so nobody answers for {final.dst}",
        evidence=(
            f"the flags of {link.name} {there(place)} lack UP",
            *(drop_report(case, drop) for drop in case.drops[:1]),
            *last_seen(case),
        ),
        remedy=(f"kubectl -n {namespace} delete pod {name}  # a new one gets a new device",),
    )


def _down_device(case: ProbeEvidence) -> tuple[Netns, Link] | None:
    """The backend's own device, if it is down; the packet came as far as its node."""
    last, final = case.last, case.final
    if last is None or final is None or last.packet.tunnel is not None:
        return None
    for place, snapshot in case.snapshots.items():
        held = snapshot.holds(final.dst) if place.pod else None
        link = snapshot.link(held.interface) if held else None
        if link is not None and not link.up and place.node == last.netns.node:
            return place, link
    return None


def _gateway(case: ProbeEvidence) -> Iterator[Finding]:
    """Nothing left the sender's own device, and its own kernel says that it found nobody there."""
    place = case.source.netns
    snapshot = case.snapshots.get(place)
    error = next(
        (s for s in case.journey.back if s.packet.icmp in ((3, 1), (1, 3)) and s.netns == place),
        None,
    )
    known = case.branch.cause if case.branch else None
    if snapshot is None or error is None or known not in (None, CauseId.NEIGHBOUR_FAILED):
        return
    flow = case.returned.flow if case.returned else case.probe.flow
    result = lookup(snapshot, RouteQuery(flow=flow, mark=None))
    if snapshot.holds(error.packet.flow.src) is None or not result.nexthops:
        return
    hop = result.nexthops[0]
    requested, mine = hop.gateway or flow.dst, whose(place)
    states = snapshot.neighbour(hop.interface, requested)
    held = f" ({', '.join(states.states)} before the probe)" if states else ""
    yield Finding(
        cause="neighbour-failed",
        severity="error",
        node=place.node,
        object=f"neighbour {requested} dev {hop.interface} of {mine}",
        summary=f"nobody on {hop.interface} of {mine} answers for its gateway {requested}",
        evidence=(
            f"nothing left {hop.interface}, and {mine}'s own kernel told its sender "
            f"{icmp_words(error.packet)}",
            f"the route of {mine}: {result.route.text if result.route else ''}{held}",
            *(drop_report(case, d) for d in case.drops[:1]),
        ),
        remedy=(
            f"ip neigh show dev {hop.interface}  # {there(place)}: FAILED or INCOMPLETE?",
            f"look on {place.node} who should answer: the bridge's address, or proxy_arp and "
            "forwarding of the pod's device (Calico), or rules that drop neighbour discovery",
        ),
    )


def _next(drop: DropEvent) -> str:
    return drop.packet.flow.dst if drop.packet else ""


def _dev(drop: DropEvent) -> str:
    return f" dev {drop.interface}" if drop.interface else ""


# --- another's address ----------------------------------------------------------------------------


def _stale(case: ProbeEvidence, last: CapturedPacket) -> Iterator[Finding]:
    """The frame was for a link address that whoever should take it has not.

    Who sent it there is found by its neighbour entry: for the packet's own destination, or for the
    gateway of a route to it.
    """
    drop = case.dropped_for("OTHERHOST")
    mac = last.dst_mac
    if drop is None or not mac or drop.netns is None:
        return
    stale_entry = _entry(case, mac, last)
    taking = case.snapshots.get(drop.netns)
    if stale_entry is None or taking is None or not taking.holds(stale_entry[1].address):
        return  # a frame that was sent to all: this one threw it away rightly
    place, entry = stale_entry
    link = taking.link(drop.interface)
    if link is None or link.mac == mac:
        return
    taker = f"{drop.interface} of {whose(drop.netns)}"
    evidence = [
        f"neighbours of {whose(place)}: {entry.address} dev {entry.interface} lladdr {mac} "
        + " ".join(entry.states),
        f"{taker} has the link address {link.mac}",
        drop_report(case, drop),
        *last_seen(case),
    ]
    yield Finding(
        cause="neighbour-stale",
        severity="error",
        node=place.node,
        object=f"neighbour {entry.address} dev {entry.interface}"
        + (f" of {whose(place)}" if place.pod else ""),
        summary=f"{whose(place)} sends what is for {entry.address} to {mac}, "
        f"but {taker} has {link.mac}",
        evidence=tuple(evidence),
        remedy=tuple(_mends(case, place, entry, link)),
    )


def _entry(case: ProbeEvidence, mac: str, last: CapturedPacket) -> tuple[Netns, Neighbour] | None:
    """The neighbour entry with this link address, of whoever sent the packet on with it."""
    final = last.packet.innermost.flow
    for sighting in reversed(case.journey.forward):
        snapshot = case.snapshots.get(sighting.netns)
        if snapshot is None:
            continue
        hops = lookup(snapshot, RouteQuery(flow=final, mark=None)).nexthops
        requested = {final.dst, *(hop.gateway for hop in hops if hop.gateway)}
        for entry in snapshot.neighbours:
            if entry.mac == mac and entry.address in requested:
                return sighting.netns, entry
    return None


def _mends(case: ProbeEvidence, place: Netns, entry: Neighbour, taker: Link) -> Iterator[str]:
    where, device = f"  # {there(place)}", entry.interface
    if taker.tunnel:
        yield f"restart the CNI's pod on {place.node}: it writes these entries anew; or by hand"
        yield (
            f"ip neigh replace {entry.address} lladdr {taker.mac} dev {device} nud permanent{where}"
        )
        for known in case.snapshots[place].tunnel_entries(device, entry.mac)[:1]:
            yield f"bridge fdb replace {taker.mac} dev {device} dst {known.destination}{where}"
        return
    yield f"ip neigh del {entry.address} dev {device}{where}: it is then asked for anew"
    if entry.permanent:
        yield "and find who wrote it: an entry that is PERMANENT was not learned"
    else:
        yield f"and look whether two have the address: arping -D -I {device} {entry.address}"

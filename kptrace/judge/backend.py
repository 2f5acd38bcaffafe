"""Causes in the backend itself: it was reached and said no.

A TCP RST or an ICMP port unreachable that leaves the backend's own interface is its kernel's word
that nobody listens there. (A REJECT rule's ICMP comes from a node, see filtering.py.)
"""

from __future__ import annotations

from collections.abc import Iterator

from kptrace.judge.case import Case
from kptrace.judge.words import drop_report, end
from kptrace.model import Finding, Place, Sighting

# under IPVS a node has every Service's address, and answers for those that are nobody's backend
SERVICE_DEVICE = "kube-ipvs0"


def diagnose(case: Case) -> Iterator[Finding]:
    refusal = refused_by(case)
    if refusal is None:
        return
    place = refusal.place
    final = case.final
    assert final is not None
    inner = refusal.packet.innermost
    word = "ICMP port unreachable" if inner.icmp else "TCP RST"
    what = f"pod {place.pod}" if place.pod else f"node {place.node}"
    port = f"{final.dport}/{final.protocol}"
    evidence = [
        f"{word} seen leaving {refusal.interface} of {what} "
        f"at {case.at(place.node, refusal.time_ns)}"
    ]
    drop = case.dropped_for("NO_SOCKET")
    if drop is not None:
        evidence.append(drop_report(case, drop))
    yield Finding(
        cause="nobody-listens",
        severity="error",
        node=place.node,
        object=f"{what} port {port}",
        summary=f"the packet reached {what}, where nobody listens on {end(final.dst, final.dport)}",
        evidence=tuple(evidence),
        remedy=_remedy(case, place, port),
    )


def refused_by(case: Case) -> Sighting | None:
    """The backend's own refusal, seen as it left the place that owns the backend's address."""
    final = case.final
    for sighting in case.journey.back:
        inner = sighting.packet.innermost
        refuses = "R" in inner.flags or inner.icmp in ((3, 3), (1, 4))
        snapshot = case.snapshots.get(sighting.place)
        held = snapshot.holds(final.dst) if snapshot is not None and final is not None else None
        owns = held is not None and held.interface != SERVICE_DEVICE
        if refuses and owns and sighting.direction == "out" and sighting.place != case.source.place:
            return sighting
        hairpin = sighting.place == case.source.place and owns and sighting.direction == "out"
        if refuses and hairpin:
            return sighting
    return None


def _remedy(case: Case, place: Place, port: str) -> tuple[str, ...]:
    service = case.resolution.service
    namespace, _, name = place.pod.partition("/")
    look = f"kubectl -n {namespace} exec {name} -- ss -lnt" if name else f"ss -lnt  # {place.node}"
    if service is None:
        return (f"{look}  # does anything listen on {port}?",)
    return (
        f"{look}  # does anything listen on {port}?",
        f"kubectl -n {service.namespace} get svc {service.name} -o yaml  # right targetPort?",
    )

"""Causes in the backend itself: it was reached and said no.

A TCP RST or an ICMP port unreachable that leaves the backend's own interface is its kernel's word
that nobody listens there. (A REJECT rule's ICMP comes from a node, see filter_rules.py.)
"""

from __future__ import annotations

from collections.abc import Iterator

from kptrace.diagnose.phrases import drop_report, end, there
from kptrace.diagnose.probe_evidence import ProbeEvidence
from kptrace.model import CapturedPacket, Finding, Flow, Netns
from kptrace.simulate.snapshot.listening_sockets import Listener

# under IPVS a node has every Service's address, and answers for those that are nobody's backend
SERVICE_DEVICE = "kube-ipvs0"
MOST = 6


def diagnose(evidence: ProbeEvidence) -> Iterator[Finding]:
    refusal = refused_by(evidence)
    if refusal is None:
        return
    netns = refusal.netns
    final = evidence.final
    assert final is not None
    inner = refusal.packet.innermost
    word = "ICMP port unreachable" if inner.icmp else "TCP RST"
    what = f"pod {netns.pod}" if netns.pod else f"node {netns.node}"
    port = f"{final.dport}/{final.protocol}"
    lines = [
        f"{word} seen leaving {refusal.interface} of {what} "
        f"at {evidence.at(netns.node, refusal.time_ns)}"
    ]
    drop = evidence.dropped_for("NO_SOCKET")
    if drop is not None:
        lines.append(drop_report(evidence, drop))
    listeners = _listeners(evidence, netns)
    if listeners is not None:
        lines.append(f"what listens {there(netns)}: {_named(listeners)}")
    yield Finding(
        cause="no-listener",
        severity="error",
        node=netns.node,
        object=f"{what} port {port}",
        summary=f"the packet reached {what}, where nobody listens on {end(final.dst, final.dport)}",
        evidence=tuple(lines),
        remedy=(
            *_instead(evidence, final, listeners or ()),
            *_remedy(evidence, netns, port, listeners),
        ),
    )


def refused_by(evidence: ProbeEvidence) -> CapturedPacket | None:
    """The backend's own refusal, seen as it left the place that owns the backend's address."""
    final = evidence.final
    for sighting in evidence.journey.back:
        inner = sighting.packet.innermost
        refuses = "R" in inner.flags or inner.icmp in ((3, 3), (1, 4))
        snapshot = evidence.snapshots.get(sighting.netns)
        held = snapshot.holds(final.dst) if snapshot is not None and final is not None else None
        owns = held is not None and held.interface != SERVICE_DEVICE
        if (
            refuses
            and owns
            and sighting.direction == "out"
            and sighting.netns != evidence.source.netns
        ):
            return sighting
        hairpin = sighting.netns == evidence.source.netns and owns and sighting.direction == "out"
        if refuses and hairpin:
            return sighting
    return None


def _listeners(evidence: ProbeEvidence, netns: Netns) -> tuple[Listener, ...] | None:
    snapshot = evidence.snapshots.get(netns)
    return snapshot.listeners if snapshot else None


def _named(listeners: tuple[Listener, ...]) -> str:
    more = f" and {len(listeners) - MOST} more" if len(listeners) > MOST else ""
    return ", ".join(map(str, listeners[:MOST])) + more if listeners else "nothing"


def _instead(
    evidence: ProbeEvidence, final: Flow, listeners: tuple[Listener, ...]
) -> Iterator[str]:
    """What it listens on that may be meant."""
    near = [listener for listener in listeners if listener.port == final.dport]
    elsewhere = [
        listener
        for listener in listeners
        if listener.protocol == final.protocol and not listener.loopback
    ]
    service = evidence.resolution.service
    if any(listener.takes(final.protocol, final.dst, final.dport) for listener in near):
        yield "it listens there by now: was the program just being started? trace again"
    elif same := [listener for listener in near if listener.protocol == final.protocol]:
        yield (
            f"let the program listen on any address (0.0.0.0, [::]), not on {same[0].address} alone"
        )
    elif near:
        yield f"the program listens on {near[0]}: is the Service's protocol right?"
    elif len(elsewhere) == 1 and service is not None:
        yield f"the program listens on {elsewhere[0]}: is the Service's targetPort right?"


def _remedy(
    evidence: ProbeEvidence, netns: Netns, port: str, listeners: tuple[Listener, ...] | None
) -> Iterator[str]:
    service = evidence.resolution.service
    namespace, _, name = netns.pod.partition("/")
    if listeners is None:
        look = f"kubectl -n {namespace} exec {name} -- ss -lnt" if name else "ss -lnt"
        where = "" if name else f" on {netns.node}"
        yield f"{look}  # does anything listen on {port}{where}?"
    elif not listeners and name:
        yield f"kubectl -n {namespace} logs {name}  # why does it not listen?"
    elif listeners and service is None:
        yield f"ask for a port that it listens on: {_named(listeners)}"
    if service is not None:
        yield f"kubectl -n {service.namespace} get svc {service.name} -o yaml  # right targetPort?"

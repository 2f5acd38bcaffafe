"""Causes in the reverse path: the answer would leave by another interface than the packet came by.

Strict filtering is done by the kernel on each device (rp_filter, RFC 3704), and by rules: Felix has
one in ``raw`` for what its pods send (``-m rpfilter --invert -j DROP``), firewalld another.
"""

from __future__ import annotations

from collections.abc import Iterator

from kptrace.diagnose.phrases import (
    answered,
    drop_report,
    last_seen,
    next_predicted,
    rule_hit,
    rule_name,
)
from kptrace.diagnose.probe_evidence import ProbeEvidence
from kptrace.model import Finding, Flow, Netns
from kptrace.simulate.ip.routing import RouteQuery, reverse_path
from kptrace.simulate.snapshot.snapshot import Snapshot

_RULES = ("-m rpfilter", "fib saddr")


def diagnose(evidence: ProbeEvidence) -> Iterator[Finding]:
    yield from _by_rule(evidence)
    drop = evidence.dropped_for("IP_RPFILTER")
    last = evidence.last
    if drop is not None:
        yield _by_kernel(evidence, drop.node, drop.interface, [drop_report(evidence, drop)])
    elif _predicted(evidence) and last is not None:
        yield _by_kernel(evidence, last.netns.node, last.interface, [])


def _predicted(evidence: ProbeEvidence) -> bool:
    """What was read ends the packet where it was last seen."""
    branch, last = evidence.branch, evidence.last
    return (
        branch is not None
        and branch.cause == "rp-filter"
        and branch.deterministic
        and last is not None
        and branch.steps[-1].netns == last.netns
        and next_predicted(evidence) is None
        and answered(evidence) is None
    )


def _by_rule(evidence: ProbeEvidence) -> Iterator[Finding]:
    dropping = evidence.ended_by
    if dropping is None or not any(text in dropping[1].ref.text for text in _RULES):
        return
    traversal, met = dropping
    node, interface = traversal.place.node, met.hit.iif
    name = rule_name(met.ref)
    lines = [
        rule_hit(traversal, met),
        *_route_back(evidence, node, interface),
        *last_seen(evidence),
    ]
    yield Finding(
        cause="rp-filter",
        severity="error",
        node=node,
        object=name,
        summary=f"{name} on {node} drops it because the way back to its source is not by "
        f"{interface or 'the interface that it came in by'}",
        evidence=tuple(lines),
        remedy=(_mend(evidence, node),),
    )


def _by_kernel(evidence: ProbeEvidence, node: str, interface: str, lines: list[str]) -> Finding:
    strict = _strict(evidence, node, interface)
    value = f"sysctl {strict} = 1 on {node}"
    return Finding(
        cause="rp-filter",
        severity="error",
        node=node,
        object=f"rp_filter of {interface}" if interface else "rp_filter",
        summary=f"{node} drops it because the way back to its source is not by "
        f"{interface or 'the interface that it came in by'} (strict reverse path filter)",
        evidence=(*lines, *_route_back(evidence, node, interface), value, *last_seen(evidence)),
        remedy=(
            _mend(evidence, node),
            f"sysctl -w {strict}=2  # on {node}: or accept it, whatever way leads back",
        ),
    )


def _strict(evidence: ProbeEvidence, node: str, interface: str) -> str:
    """The larger of the two counts, so a strict ``all`` is strict everywhere."""
    snapshot = _snapshot(evidence, node)
    everywhere = snapshot is not None and snapshot.sysctl("net.ipv4.conf.all.rp_filter") == 1
    whose = "all" if everywhere or not interface else interface.replace(".", "/")
    return f"net.ipv4.conf.{whose}.rp_filter"


def _route_back(evidence: ProbeEvidence, node: str, interface: str) -> Iterator[str]:
    snapshot, flow = _snapshot(evidence, node), _flow(evidence)
    if snapshot is None or flow is None:
        return
    back = reverse_path(snapshot, RouteQuery(flow=flow, mark=0, iif=interface))
    if back.route is None:
        yield f"{node} has no route back to {flow.src}"
    else:
        came = f", and it came in by {interface}" if interface else ""
        yield f"the route of {node} back to {flow.src}: {back.route.text}{came}"


def _mend(evidence: ProbeEvidence, node: str) -> str:
    flow = _flow(evidence)
    return f"ip route get {flow.src if flow else 'SOURCE'}  # on {node}: fix the route back"


def _flow(evidence: ProbeEvidence) -> Flow | None:
    """The probe as it was when it was dropped."""
    packet = evidence.packet_when_dropped
    return packet.flow if packet else evidence.final


def _snapshot(evidence: ProbeEvidence, node: str) -> Snapshot | None:
    return evidence.snapshots.get(Netns(node=node))

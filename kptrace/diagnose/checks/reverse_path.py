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


def diagnose(case: ProbeEvidence) -> Iterator[Finding]:
    yield from _by_rule(case)
    drop = case.dropped_for("IP_RPFILTER")
    last = case.last
    if drop is not None:
        yield _by_kernel(case, drop.node, drop.interface, [drop_report(case, drop)])
    elif _predicted(case) and last is not None:
        yield _by_kernel(case, last.netns.node, last.interface, [])


def _predicted(case: ProbeEvidence) -> bool:
    """What was read ends the packet where it was last seen."""
    branch, last = case.branch, case.last
    return (
        branch is not None
        and branch.cause == "rp-filter"
        and branch.deterministic
        and last is not None
        and branch.steps[-1].netns == last.netns
        and next_predicted(case) is None
        and answered(case) is None
    )


def _by_rule(case: ProbeEvidence) -> Iterator[Finding]:
    dropping = case.ended_by
    if dropping is None or not any(text in dropping[1].ref.text for text in _RULES):
        return
    passage, met = dropping
    node, interface = passage.place.node, met.hit.iif
    name = rule_name(met.ref)
    evidence = [rule_hit(passage, met), *_route_back(case, node, interface), *last_seen(case)]
    yield Finding(
        cause="rp-filter",
        severity="error",
        node=node,
        object=name,
        summary=f"{name} on {node} drops it because the way back to its source is not by "
        f"{interface or 'the interface that it came in by'}",
        evidence=tuple(evidence),
        remedy=(_mend(case, node),),
    )


def _by_kernel(case: ProbeEvidence, node: str, interface: str, evidence: list[str]) -> Finding:
    strict = _strict(case, node, interface)
    value = f"sysctl {strict} = 1 on {node}"
    return Finding(
        cause="rp-filter",
        severity="error",
        node=node,
        object=f"rp_filter of {interface}" if interface else "rp_filter",
        summary=f"{node} drops it because the way back to its source is not by "
        f"{interface or 'the interface that it came in by'} (strict reverse path filter)",
        evidence=(*evidence, *_route_back(case, node, interface), value, *last_seen(case)),
        remedy=(
            _mend(case, node),
            f"sysctl -w {strict}=2  # on {node}: or accept it, whatever way leads back",
        ),
    )


def _strict(case: ProbeEvidence, node: str, interface: str) -> str:
    """The larger of the two counts, so a strict ``all`` is strict everywhere."""
    snapshot = _snapshot(case, node)
    everywhere = snapshot is not None and snapshot.sysctl("net.ipv4.conf.all.rp_filter") == 1
    whose = "all" if everywhere or not interface else interface.replace(".", "/")
    return f"net.ipv4.conf.{whose}.rp_filter"


def _route_back(case: ProbeEvidence, node: str, interface: str) -> Iterator[str]:
    snapshot, flow = _snapshot(case, node), _flow(case)
    if snapshot is None or flow is None:
        return
    back = reverse_path(snapshot, RouteQuery(flow=flow, mark=0, iif=interface))
    if back.route is None:
        yield f"{node} has no route back to {flow.src}"
    else:
        came = f", and it came in by {interface}" if interface else ""
        yield f"the route of {node} back to {flow.src}: {back.route.text}{came}"


def _mend(case: ProbeEvidence, node: str) -> str:
    flow = _flow(case)
    return f"ip route get {flow.src if flow else 'SOURCE'}  # on {node}: mend the route back"


def _flow(case: ProbeEvidence) -> Flow | None:
    """The probe as it was when it was dropped."""
    packet = case.packet_when_dropped
    return packet.flow if packet else case.final


def _snapshot(case: ProbeEvidence, node: str) -> Snapshot | None:
    return case.snapshots.get(Netns(node=node))

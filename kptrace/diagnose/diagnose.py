"""The judgement: every Case of a run -> the Trace that the user reads.

What the sender experienced comes first: an answered probe is delivered, whatever else was seen.
For the others the families of causes are asked in the order of how surely each one knows; the
first finding decides. Where none fits, the prediction may, if it ends where the packet was last
seen; else the honest answer is what is known and what is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Literal

import msgspec

from kptrace.diagnose.checks import (
    backend,
    bridge,
    connect_hook,
    filter_rules,
    forwarding,
    ipvs,
    neighbour,
    network_policy,
    path_mtu,
    predicted_drop,
    reverse_path,
    service_proxy,
    sidecar,
    stale_connections,
    tunnel,
    underlay,
    xdp,
)
from kptrace.diagnose.checks.dns import compare
from kptrace.diagnose.encapsulation import opaque
from kptrace.diagnose.evidence_sources import HOST, layers
from kptrace.diagnose.hops import back_hops, changed_at_the_end, forward_hops
from kptrace.diagnose.phrases import drop_report, last_seen, next_predicted, step_place
from kptrace.diagnose.probe_evidence import ProbeEvidence
from kptrace.model import (
    BackendShare,
    CapturedPacket,
    Evidence,
    EvidenceSource,
    Finding,
    Hop,
    Outcome,
    Packet,
    PredictionMatch,
    SimulatedStep,
    Trace,
)
from kptrace.protocol.recording import Recording

# Who knows most surely first: the backend's own word, then what only one fault can produce.
FAMILIES = (
    connect_hook.diagnose,
    backend.diagnose,
    bridge.diagnose,
    ipvs.diagnose,
    service_proxy.diagnose,
    network_policy.diagnose,
    reverse_path.diagnose,
    filter_rules.diagnose,
    xdp.diagnose,
    tunnel.diagnose,
    forwarding.diagnose,
    neighbour.diagnose,
)

# What a cause means for the outcome; all others mean that the packet was dropped.
OUTCOMES = {
    "no-endpoints": Outcome.NO_ENDPOINTS,
    "endpoint-missing": Outcome.NO_ENDPOINTS,
    "proxy-rules-missing": Outcome.NOT_PROGRAMMED,
    "no-such-port": Outcome.NOT_PROGRAMMED,
    "no-listener": Outcome.REFUSED,
    "rule-reject": Outcome.REJECTED,
    "ipvs-weight-zero": Outcome.REJECTED,
    "ipvs-no-server": Outcome.REJECTED,
    "ipvs-address-missing": Outcome.NOT_PROGRAMMED,
    "not-observed": Outcome.INCONCLUSIVE,
}

ANSWERED = ("connected", "replied")


def diagnose(run: Recording, cases: tuple[ProbeEvidence, ...]) -> Trace:
    """The report of a run. Of several flows the first undelivered one is shown, else the first."""
    evidence_layers = layers(run)
    judged = [(case, *_diagnose_probe(case, evidence_layers)) for case in cases]
    undelivered = [diagnosed for diagnosed in judged if diagnosed[1] is not Outcome.DELIVERED]
    case, outcome, findings = undelivered[0] if undelivered else judged[0]
    resolution = run.resolution
    place = run.source.netns
    names = tuple(compare(resolution.dns, resolution.service, resolution.endpoints, place))
    unnamed = any(finding.severity == "error" for finding in names)
    if not resolution.address or (unnamed and outcome is Outcome.DELIVERED):
        outcome = Outcome.UNRESOLVED
        findings = (*names, *findings)
    else:
        # What drops the probe mostly drops the question too: that is no second fault.
        findings = (*findings, *(_as_warning(finding) for finding in names))
    findings = (*findings, *stale_connections.diagnose(run), *path_mtu.diagnose(case))
    return Trace(
        target=run.request.target,
        source=run.source,
        outcome=outcome,
        resolution=run.resolution,
        prediction=case.prediction,
        hops=_hops(case, outcome),
        findings=findings,
        evidence=Evidence(
            visibility=_depth(run),
            sources=evidence_layers,
            conntrack=case.entries,
            probe_results=tuple(c.returned for c in cases if c.returned),
            drops=case.drops,
            shares=_shares(judged) if len(cases) > 1 else (),
            prediction_match=_agreement(case) if _tapped(case, evidence_layers) else None,
        ),
        summary=_summary(case, outcome, findings, len(undelivered), len(cases)),
        elapsed_us=_elapsed(case),
    )


def _depth(run: Recording) -> Literal["node", "pod"]:
    """From a container in the sender's pod nothing of its node is seen."""
    node = run.source.netns.node
    shut = any(layer.node == node and layer.name == HOST for layer in run.unavailable)
    return "pod" if shut else "node"


def _as_warning(finding: Finding) -> Finding:
    return msgspec.structs.replace(finding, severity="warning")


def _elapsed(case: ProbeEvidence) -> float | None:
    """Until the answer reached the sender, by the taps; else as the sender's program saw it."""
    if not _answered(case) or case.returned is None:
        return None
    for sighting in case.journey.back:
        if sighting.netns == case.source.netns and sighting.direction == "in":
            return case.journey.offset_us(sighting.netns.node, sighting.time_ns)
    return float(case.returned.elapsed_us)


def _answered(case: ProbeEvidence) -> bool:
    return case.returned is not None and case.returned.result in ANSWERED


def _diagnose_probe(
    case: ProbeEvidence, known: tuple[EvidenceSource, ...]
) -> tuple[Outcome, tuple[Finding, ...]]:
    if _answered(case):
        return Outcome.DELIVERED, tuple(sidecar.diagnose(case))
    if case.returned is None:
        return Outcome.INCONCLUSIVE, ()
    for diagnose in FAMILIES:
        findings = tuple(diagnose(case))
        if findings:
            return _outcome(case, findings[0]), (*findings, *sidecar.diagnose(case))
    if _at_backend(case) and not case.drops and case.probe.flow.protocol != "tcp":
        return Outcome.DELIVERED, ()
    findings = tuple(predicted_drop.diagnose(case)) or tuple(_no_known_cause(case, known))
    return _outcome(case, findings[0]), findings


def _outcome(case: ProbeEvidence, finding: Finding) -> Outcome:
    """A policy controller may drop or reject (kube-router): the rule itself tells which."""
    ended = case.ended_by
    if finding.cause == "policy-drop" and ended is not None and not ended[1].drops:
        return Outcome.REJECTED
    return OUTCOMES.get(finding.cause, Outcome.DROPPED)


def _at_backend(case: ProbeEvidence) -> bool:
    """The probe was last seen going in at the place that owns its last destination."""
    last, final = case.last, case.final
    if last is None or final is None or last.direction != "in":
        return False
    snapshot = case.snapshots.get(last.netns)
    return snapshot is not None and snapshot.holds(final.dst) is not None


def _no_known_cause(case: ProbeEvidence, known: tuple[EvidenceSource, ...]) -> Iterator[Finding]:
    node = case.last.netns.node if case.last else case.node
    if case.drops:
        drop = case.drops[-1]
        yield Finding(
            cause="kernel-drop",
            severity="error",
            node=drop.node,
            object=f"{drop.reason} in {drop.location}",
            summary=f"the kernel of {drop.node} dropped it: {drop.reason}",
            evidence=(drop_report(case, drop), *last_seen(case)),
        )
        return
    blind = [
        layer for layer in known if layer.lost or (layer.unavailable and layer.name != "scout")
    ]
    following = next_predicted(case)
    watched = following is not None and following.netns in case.snapshots
    unseen = "; ".join(f"{b.name} on {b.node}: {b.unavailable or f'{b.lost} lost'}" for b in blind)
    between = tuple(underlay.diagnose(case, known))
    if between:
        yield from between
    elif watched and not blind:
        assert following is not None
        yield Finding(
            cause="lost-unexplained",
            severity="error",
            node=node,
            object=f"between {case.last.interface if case.last else 'the sender'} and "
            f"{following.interface} of {step_place(following)}",
            summary="the packet was lost and the kernel gave no reason",
            evidence=tuple(last_seen(case)),
        )
    else:
        hidden = opaque(case, case.last) if case.last else ""
        why = [f"{case.last.interface}: {hidden}"] if case.last and hidden else []
        yield Finding(
            cause="not-observed",
            severity="warning",
            node=node,
            object=unseen or "the next hop",
            summary="what became of the packet was not observed",
            evidence=(
                *last_seen(case),
                *_told_to_the_sender(case),
                *why,
            ),
        )


def _told_to_the_sender(case: ProbeEvidence) -> Iterator[str]:
    returned = case.returned
    if returned is not None and returned.result in ("refused", "unreachable", "failed"):
        why = f" ({returned.error})" if returned.error else ""
        yield f"its sender was told after {returned.elapsed_us} us: {returned.result}{why}"


def _hops(case: ProbeEvidence, outcome: Outcome) -> tuple[Hop, ...]:
    taken = _answered(case) or _replied(case) or outcome is Outcome.DELIVERED
    hops = list(forward_hops(case, taken and _at_backend(case)))
    if not taken:
        hops += [*changed_at_the_end(case), *_drop_hop(case)]
    return (*hops, *back_hops(case))


def _replied(case: ProbeEvidence) -> bool:
    """The backend itself accepted: what was lost is its answer, not the probe."""
    final = case.final
    return final is not None and any(
        "S" in s.packet.innermost.flags and s.packet.innermost.flow.src == final.dst
        for s in case.journey.back
    )


def _drop_hop(case: ProbeEvidence) -> Iterator[Hop]:
    """The hop at which the packet was thrown away, by a rule or by the kernel itself."""
    dropping = case.ended_by
    last = case.last
    packet = last.packet if last else Packet(flow=case.probe.flow)
    if dropping is not None:
        passage, met = dropping
        drop = next((d for d in case.drops if d.node == passage.place.node), None)
        yield Hop(
            node=passage.place.node,
            netns=passage.place.name,
            interface=met.hit.iif or (last.interface if last else ""),
            direction="",
            action="dropped" if met.drops else "rejected",
            packet=passage.packet or packet,
            rule=met.ref,
            preceding_rules=tuple(m.ref for m in passage.rules if m is not met),
            offset_us=case.journey.offset_us(drop.node, drop.time_ns) if drop else None,
            description=met.ref.description or met.ref.text,
        )
    elif case.drops:
        drop = case.drops[0]
        yield Hop(
            node=drop.node,
            netns=drop.netns.name if drop.netns else "host",
            interface=drop.interface,
            direction="",
            action="dropped",
            packet=drop.packet or packet,
            offset_us=case.journey.offset_us(drop.node, drop.time_ns),
            description=f"{drop.reason} in {drop.location}",
        )


def _tapped(case: ProbeEvidence, known: tuple[EvidenceSource, ...]) -> bool:
    """There was a tap that could have seen a crossing."""
    taps = [layer for layer in known if layer.name == "capture"]
    return any(not layer.unavailable for layer in taps) or case.last is not None


def _agreement(case: ProbeEvidence) -> PredictionMatch | None:
    """How many of the predicted crossings were seen, and the first that was not."""
    out, back = _crossings(case)
    if not out:
        return None
    unseen = _missed(out, case.journey.forward) + _missed(back, case.journey.back)
    missed = [step for step in unseen if not case.silent(step)]
    parted = ""
    if missed:
        answer = "" if missed[0] in out else "the answer on "
        where = f"{missed[0].interface} of {step_place(missed[0])}"
        parted = f"{answer}{where}, going {missed[0].direction}"
    predicted = len(out) + len(back) - len(unseen) + len(missed)
    return PredictionMatch(predicted=predicted, seen=predicted - len(missed), diverged_at=parted)


def _crossings(case: ProbeEvidence) -> tuple[list[SimulatedStep], list[SimulatedStep]]:
    """The predicted crossings of the probe and those of its answer."""
    out: list[SimulatedStep] = []
    back: list[SimulatedStep] = []
    into = out
    for step in case.branch.steps if case.branch else ():
        if step.action == "reply":
            into = back
        elif step.action == "seen":
            into.append(step)
    return out, back


def _missed(
    steps: list[SimulatedStep], sightings: tuple[CapturedPacket, ...]
) -> list[SimulatedStep]:
    seen = {(s.netns, s.interface, s.direction) for s in sightings}
    return [s for s in steps if (s.netns, s.interface, s.direction) not in seen]


Judged = tuple[ProbeEvidence, Outcome, tuple[Finding, ...]]


def _shares(judged: list[Judged]) -> tuple[BackendShare, ...]:
    """Predicted backends with their weights beside how often each one was chosen."""
    seen: Counter[tuple[str, int]] = Counter()
    delivered: Counter[tuple[str, int]] = Counter()
    for case, outcome, _ in judged:
        if case.backend is not None:
            seen[case.backend] += 1
            delivered[case.backend] += outcome is Outcome.DELIVERED
    rows: dict[tuple[str, int], BackendShare] = {}
    for branch in judged[0][0].prediction.branches:
        end = branch.backend
        if end is None:
            continue
        key = (end.address, end.port)
        weight = branch.weight + (rows[key].weight if key in rows else 0)
        rows[key] = _share(key, end.node, end.pod, weight, seen, delivered)
    for key in seen:
        if key not in rows:
            rows[key] = _share(key, "", "", 0.0, seen, delivered)
    return tuple(rows.values())


def _share(
    key: tuple[str, int],
    node: str,
    pod: str,
    weight: float,
    seen: Counter[tuple[str, int]],
    delivered: Counter[tuple[str, int]],
) -> BackendShare:
    return BackendShare(
        address=key[0],
        port=key[1],
        node=node,
        pod=pod,
        weight=round(weight, 6),
        seen=seen[key],
        delivered=delivered[key],
    )


def _summary(
    case: ProbeEvidence, outcome: Outcome, findings: tuple[Finding, ...], failed: int, count: int
) -> str:
    several = f"{count - failed} of {count} delivered" if count > 1 else ""
    if findings:
        text = findings[0].summary
    elif outcome is Outcome.DELIVERED:
        text = f"delivered to {_where(case)}"
    elif case.returned is None:
        text = "nothing was sent"
    else:
        text = case.returned.error or case.returned.result
    return f"{several}: {text}" if several else text


def _where(case: ProbeEvidence) -> str:
    last = case.last
    if last is None:
        return "the backend (no tap saw it)"
    node = last.netns.node
    return f"pod {last.netns.pod} on {node}" if last.netns.pod else f"{node} itself"

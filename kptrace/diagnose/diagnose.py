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


def diagnose(run: Recording, evidence_list: tuple[ProbeEvidence, ...]) -> Trace:
    """The report of a run. Of several flows the first undelivered one is shown, else the first."""
    evidence_layers = layers(run)
    judged = [(evidence, *_diagnose_probe(evidence, evidence_layers)) for evidence in evidence_list]
    undelivered = [diagnosed for diagnosed in judged if diagnosed[1] is not Outcome.DELIVERED]
    evidence, outcome, findings = undelivered[0] if undelivered else judged[0]
    resolution = run.resolution
    netns = run.source.netns
    names = tuple(compare(resolution.dns, resolution.service, resolution.endpoints, netns))
    unnamed = any(finding.severity == "error" for finding in names)
    if not resolution.address or (unnamed and outcome is Outcome.DELIVERED):
        outcome = Outcome.UNRESOLVED
        findings = (*names, *findings)
    else:
        # What drops the probe mostly drops the question too: that is no second fault.
        findings = (*findings, *(_as_warning(finding) for finding in names))
    findings = (*findings, *stale_connections.diagnose(run), *path_mtu.diagnose(evidence))
    return Trace(
        target=run.request.target,
        source=run.source,
        outcome=outcome,
        resolution=run.resolution,
        prediction=evidence.prediction,
        hops=_hops(evidence, outcome),
        findings=findings,
        evidence=Evidence(
            visibility=_depth(run),
            sources=evidence_layers,
            conntrack=evidence.entries,
            probe_results=tuple(c.returned for c in evidence_list if c.returned),
            drops=evidence.drops,
            shares=_shares(judged) if len(evidence_list) > 1 else (),
            prediction_match=_agreement(evidence) if _tapped(evidence, evidence_layers) else None,
        ),
        summary=_summary(evidence, outcome, findings, len(undelivered), len(evidence_list)),
        elapsed_us=_elapsed(evidence),
    )


def _depth(run: Recording) -> Literal["node", "pod"]:
    """From a container in the sender's pod nothing of its node is seen."""
    node = run.source.netns.node
    shut = any(layer.node == node and layer.name == HOST for layer in run.unavailable)
    return "pod" if shut else "node"


def _as_warning(finding: Finding) -> Finding:
    return msgspec.structs.replace(finding, severity="warning")


def _elapsed(evidence: ProbeEvidence) -> float | None:
    """Until the answer reached the sender, by the taps; else as the sender's program saw it."""
    if not _answered(evidence) or evidence.returned is None:
        return None
    for sighting in evidence.journey.back:
        if sighting.netns == evidence.source.netns and sighting.direction == "in":
            return evidence.journey.offset_us(sighting.netns.node, sighting.time_ns)
    return float(evidence.returned.elapsed_us)


def _answered(evidence: ProbeEvidence) -> bool:
    return evidence.returned is not None and evidence.returned.result in ANSWERED


def _diagnose_probe(
    evidence: ProbeEvidence, known: tuple[EvidenceSource, ...]
) -> tuple[Outcome, tuple[Finding, ...]]:
    if _answered(evidence):
        return Outcome.DELIVERED, tuple(sidecar.diagnose(evidence))
    if evidence.returned is None:
        return Outcome.INCONCLUSIVE, ()
    for diagnose in FAMILIES:
        findings = tuple(diagnose(evidence))
        if findings:
            return _outcome(evidence, findings[0]), (*findings, *sidecar.diagnose(evidence))
    if _at_backend(evidence) and not evidence.drops and evidence.probe.flow.protocol != "tcp":
        return Outcome.DELIVERED, ()
    findings = tuple(predicted_drop.diagnose(evidence)) or tuple(_no_known_cause(evidence, known))
    return _outcome(evidence, findings[0]), findings


def _outcome(evidence: ProbeEvidence, finding: Finding) -> Outcome:
    """A policy controller may drop or reject (kube-router): the rule itself tells which."""
    ended = evidence.ended_by
    if finding.cause == "policy-drop" and ended is not None and not ended[1].drops:
        return Outcome.REJECTED
    return OUTCOMES.get(finding.cause, Outcome.DROPPED)


def _at_backend(evidence: ProbeEvidence) -> bool:
    """The probe was last seen going in at the place that owns its last destination."""
    last, final = evidence.last, evidence.final
    if last is None or final is None or last.direction != "in":
        return False
    snapshot = evidence.snapshots.get(last.netns)
    return snapshot is not None and snapshot.holds(final.dst) is not None


def _no_known_cause(
    evidence: ProbeEvidence, known: tuple[EvidenceSource, ...]
) -> Iterator[Finding]:
    node = evidence.last.netns.node if evidence.last else evidence.node
    if evidence.drops:
        drop = evidence.drops[-1]
        yield Finding(
            cause="kernel-drop",
            severity="error",
            node=drop.node,
            object=f"{drop.reason} in {drop.location}",
            summary=f"the kernel of {drop.node} dropped it: {drop.reason}",
            evidence=(drop_report(evidence, drop), *last_seen(evidence)),
        )
        return
    blind = [
        layer for layer in known if layer.lost or (layer.unavailable and layer.name != "preflight")
    ]
    following = next_predicted(evidence)
    watched = following is not None and following.netns in evidence.snapshots
    unseen = "; ".join(f"{b.name} on {b.node}: {b.unavailable or f'{b.lost} lost'}" for b in blind)
    between = tuple(underlay.diagnose(evidence, known))
    if between:
        yield from between
    elif watched and not blind:
        assert following is not None
        yield Finding(
            cause="lost-unexplained",
            severity="error",
            node=node,
            object=f"between {evidence.last.interface if evidence.last else 'the sender'} and "
            f"{following.interface} of {step_place(following)}",
            summary="the packet was lost and the kernel gave no reason",
            evidence=tuple(last_seen(evidence)),
        )
    else:
        hidden = opaque(evidence, evidence.last) if evidence.last else ""
        why = [f"{evidence.last.interface}: {hidden}"] if evidence.last and hidden else []
        yield Finding(
            cause="not-observed",
            severity="warning",
            node=node,
            object=unseen or "the next hop",
            summary="what became of the packet was not observed",
            evidence=(
                *last_seen(evidence),
                *_told_to_the_sender(evidence),
                *why,
            ),
        )


def _told_to_the_sender(evidence: ProbeEvidence) -> Iterator[str]:
    returned = evidence.returned
    if returned is not None and returned.result in ("refused", "unreachable", "failed"):
        why = f" ({returned.error})" if returned.error else ""
        yield f"its sender was told after {returned.elapsed_us} us: {returned.result}{why}"


def _hops(evidence: ProbeEvidence, outcome: Outcome) -> tuple[Hop, ...]:
    taken = _answered(evidence) or _replied(evidence) or outcome is Outcome.DELIVERED
    hops = list(forward_hops(evidence, taken and _at_backend(evidence)))
    if not taken:
        hops += [*changed_at_the_end(evidence), *_drop_hop(evidence)]
    return (*hops, *back_hops(evidence))


def _replied(evidence: ProbeEvidence) -> bool:
    """The backend itself accepted: what was lost is its answer, not the probe."""
    final = evidence.final
    return final is not None and any(
        "S" in s.packet.innermost.flags and s.packet.innermost.flow.src == final.dst
        for s in evidence.journey.back
    )


def _drop_hop(evidence: ProbeEvidence) -> Iterator[Hop]:
    """The hop at which the packet was dropped, by a rule or by the kernel itself."""
    dropping = evidence.ended_by
    last = evidence.last
    packet = last.packet if last else Packet(flow=evidence.probe.flow)
    if dropping is not None:
        traversal, met = dropping
        drop = next((d for d in evidence.drops if d.node == traversal.place.node), None)
        yield Hop(
            node=traversal.place.node,
            netns=traversal.place.name,
            interface=met.hit.iif or (last.interface if last else ""),
            direction="",
            action="dropped" if met.drops else "rejected",
            packet=traversal.packet or packet,
            rule=met.ref,
            preceding_rules=tuple(m.ref for m in traversal.rules if m is not met),
            offset_us=evidence.journey.offset_us(drop.node, drop.time_ns) if drop else None,
            description=met.ref.description or met.ref.text,
        )
    elif evidence.drops:
        drop = evidence.drops[0]
        yield Hop(
            node=drop.node,
            netns=drop.netns.name if drop.netns else "host",
            interface=drop.interface,
            direction="",
            action="dropped",
            packet=drop.packet or packet,
            offset_us=evidence.journey.offset_us(drop.node, drop.time_ns),
            description=f"{drop.reason} in {drop.location}",
        )


def _tapped(evidence: ProbeEvidence, known: tuple[EvidenceSource, ...]) -> bool:
    """There was a tap that could have seen a crossing."""
    taps = [layer for layer in known if layer.name == "capture"]
    return any(not layer.unavailable for layer in taps) or evidence.last is not None


def _agreement(evidence: ProbeEvidence) -> PredictionMatch | None:
    """How many of the predicted crossings were seen, and the first that was not."""
    out, back = _crossings(evidence)
    if not out:
        return None
    unseen = _missed(out, evidence.journey.forward) + _missed(back, evidence.journey.back)
    missed = [step for step in unseen if not evidence.silent(step)]
    parted = ""
    if missed:
        answer = "" if missed[0] in out else "the answer on "
        where = f"{missed[0].interface} of {step_place(missed[0])}"
        parted = f"{answer}{where}, going {missed[0].direction}"
    predicted = len(out) + len(back) - len(unseen) + len(missed)
    return PredictionMatch(predicted=predicted, seen=predicted - len(missed), diverged_at=parted)


def _crossings(evidence: ProbeEvidence) -> tuple[list[SimulatedStep], list[SimulatedStep]]:
    """The predicted crossings of the probe and those of its answer."""
    out: list[SimulatedStep] = []
    back: list[SimulatedStep] = []
    into = out
    for step in evidence.branch.steps if evidence.branch else ():
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
    for evidence, outcome, _ in judged:
        if evidence.backend is not None:
            seen[evidence.backend] += 1
            delivered[evidence.backend] += outcome is Outcome.DELIVERED
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
    evidence: ProbeEvidence,
    outcome: Outcome,
    findings: tuple[Finding, ...],
    failed: int,
    count: int,
) -> str:
    several = f"{count - failed} of {count} delivered" if count > 1 else ""
    if findings:
        text = findings[0].summary
    elif outcome is Outcome.DELIVERED:
        text = f"delivered to {_where(evidence)}"
    elif evidence.returned is None:
        text = "nothing was sent"
    else:
        text = evidence.returned.error or evidence.returned.result
    return f"{several}: {text}" if several else text


def _where(evidence: ProbeEvidence) -> str:
    last = evidence.last
    if last is None:
        return "the backend (no tap saw it)"
    node = last.netns.node
    return f"pod {last.netns.pod} on {node}" if last.netns.pod else f"{node} itself"

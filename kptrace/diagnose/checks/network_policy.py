"""Causes in policies: a NetworkPolicy denied the packet, on the sender's node or the backend's.

The proof is the rule trace's last event; where there is none, the rules that were read, if they
end the packet where it was last seen. Policies meet the packet as it is at the pod's own device:
behind the DNAT, so that a policy must admit the backend's port and not the Service's.
"""

from __future__ import annotations

from collections.abc import Iterator

from kptrace.diagnose.phrases import drop_report, last_seen, next_predicted, rule_hit
from kptrace.diagnose.policy_denial import CAUSE, DeniedFlow, denied, predicted_denials
from kptrace.diagnose.probe_evidence import ProbeEvidence
from kptrace.model import Finding, Netns
from kptrace.rules.model.ruleset import Ruleset
from kptrace.rules.policy_chains import is_policy_chain


def diagnose(case: ProbeEvidence) -> Iterator[Finding]:
    denying = case.ended_by
    if denying is not None:
        passage, met = denying
        refs = [rule.ref for rule in passage.rules]
        if passage.outer or not refs or not is_policy_chain(met.ref.chain):
            return
        flow = passage.packet.innermost.flow if passage.packet else None
        ruleset = _ruleset(case, passage.place)
        denied_flow = denied(passage.place, refs, flow, ruleset, case.documents)
        if denied_flow is not None:
            yield _finding(case, denied_flow, rule_hit(passage, met))
        return
    branch = case.branch
    if branch is None or branch.cause != CAUSE or next_predicted(case) is not None:
        return
    place = branch.steps[-1].netns
    if case.last is None or case.last.netns != place:
        return
    denied_flow = predicted_denials(branch, _ruleset(case, place), case.documents)
    if denied_flow is not None:
        yield _finding(case, denied_flow, denied_flow.rule)


def _ruleset(case: ProbeEvidence, place: Netns) -> Ruleset | None:
    snapshot = case.snapshots.get(place)
    return snapshot.ruleset if snapshot else None


def _finding(case: ProbeEvidence, denied: DeniedFlow, proof: str) -> Finding:
    drop = case.dropped_for("NETFILTER_DROP")
    reports = [drop_report(case, drop)] if drop is not None else []
    return Finding(
        cause=CAUSE,
        severity="error",
        node=denied.place.node,
        object=denied.object,
        summary=denied.summary,
        evidence=(proof, *denied.evidence, *last_seen(case), *reports),
        remedy=tuple(denied.remedy),
    )

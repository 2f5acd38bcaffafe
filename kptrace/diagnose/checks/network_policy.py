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


def diagnose(evidence: ProbeEvidence) -> Iterator[Finding]:
    denying = evidence.ended_by
    if denying is not None:
        traversal, met = denying
        refs = [rule.ref for rule in traversal.rules]
        if traversal.outer or not refs or not is_policy_chain(met.ref.chain):
            return
        flow = traversal.packet.innermost.flow if traversal.packet else None
        ruleset = _ruleset(evidence, traversal.place)
        denied_flow = denied(traversal.place, refs, flow, ruleset, evidence.documents)
        if denied_flow is not None:
            yield _finding(evidence, denied_flow, rule_hit(traversal, met))
        return
    branch = evidence.branch
    if branch is None or branch.cause != CAUSE or next_predicted(evidence) is not None:
        return
    netns = branch.steps[-1].netns
    if evidence.last is None or evidence.last.netns != netns:
        return
    denied_flow = predicted_denials(branch, _ruleset(evidence, netns), evidence.documents)
    if denied_flow is not None:
        yield _finding(evidence, denied_flow, denied_flow.rule)


def _ruleset(evidence: ProbeEvidence, netns: Netns) -> Ruleset | None:
    snapshot = evidence.snapshots.get(netns)
    return snapshot.ruleset if snapshot else None


def _finding(evidence: ProbeEvidence, denied: DeniedFlow, proof: str) -> Finding:
    drop = evidence.dropped_for("NETFILTER_DROP")
    reports = [drop_report(evidence, drop)] if drop is not None else []
    return Finding(
        cause=CAUSE,
        severity="error",
        node=denied.place.node,
        object=denied.object,
        summary=denied.summary,
        evidence=(proof, *denied.evidence, *last_seen(evidence), *reports),
        remedy=tuple(denied.remedy),
    )

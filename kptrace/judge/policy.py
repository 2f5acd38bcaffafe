"""Causes in policies: a NetworkPolicy denied the packet, on the sender's node or the backend's.

The proof is the rule trace's last event; where there is none, the rules that were read, if they
end the packet where it was last seen. Policies meet the packet as it is at the pod's own device:
behind the DNAT, so that a policy must admit the backend's port and not the Service's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kptrace.judge.case import Case
from kptrace.judge.words import (
    drop_report,
    flow_words,
    last_seen,
    next_predicted,
    rule_hit,
    rule_name,
)
from kptrace.model import Finding, Flow, Place, RuleRef
from kptrace.rules.policies import Denial, denial, is_policy


def diagnose(case: Case) -> Iterator[Finding]:
    found = case.ended_by
    if found is not None:
        passage, met = found
        refs = [one.ref for one in passage.rules]
        if passage.outer or not refs or not is_policy(met.ref.chain):
            return
        flow = passage.packet.innermost.flow if passage.packet else None
        evidence = [rule_hit(passage, met)]
        yield from _denied(case, passage.place, refs, flow, evidence)
        return
    branch = case.branch
    if branch is None or branch.cause != "policy-drop" or next_predicted(case) is not None:
        return
    steps = [step for step in branch.steps if step.rule is not None]
    end = branch.steps[-1]
    refs = [s.rule for s in steps if s.place == end.place and s.hook == steps[-1].hook and s.rule]
    if not branch.certain or not refs or case.last is None or case.last.place != end.place:
        return
    evidence = [f"by the rules that were read: {rule_name(refs[-1])}: {refs[-1].text}"]
    yield from _denied(case, end.place, refs, end.packet.innermost.flow, evidence)


def _denied(
    case: Case, place: Place, refs: Sequence[RuleRef], flow: Flow | None, evidence: list[str]
) -> Iterator[Finding]:
    snapshot = case.snapshots.get(place)
    told = denial(refs, snapshot.ruleset if snapshot else None)
    if told is None:
        return
    if flow is not None:
        evidence.append(f"policies see {flow_words(flow)} ({flow.protocol.upper()})")
    evidence += _matched(told, refs)
    evidence += _asked(told)
    evidence += last_seen(case)
    drop = case.dropped_for("NETFILTER_DROP")
    if drop is not None:
        evidence.append(drop_report(case, drop))
    pod = told.pod or _pod(case, told, flow)
    yield Finding(
        cause="policy-drop",
        severity="error",
        node=place.node,
        object=_object(told, refs[-1]),
        summary=_summary(told, place.node, pod, flow),
        evidence=tuple(evidence),
        remedy=tuple(_remedy(told, flow)),
    )


def _object(told: Denial, ref: RuleRef) -> str:
    names = [*map(str, told.policies), *(f"policy chain {chain}" for chain in told.unnamed)]
    tier = f", tier {told.tier}" if told.tier else ""
    return f"{', '.join(names)}{tier}" if names else rule_name(ref)


def _summary(told: Denial, node: str, pod: str, flow: Flow | None) -> str:
    whom = f"pod {pod}" if pod else "the pod"
    does = "sends" if told.way == "egress" else "receives"
    tier = f" (tier {told.tier})" if told.tier else ""
    if told.profile:
        return f"no policy selects {whom}, and its profile on {node} does not admit what it {does}"
    port = f"{flow.dport}/{flow.protocol.upper()}" if flow and flow.dport else "it"
    if told.explicit:
        who = str(told.policies[0]) if told.policies else "a NetworkPolicy"
        return f"{who}{tier} denies {port} that {whom} {does}, by a rule of its own on {node}"
    who = " and ".join(map(str, told.policies))
    if not who:
        return f"the policies{tier} on {whom} admit no {port} of what it {does}, on {node}"
    verb = "do" if len(told.policies) > 1 else "does"
    return f"{who}{tier} {verb} not admit {port} that {whom} {does}, on {node}"


def _matched(told: Denial, refs: Sequence[RuleRef]) -> Iterator[str]:
    """A deny may be two rules, of which the first matches the packet and the second its mark."""
    before = refs[-2] if len(refs) > 1 else None
    if told.explicit and before is not None and before.chain == refs[-1].chain:
        yield f"what it matched: {rule_name(before)}: {before.text}"


def _asked(told: Denial) -> Iterator[str]:
    """Everybody who could have admitted it: policies add up, one that admits is enough."""
    if told.explicit or not told.policies:
        return
    number = len(told.policies)
    which = "the only policy" if number == 1 else f"the {number} policies"
    way = f"in direction {told.way} " if told.way else ""
    yield f"{which} {way}that select{'s' * (number == 1)} the pod: " + ", ".join(
        map(str, told.policies)
    )


def _pod(case: Case, told: Denial, flow: Flow | None) -> str:
    if flow is None or told.way is None:
        return ""
    pod = case.documents.pod_at(flow.src if told.way == "egress" else flow.dst)
    return pod.key if pod else ""


def _remedy(told: Denial, flow: Flow | None) -> Iterator[str]:
    """Names are such as Kubernetes allows (policies.py), so they cannot be a command."""
    for policy in told.policies:
        where = f" -n {policy.namespace}" if policy.namespace else ""
        yield f"kubectl get {policy.kind} {policy.name}{where} -o yaml  # what does it admit?"
    if not told.policies:
        yield "kubectl get networkpolicy -A  # which one selects this pod?"
    if flow is None or told.explicit:
        return
    peer = f"to {flow.dst}" if told.way == "egress" else f"from {flow.src}"
    yield f"admit {flow.protocol.upper()} port {flow.dport} {peer} in a policy that selects the pod"

"""A policy's denial in words: by the rules that were read, or by those that the kernel reported.

In: the rules that a packet met in one hook, the last of which threw it away. Out: a Denied, and
what is said of it. Whether a denial is a fault depends on who asks: where a packet was sent, or
somebody asked for just this sender, it is the answer; where a sender was taken as an example, it
is what somebody wants, and no fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from kptrace.diagnose.phrases import end, flow_words, rule_name
from kptrace.kube.objects.cluster_state import ClusterState
from kptrace.model import Branch, Finding, Flow, Netns, RuleRef, ServiceEntrypoint, Value
from kptrace.rules.model.ruleset import Ruleset

if TYPE_CHECKING:
    from kptrace.rules.policy_chains import PolicyDenial

CAUSE = "policy-drop"
_NO_FAULT = "no fault where that is wanted: --from asks for one sender"
_SENDERS = {"pod": "a pod", "node": "the node", "outside": "outside"}


class DeniedFlow(Value):
    """pod: whom the policies select, as far as is known; flow: as they see it."""

    told: PolicyDenial
    place: Netns
    refs: tuple[RuleRef, ...]
    flow: Flow | None = None
    pod: str = ""

    @property
    def object(self) -> str:
        names = [
            *map(str, self.told.policies),
            *(f"policy chain {c}" for c in self.told.unnamed_chains),
        ]
        tier = f", tier {self.told.tier}" if self.told.tier else ""
        return f"{', '.join(names)}{tier}" if names else rule_name(self.refs[-1])

    @property
    def summary(self) -> str:
        denial, node = self.told, self.place.node
        whom = f"pod {self.pod}" if self.pod else "the pod"
        does = "sends" if denial.direction == "egress" else "receives"
        tier = f" (tier {denial.tier})" if denial.tier else ""
        if denial.by_profile:
            return (
                f"no policy selects {whom}, and its profile on {node} does not admit what it {does}"
            )
        flow = self.flow
        port = f"{flow.dport}/{flow.protocol.upper()}" if flow and flow.dport else "it"
        if denial.explicit:
            who = str(denial.policies[0]) if denial.policies else "a NetworkPolicy"
            return f"{who}{tier} denies {port} that {whom} {does}, by a rule of its own on {node}"
        who = " and ".join(map(str, denial.policies))
        if not who:
            return f"the policies{tier} on {whom} admit no {port} of what it {does}, on {node}"
        verb = "do" if len(denial.policies) > 1 else "does"
        return f"{who}{tier} {verb} not admit {port} that {whom} {does}, on {node}"

    @property
    def evidence(self) -> Iterator[str]:
        """What beside the rule itself tells why."""
        if self.flow is not None:
            yield f"policies see {flow_words(self.flow)} ({self.flow.protocol.upper()})"
        yield from _matched(self.told, self.refs)
        yield from _asked(self.told)

    @property
    def rule(self) -> str:
        last = self.refs[-1]
        return f"by the rules that were read: {rule_name(last)}: {last.text}"

    @property
    def remedy(self) -> Iterator[str]:
        """Names are such as Kubernetes allows (policies.py), so they cannot be a command."""
        denial, flow = self.told, self.flow
        for policy in denial.policies:
            where = f" -n {policy.namespace}" if policy.namespace else ""
            yield f"kubectl get {policy.kind} {policy.name}{where} -o yaml  # what does it admit?"
        if not denial.policies:
            yield "kubectl get networkpolicy -A  # which one selects this pod?"
        if flow is None or denial.explicit:
            return
        peer = f"to {flow.dst}" if denial.direction == "egress" else f"from {flow.src}"
        port = f"{flow.protocol.upper()} port {flow.dport}"
        yield f"admit {port} {peer} in a policy that selects the pod"


def denied(
    netns: Netns,
    refs: Sequence[RuleRef],
    flow: Flow | None,
    ruleset: Ruleset | None,
    cluster_state: ClusterState,
) -> DeniedFlow | None:
    """None: what dropped it was no policy."""
    from kptrace.rules.policy_chains import policy_denial  # few packets are denied

    denial = policy_denial(refs, ruleset)
    if denial is None:
        return None
    pod = denial.pod or _pod(cluster_state, denial, flow)
    return DeniedFlow(told=denial, place=netns, refs=tuple(refs), flow=flow, pod=pod)


def predicted_denials(
    branch: Branch, ruleset: Ruleset | None, cluster_state: ClusterState
) -> DeniedFlow | None:
    """By the rules that were read; ``ruleset``: of the node where the branch ends."""
    if branch.cause != CAUSE or not branch.deterministic:
        return None
    steps = [step for step in branch.steps if step.rule is not None]
    last = branch.steps[-1]
    refs = [s.rule for s in steps if s.netns == last.netns and s.hook == steps[-1].hook and s.rule]
    if not refs:
        return None
    return denied(last.netns, refs, last.packet.innermost.flow, ruleset, cluster_state)


def _pod(cluster_state: ClusterState, denial: PolicyDenial, flow: Flow | None) -> str:
    if flow is None or denial.direction is None:
        return ""
    pod = cluster_state.pod_at(flow.src if denial.direction == "egress" else flow.dst)
    return pod.key if pod else ""


def _matched(denial: PolicyDenial, refs: Sequence[RuleRef]) -> Iterator[str]:
    """A deny may be two rules, of which the first matches the packet and the second its mark."""
    before = refs[-2] if len(refs) > 1 else None
    if denial.explicit and before is not None and before.chain == refs[-1].chain:
        yield f"what it matched: {rule_name(before)}: {before.text}"


def _asked(denial: PolicyDenial) -> Iterator[str]:
    """Everybody who could have admitted it: policies add up, one that admits is enough."""
    if denial.explicit or not denial.policies:
        return
    number = len(denial.policies)
    which = "the only policy" if number == 1 else f"the {number} policies"
    way = f"in direction {denial.direction} " if denial.direction else ""
    yield f"{which} {way}that select{'s' * (number == 1)} the pod: " + ", ".join(
        map(str, denial.policies)
    )


# --- of a Service's ways in -----------------------------------------------------------------------


def findings(
    name: str, answers: Iterable[tuple[ServiceEntrypoint, Sequence[DeniedFlow]]], by_request: bool
) -> Iterator[Finding]:
    """One for each policy that denies a sender one of the backends of the Service port ``name``.

    by_request: somebody asked for this sender
    """
    severity: Literal["error", "info"] = "error" if by_request else "info"
    alike: dict[tuple[str, str, str], list[tuple[ServiceEntrypoint, DeniedFlow]]] = {}
    for entry, denieds in answers:
        for denied in denieds:
            alike.setdefault((denied.place.node, denied.object, denied.summary), []).append(
                (entry, denied)
            )
    for (node, object, summary), pairs in alike.items():
        first = pairs[0][1]
        yield Finding(
            cause=CAUSE,
            severity=severity,
            node=node,
            object=object,
            summary=summary,
            evidence=(
                f"for {name}, {_whose(pairs)}",
                first.rule,
                *first.evidence,
                *(() if by_request else (_NO_FAULT,)),
            ),
            remedy=tuple(first.remedy),
        )


def _whose(pairs: Iterable[tuple[ServiceEntrypoint, DeniedFlow]]) -> str:
    """``from pod shop/x (10.244.1.9) by 10.96.0.1:80, 172.30.0.11:30080``."""
    handles: dict[str, dict[str, None]] = {}
    for entry, _ in pairs:
        sender = f"pod {entry.pod}" if entry.pod else _SENDERS[entry.sender]
        address = f" ({entry.source})" if entry.source else ""
        handles.setdefault(f"from {sender}{address}", {})[end(entry.address, entry.port)] = None
    return "; ".join(f"{sender} by {', '.join(names)}" for sender, names in handles.items())

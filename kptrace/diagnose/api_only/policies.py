"""NetworkPolicies between the sender and the backends, as far as the API alone tells. Pure.

In: what the API told. Out: a line for each direction that says who lets it through, and a warning
where nobody does: whether policies are enforced is the network's matter, and that no API tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kptrace.diagnose.api_only.facts import ApiFacts
from kptrace.kube.objects.network_policy import Direction, PodFlow, PolicyVerdict, policy_verdicts
from kptrace.model import Finding

WAYS: tuple[tuple[Direction, str], ...] = (("egress", "out of"), ("ingress", "into"))


def policy_facts(api_facts: ApiFacts) -> Iterator[str]:
    if not api_facts.documents.around or any(
        "Policies" in read_failure.what for read_failure in api_facts.documents.unread
    ):
        return
    policy_verdicts = _passages(api_facts)
    if policy_verdicts is None:
        return
    if not policy_verdicts:
        yield "no NetworkPolicy selects the sender for egress or a backend for ingress"
    for direction, text in WAYS:
        own = [
            policy_verdict
            for policy_verdict in policy_verdicts
            if policy_verdict.direction == direction
        ]
        for lets, said in ((True, "let it"), (None, "may let it or not (labels, ipBlock):")):
            denying = [policy_verdict for policy_verdict in own if policy_verdict.lets is lets]
            if denying:
                yield f"NetworkPolicies {_names(denying)} {said} {text} {_pods(api_facts, denying)}"


def policy_findings(api_facts: ApiFacts) -> Iterator[Finding]:
    for direction, text in WAYS:
        denied = [
            policy_verdict
            for policy_verdict in _passages(api_facts) or ()
            if policy_verdict.direction == direction and policy_verdict.lets is False
        ]
        if denied:
            policies = dict.fromkeys(
                name for policy_verdict in denied for name in policy_verdict.policies
            )
            yield Finding(
                cause="policy-drop",
                severity="warning",
                node="",
                object=f"NetworkPolicy {_names(denied)}",
                summary=f"by NetworkPolicy {_names(denied)} it may not go {text} "
                f"{_pods(api_facts, denied)}, if the network enforces policies",
                remedy=tuple(
                    f"kubectl -n {namespace} describe networkpolicy {name}"
                    for namespace, _, name in (policy.partition("/") for policy in policies)
                ),
            )


def _passages(api_facts: ApiFacts) -> list[PolicyVerdict] | None:
    """None: it does not go from pod to pod, as far as is known. What leaves the sender is told once
    where it holds for each backend.
    """
    sender = api_facts.documents.pod(api_facts.source.netns.pod)
    packets = [
        PodFlow(source=sender, target=pod, port=endpoint.port, protocol=endpoint.protocol)
        for endpoint in api_facts.usable
        if sender is not None and (pod := api_facts.documents.pod(endpoint.pod)) is not None
    ]
    if not packets:
        return None
    cluster_state = api_facts.documents
    verdicts = (
        traversal
        for packet in packets
        for traversal in policy_verdicts(packet, cluster_state.policies, cluster_state.namespaces)
    )
    return list(dict.fromkeys(verdicts))


def _names(policy_verdicts: Sequence[PolicyVerdict]) -> str:
    return ", ".join(
        dict.fromkeys(
            name for policy_verdict in policy_verdicts for name in policy_verdict.policies
        )
    )


def _pods(api_facts: ApiFacts, policy_verdicts: Sequence[PolicyVerdict]) -> str:
    """``pod/client``, ``2 of the 3 backends``."""
    pods = dict.fromkeys(policy_verdict.pod for policy_verdict in policy_verdicts)
    if policy_verdicts[0].direction == "ingress" and len(api_facts.usable) > 1:
        return f"{len(pods)} of the {len(api_facts.usable)} backends"
    return ", ".join(f"pod/{pod.removeprefix(f'{api_facts.namespace}/')}" for pod in pods)

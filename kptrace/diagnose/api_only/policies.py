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


def policy_facts(told: ApiFacts) -> Iterator[str]:
    if not told.documents.around or any("Policies" in one.what for one in told.documents.unread):
        return
    found = _passages(told)
    if found is None:
        return
    if not found:
        yield "no NetworkPolicy selects the sender for egress or a backend for ingress"
    for direction, words in WAYS:
        own = [one for one in found if one.direction == direction]
        for lets, said in ((True, "let it"), (None, "may let it or not (labels, ipBlock):")):
            some = [one for one in own if one.lets is lets]
            if some:
                yield f"NetworkPolicies {_names(some)} {said} {words} {_pods(told, some)}"


def policy_findings(told: ApiFacts) -> Iterator[Finding]:
    for direction, words in WAYS:
        denied = [
            one for one in _passages(told) or () if one.direction == direction and one.lets is False
        ]
        if denied:
            policies = dict.fromkeys(name for one in denied for name in one.policies)
            yield Finding(
                cause="policy-drop",
                severity="warning",
                node="",
                object=f"NetworkPolicy {_names(denied)}",
                summary=f"by NetworkPolicy {_names(denied)} it may not go {words} "
                f"{_pods(told, denied)}, if the network enforces policies",
                remedy=tuple(
                    f"kubectl -n {namespace} describe networkpolicy {name}"
                    for namespace, _, name in (each.partition("/") for each in policies)
                ),
            )


def _passages(told: ApiFacts) -> list[PolicyVerdict] | None:
    """None: it does not go from pod to pod, as far as is known. What leaves the sender is told once
    where it holds for each backend.
    """
    sender = told.documents.pod(told.source.netns.pod)
    packets = [
        PodFlow(source=sender, target=pod, port=one.port, protocol=one.protocol)
        for one in told.usable
        if sender is not None and (pod := told.documents.pod(one.pod)) is not None
    ]
    if not packets:
        return None
    documents = told.documents
    found = (
        passage
        for packet in packets
        for passage in policy_verdicts(packet, documents.policies, documents.namespaces)
    )
    return list(dict.fromkeys(found))


def _names(some: Sequence[PolicyVerdict]) -> str:
    return ", ".join(dict.fromkeys(name for one in some for name in one.policies))


def _pods(told: ApiFacts, some: Sequence[PolicyVerdict]) -> str:
    """``pod/client``, ``2 of the 3 backends``."""
    pods = dict.fromkeys(one.pod for one in some)
    if some[0].direction == "ingress" and len(told.usable) > 1:
        return f"{len(pods)} of the {len(told.usable)} backends"
    return ", ".join(f"pod/{pod.removeprefix(f'{told.namespace}/')}" for pod in pods)

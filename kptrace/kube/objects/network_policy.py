"""NetworkPolicies as the API has them: whether they let a packet from one pod to another. Pure.

In: the policies, the labels of namespaces as far as they are known, two pods and the port that the
packet arrives at (behind the DNAT, as every enforcer sees it). Out: for each of the two directions
the policies that select the pod, and whether one of their rules lets the packet through: yes, no,
or None where that hangs on labels that nobody told, or on an ``ipBlock`` that holds a pod's address
(whether it means pods is left to the enforcer).

The rules are those of the API reference, networking.k8s.io/v1: a pod that no policy selects for a
direction is open there; else what no rule of any of its policies names is denied. Whether there is
an enforcer at all the API does not tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Literal

from kptrace.kube.objects.api_types import (
    IPBlock,
    LabelSelector,
    NetworkPolicy,
    NetworkPolicyRule,
    PolicyPeer,
    PolicyPort,
    Requirement,
)
from kptrace.model import Pod, Value

Direction = Literal["egress", "ingress"]
Labels = Mapping[str, str]
NAME_LABEL = "kubernetes.io/metadata.name"  # the API server sets it on every namespace


class PolicyVerdict(Value):
    """What the policies that select one pod say. ``lets``: None where it cannot be told."""

    direction: Direction
    pod: str
    policies: tuple[str, ...]
    lets: bool | None


class PodFlow(Value):
    """From one pod to another: to ``port`` of its own, not the Service's."""

    source: Pod
    target: Pod
    port: int
    protocol: str


def policy_verdicts(
    packet: PodFlow, policies: Iterable[NetworkPolicy], namespaces: Mapping[str, Labels]
) -> Iterator[PolicyVerdict]:
    """None for a direction in which no policy selects the pod: it is open."""
    known = tuple(policies)
    ways: tuple[tuple[Direction, Pod, Pod], ...] = (
        ("egress", packet.source, packet.target),
        ("ingress", packet.target, packet.source),
    )
    for direction, pod, peer in ways:
        own = [policy for policy in known if _selects(policy, pod, direction)]
        if own:
            answers = [
                _names(rule, direction, policy, peer, packet, namespaces)
                for policy in own
                for rule in (policy.spec.egress if direction == "egress" else policy.spec.ingress)
                or ()
            ]
            yield PolicyVerdict(
                direction=direction,
                pod=pod.key,
                policies=tuple(
                    f"{network_policy.metadata.namespace}/{network_policy.metadata.name}"
                    for network_policy in own
                ),
                lets=_any(answers),
            )


def _selects(policy: NetworkPolicy, pod: Pod, direction: Direction) -> bool:
    if pod.host_network or policy.metadata.namespace != pod.namespace:
        return False
    types = policy.spec.policy_types
    if types is None:  # the API server writes them; a hand-made file may not have them
        types = ["Ingress", *(["Egress"] if policy.spec.egress else [])]
    return direction in [text.lower() for text in types] and _matches(
        policy.spec.pod_selector, dict(pod.labels)
    )


def _names(
    rule: NetworkPolicyRule,
    direction: Direction,
    policy: NetworkPolicy,
    peer: Pod,
    packet: PodFlow,
    namespaces: Mapping[str, Labels],
) -> bool | None:
    """The rule lets the packet through; no peers and no ports mean any."""
    peers = rule.to if direction == "egress" else rule.from_
    own = policy.metadata.namespace
    about = (
        _any(_is_peer(policy_peer, peer, own, namespaces) for policy_peer in peers)
        if peers
        else True
    )
    port = any(_is_port(port, packet) for port in rule.ports) if rule.ports else True
    return about if port else False


def _is_peer(
    named: PolicyPeer, pod: Pod, own: str, namespaces: Mapping[str, Labels]
) -> bool | None:
    if named.ip_block is not None:
        return _in_block(named.ip_block, pod)
    if pod.host_network:
        return None  # it comes with its node's address
    if named.pod_selector is not None and not _matches(named.pod_selector, dict(pod.labels)):
        return False
    if named.namespace_selector is None:
        return pod.namespace == own
    return _in_namespace(named.namespace_selector, pod.namespace, namespaces)


def _in_namespace(
    selector: LabelSelector, name: str, namespaces: Mapping[str, Labels]
) -> bool | None:
    """An empty selector means all; of a namespace nobody told of, its name label is known."""
    if name in namespaces:
        return _matches(selector, namespaces[name])
    keys = {
        *(selector.match_labels or {}),
        *(requirement.key for requirement in selector.match_expressions or ()),
    }
    return _matches(selector, {NAME_LABEL: name}) if keys <= {NAME_LABEL} else None


def _in_block(block: IPBlock, pod: Pod) -> bool | None:
    """No: none of its addresses is in it."""
    for text in pod.ips:
        address = ip_address(text)
        if address in ip_network(block.cidr, strict=False) and not any(
            address in ip_network(text, strict=False) for text in block.except_ or ()
        ):
            return None
    return False


def _is_port(named: PolicyPort, packet: PodFlow) -> bool:
    """A name is that of a port of the pod that the packet goes to."""
    if (named.protocol or "TCP").lower() != packet.protocol:
        return False
    if named.port is None:
        return True
    if isinstance(named.port, str):
        return any(
            (port.name, port.protocol, port.port) == (named.port, packet.protocol, packet.port)
            for port in packet.target.ports
        )
    return named.port <= packet.port <= (named.end_port or named.port)


def _matches(selector: LabelSelector, labels: Labels) -> bool:
    pairs = selector.match_labels or {}
    return all(labels.get(key) == value for key, value in pairs.items()) and all(
        _meets(requirement, labels) for requirement in selector.match_expressions or ()
    )


def _meets(requirement: Requirement, labels: Labels) -> bool:
    """apimachinery, labels.Requirement: NotIn holds too where the label is absent."""
    match requirement.operator:
        case "In":
            return labels.get(requirement.key) in (requirement.values or ())
        case "NotIn":
            return labels.get(requirement.key) not in (requirement.values or ())
        case "Exists":
            return requirement.key in labels
        case _:  # DoesNotExist, the last that the API admits
            return requirement.key not in labels


def _any(answers: Iterable[bool | None]) -> bool | None:
    known = tuple(answers)
    return True if True in known else None if None in known else False

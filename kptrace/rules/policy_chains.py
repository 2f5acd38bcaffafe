"""Find the NetworkPolicy that denied a packet, in the rules of Felix (Calico) and kube-router.

Felix gives each pod a chain (``cali-fw-`` for what it sends, ``cali-tw-`` for what it receives;
``cali-fh-`` and ``cali-th-`` for hosts) that goes through the policies that select it, tier by tier
(``cali-po-``, ``cali-pi-``; several of one selector in a group, ``cali-go-``, ``cali-gi-``). A
packet that no policy admits is dropped at the end of the tier; an explicit Deny drops in the
policy's own chain. A chain's name is mostly a hash: only its first rule's comment names the policy,
in releases before 2019 none does. Until 2025 the comment was ``Policy NAMESPACE/knp.default.NAME
ingress`` (knp: of Kubernetes; else the name begins with the tier), now it begins with the kind.

kube-router gives each pod a chain ``KUBE-POD-FW-`` that goes through ``KUBE-NWPLCY-`` chains and
rejects a packet that none of them has marked.

Sources: felix/rules/policy.go and endpoints.go; kube-router, pkg/controllers/netpol.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from kptrace.model import RuleRef, Value
from kptrace.rules.model.ruleset import Ruleset, Table

Direction = Literal["ingress", "egress"]

# in nftables mode Felix puts the table's name before (filter-cali-tw-...)
_PREFIX = r"(?:filter-|raw-|mangle-)?"
_ENDPOINT = re.compile(rf"{_PREFIX}cali-(?P<kind>[ft][wh])[a-z]*-")
_POLICY = re.compile(rf"{_PREFIX}cali-(?P<kind>p[io])-")
_PROFILE = re.compile(rf"{_PREFIX}cali-pr[io]-")
_DIRECTIONS: dict[str, Direction] = {
    "fw": "egress",
    "th": "egress",
    "po": "egress",
    "tw": "ingress",
    "fh": "ingress",
    "pi": "ingress",
}
_DNS = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?"
_CALLED = re.compile(
    rf"(?P<kind>Policy|[A-Z][A-Za-z]*NetworkPolicy|NetworkPolicy)"
    rf" ((?P<namespace>{_DNS})/)?(?P<name>{_DNS}) (ingress|egress)"
)
_TARGET = re.compile(r"(?:-[jg]|jump|goto) (?P<chain>\S+)")
_BEGINS = re.compile(r"Start of (?:policies|tier (?P<tier>[A-Za-z0-9_.-]+))")
_ENDS = re.compile(r"(?:End of tier (?P<tier>[A-Za-z0-9_.-]+)\. )?(?:Drop|Reject) if no policies")
_NO_PROFILE = re.compile("(?:Drop|Reject) if no profiles matched")
_KUBERNETES = "knp.default."

_ROUTER = "KUBE-POD-FW-"
_ROUTER_POLICY = "KUBE-NWPLCY-"
_RUN_THROUGH = re.compile(rf"run through nw policy (?P<name>{_DNS})")
_OF_POD = re.compile(rf"POD name:\s*(?P<name>{_DNS}) namespace:\s*(?P<namespace>{_DNS})")


class PolicyName(Value):
    """A policy.

    ``kind``: as ``kubectl get`` takes it; ``namespace``: empty for a cluster-wide one.
    """

    kind: str
    name: str
    namespace: str = ""
    tier: str = ""

    def __str__(self) -> str:
        kind = self.kind.partition(".")[0]
        return f"{_KIND_WORDS[kind]} {self.namespace}{'/' * bool(self.namespace)}{self.name}"


_KIND_WORDS = {
    "networkpolicy": "NetworkPolicy",
    "networkpolicies": "Calico NetworkPolicy",
    "globalnetworkpolicies": "Calico GlobalNetworkPolicy",
    "clusternetworkpolicies": "ClusterNetworkPolicy",
}
_CALICO, _CALICO_GLOBAL = (
    "networkpolicies.projectcalico.org",
    "globalnetworkpolicies.projectcalico.org",
)
_KINDS = {
    "KubernetesNetworkPolicy": "networkpolicy",
    "KubernetesClusterNetworkPolicy": "clusternetworkpolicies.policy.networking.k8s.io",
    "NetworkPolicy": _CALICO,
    "GlobalNetworkPolicy": _CALICO_GLOBAL,
}


class PolicyDenial(Value):
    """Why a packet was denied.

    policies: that denied it (explicit), or that select the pod and did not admit it
    unnamed_chains: chains of policies whose names no comment holds
    by_profile: no policy selects the pod; its profile (its namespace's) does not admit the packet
    pod: the pod that the rules are for, as their comments name it
    """

    policies: tuple[PolicyName, ...]
    direction: Direction | None = None
    tier: str = ""
    explicit: bool = False
    unnamed_chains: tuple[str, ...] = ()
    by_profile: bool = False
    pod: str = ""


def is_policy_chain(chain: str) -> bool:
    """Whether a policy controller wrote this chain."""
    calico = _ENDPOINT.match(chain) or _POLICY.match(chain) or _PROFILE.match(chain)
    return calico is not None or chain.startswith((_ROUTER, _ROUTER_POLICY))


def policy_denial(rules: Sequence[RuleRef], ruleset: Ruleset | None) -> PolicyDenial | None:
    """The denial of a packet; None if no policy denied it.

    rules: that matched at one hook, in order; the last one dropped or rejected the packet
    ruleset: that the rules are in, None if it was not read
    """
    last = rules[-1]
    if last.chain.startswith((_ROUTER, _ROUTER_POLICY)):
        return _kube_router(rules)
    policy = _POLICY.match(last.chain)
    if policy is not None:
        return _explicit(rules, ruleset, _DIRECTIONS[policy["kind"]])
    endpoint = _ENDPOINT.match(last.chain)
    if endpoint is None:
        return None
    direction = _DIRECTIONS[endpoint["kind"]]
    if _NO_PROFILE.search(last.text):
        return PolicyDenial(policies=(), direction=direction, by_profile=True)
    ended = _ENDS.search(last.text)
    return _unadmitted(rules, ruleset, direction, ended["tier"] or "") if ended else None


# --- Calico -------------------------------------------------------------------------------------


def _explicit(
    rules: Sequence[RuleRef], ruleset: Ruleset | None, direction: Direction
) -> PolicyDenial:
    chain = rules[-1].chain
    policy = _named(rules[-1], chain, ruleset)
    tier = (policy.tier if policy else "") or _tier(rules)
    unnamed = () if policy else (chain,)
    return PolicyDenial(
        policies=(policy,) if policy else (),
        direction=direction,
        tier=tier,
        explicit=True,
        unnamed_chains=unnamed,
    )


def _unadmitted(
    rules: Sequence[RuleRef], ruleset: Ruleset | None, direction: Direction, tier: str
) -> PolicyDenial:
    """Nothing admitted the packet: all policies since the tier began."""
    begun = [n for n, ref in enumerate(rules) if _BEGINS.search(ref.text)]
    policy_chains = dict.fromkeys(
        (ref.table, to)
        for ref in rules[begun[-1] if begun else 0 :]
        if (to := _target(ref)) and _POLICY.match(to)
    )
    names, unnamed = [], []
    for _, chain in policy_chains:
        policy = _named(rules[-1], chain, ruleset)
        if policy:
            names.append(policy)
        else:
            unnamed.append(chain)
    tiers = {policy.tier for policy in names if policy.tier}
    if not tier:
        tier = _tier(rules) or (tiers.pop() if len(tiers) == 1 else "")
    return PolicyDenial(
        policies=tuple(names), direction=direction, tier=tier, unnamed_chains=tuple(unnamed)
    )


def _tier(rules: Sequence[RuleRef]) -> str:
    for ref in reversed(rules):
        begun = _BEGINS.search(ref.text)
        if begun:
            return begun["tier"] or ""
    return ""


def _target(ref: RuleRef) -> str:
    match = _TARGET.search(ref.text)
    return match["chain"] if match else ""


def _named(ref: RuleRef, chain: str, ruleset: Ruleset | None) -> PolicyName | None:
    """The policy that the comment of the chain's first rule names."""
    if ruleset is None:
        return None
    table = Table(backend=_backend(ref), family=ref.family, name=ref.table)
    held = ruleset.chain(table, chain)
    for rule in held.rules[:1] if held else ():
        match = _CALLED.search(f"{rule.text}\n{rule.comment}")
        if match:
            return _policy(match)
    return None


def _backend(ref: RuleRef) -> Literal["legacy", "nft"]:
    return "legacy" if ref.backend == "legacy" else "nft"


def _policy(match: re.Match[str]) -> PolicyName:
    kind, namespace, name = match["kind"], match["namespace"] or "", match["name"]
    if kind != "Policy":
        policy_kind = _KINDS.get(kind, _CALICO if namespace else _CALICO_GLOBAL)
        return PolicyName(kind=policy_kind, namespace=namespace, name=name)
    if name.startswith(_KUBERNETES):
        policy_name = name.removeprefix(_KUBERNETES)
        return PolicyName(
            kind="networkpolicy", namespace=namespace, name=policy_name, tier="default"
        )
    tier, dot, _ = name.partition(".")
    kind = _CALICO if namespace else _CALICO_GLOBAL
    return PolicyName(kind=kind, namespace=namespace, name=name, tier=tier if dot else "")


# --- kube-router --------------------------------------------------------------------------------


def _kube_router(rules: Sequence[RuleRef]) -> PolicyDenial:
    pod_rules = [ref for ref in rules if ref.chain.startswith(_ROUTER)]
    owner = _OF_POD.search(rules[-1].text)
    namespace = owner["namespace"] if owner else ""
    runs = [(ref, match) for ref in pod_rules if (match := _RUN_THROUGH.search(ref.text))]
    names = dict.fromkeys(match["name"] for _, match in runs)
    return PolicyDenial(
        policies=tuple(
            PolicyName(kind="networkpolicy", namespace=namespace, name=name) for name in names
        ),
        direction=next(_directions([ref for ref, _ in runs]), None),
        pod=f"{namespace}/{owner['name']}" if owner else "",
    )


def _directions(runs: Sequence[RuleRef]) -> Iterator[Direction]:
    """The direction by the jump: with ``-s`` the pod sends, with ``-d`` it receives."""
    for ref in runs:
        if re.search(r"(^| )-s ", ref.text):
            yield "egress"
        elif re.search(r"(^| )-d ", ref.text):
            yield "ingress"

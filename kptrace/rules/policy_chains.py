"""NetworkPolicies in the rules that Felix (Calico) and kube-router write: who denied, and where.

In: the rules that a packet met in one hook, the last of which threw it away, and the ruleset they
stand in. Out: a Denial: the policies that had a say, in which tier, in which direction.

Felix gives each pod a chain (``cali-fw-`` for what it sends, ``cali-tw-`` for what it receives;
``cali-fh-`` and ``cali-th-`` for hosts) that goes through the policies that select it, tier by tier
(``cali-po-``, ``cali-pi-``; several of one selector in a group, ``cali-go-``, ``cali-gi-``). Who is
admitted by none is dropped at the end of the tier; an explicit Deny drops in the policy's own
chain. A chain's name is mostly a hash: only its first rule's comment tells the policy, in releases
before 2019 none does. Until 2025 the comment was ``Policy NAMESPACE/knp.default.NAME ingress``
(knp: of Kubernetes; else the name begins with the tier), now it begins with the kind.

kube-router gives each pod a chain ``KUBE-POD-FW-`` that goes through ``KUBE-NWPLCY-`` chains and
rejects what none of them has marked.

Sources: felix/rules/policy.go and endpoints.go; kube-router, pkg/controllers/netpol.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from kptrace.model import RuleRef, Value
from kptrace.rules.model.ruleset import Ruleset, Table

Way = Literal["ingress", "egress"]

# in nftables mode Felix puts the table's name before (filter-cali-tw-...)
_PREFIX = r"(?:filter-|raw-|mangle-)?"
_ENDPOINT = re.compile(rf"{_PREFIX}cali-(?P<kind>[ft][wh])[a-z]*-")
_POLICY = re.compile(rf"{_PREFIX}cali-(?P<kind>p[io])-")
_PROFILE = re.compile(rf"{_PREFIX}cali-pr[io]-")
_WAYS: dict[str, Way] = {
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
    """kind: as ``kubectl get`` takes it; namespace: empty for a policy of the whole cluster."""

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
    """policies: that denied it (explicit), or that select the pod and did not admit it.

    unnamed: chains of policies whose names nobody wrote down
    profile: no policy selects the pod; its profile (its namespace's) does not admit it
    pod: whom the rules say they are for
    """

    policies: tuple[PolicyName, ...]
    way: Way | None = None
    tier: str = ""
    explicit: bool = False
    unnamed: tuple[str, ...] = ()
    profile: bool = False
    pod: str = ""


def is_policy(chain: str) -> bool:
    """Whether a drop in this chain is the work of a policy controller."""
    calico = _ENDPOINT.match(chain) or _POLICY.match(chain) or _PROFILE.match(chain)
    return calico is not None or chain.startswith((_ROUTER, _ROUTER_POLICY))


def denial(met: Sequence[RuleRef], ruleset: Ruleset | None) -> PolicyDenial | None:
    """``met``: in order; the last one threw the packet away. None: that was no policy."""
    last = met[-1]
    if last.chain.startswith((_ROUTER, _ROUTER_POLICY)):
        return _kube_router(met)
    policy = _POLICY.match(last.chain)
    if policy is not None:
        return _explicit(met, ruleset, _WAYS[policy["kind"]])
    endpoint = _ENDPOINT.match(last.chain)
    if endpoint is None:
        return None
    way = _WAYS[endpoint["kind"]]
    if _NO_PROFILE.search(last.text):
        return PolicyDenial(policies=(), way=way, profile=True)
    ended = _ENDS.search(last.text)
    return _unadmitted(met, ruleset, way, ended["tier"] or "") if ended else None


# --- Calico -------------------------------------------------------------------------------------


def _explicit(met: Sequence[RuleRef], ruleset: Ruleset | None, way: Way) -> PolicyDenial:
    chain = met[-1].chain
    name = _named(met[-1], chain, ruleset)
    tier = (name.tier if name else "") or _tier(met)
    unnamed = () if name else (chain,)
    return PolicyDenial(
        policies=(name,) if name else (), way=way, tier=tier, explicit=True, unnamed=unnamed
    )


def _unadmitted(
    met: Sequence[RuleRef], ruleset: Ruleset | None, way: Way, tier: str
) -> PolicyDenial:
    """Every policy that was asked since the tier began."""
    begun = [n for n, ref in enumerate(met) if _BEGINS.search(ref.text)]
    asked = dict.fromkeys(
        (ref.table, to)
        for ref in met[begun[-1] if begun else 0 :]
        if (to := _target(ref)) and _POLICY.match(to)
    )
    names, unnamed = [], []
    for _, chain in asked:
        name = _named(met[-1], chain, ruleset)
        if name:
            names.append(name)
        else:
            unnamed.append(chain)
    tiers = {name.tier for name in names if name.tier}
    if not tier:
        tier = _tier(met) or (tiers.pop() if len(tiers) == 1 else "")
    return PolicyDenial(policies=tuple(names), way=way, tier=tier, unnamed=tuple(unnamed))


def _tier(met: Sequence[RuleRef]) -> str:
    for ref in reversed(met):
        begun = _BEGINS.search(ref.text)
        if begun:
            return begun["tier"] or ""
    return ""


def _target(ref: RuleRef) -> str:
    found = _TARGET.search(ref.text)
    return found["chain"] if found else ""


def _named(ref: RuleRef, chain: str, ruleset: Ruleset | None) -> PolicyName | None:
    """As the comment of the chain's first rule tells it."""
    if ruleset is None:
        return None
    table = Table(backend=_backend(ref), family=ref.family, name=ref.table)
    held = ruleset.chain(table, chain)
    for rule in held.rules[:1] if held else ():
        found = _CALLED.search(f"{rule.text}\n{rule.comment}")
        if found:
            return _policy(found)
    return None


def _backend(ref: RuleRef) -> Literal["legacy", "nft"]:
    return "legacy" if ref.backend == "legacy" else "nft"


def _policy(found: re.Match[str]) -> PolicyName:
    kind, namespace, name = found["kind"], found["namespace"] or "", found["name"]
    if kind != "Policy":
        known = _KINDS.get(kind, _CALICO if namespace else _CALICO_GLOBAL)
        return PolicyName(kind=known, namespace=namespace, name=name)
    if name.startswith(_KUBERNETES):
        own = name.removeprefix(_KUBERNETES)
        return PolicyName(kind="networkpolicy", namespace=namespace, name=own, tier="default")
    tier, dot, _ = name.partition(".")
    kind = _CALICO if namespace else _CALICO_GLOBAL
    return PolicyName(kind=kind, namespace=namespace, name=name, tier=tier if dot else "")


# --- kube-router --------------------------------------------------------------------------------


def _kube_router(met: Sequence[RuleRef]) -> PolicyDenial:
    own = [ref for ref in met if ref.chain.startswith(_ROUTER)]
    owner = _OF_POD.search(met[-1].text)
    namespace = owner["namespace"] if owner else ""
    run = [(ref, found) for ref in own if (found := _RUN_THROUGH.search(ref.text))]
    names = dict.fromkeys(found["name"] for _, found in run)
    return PolicyDenial(
        policies=tuple(
            PolicyName(kind="networkpolicy", namespace=namespace, name=name) for name in names
        ),
        way=next(_directions([ref for ref, _ in run]), None),
        pod=f"{namespace}/{owner['name']}" if owner else "",
    )


def _directions(run: Sequence[RuleRef]) -> Iterator[Way]:
    """The jump says whose address the pod's is: ``-s`` sends, ``-d`` receives."""
    for ref in run:
        if re.search(r"(^| )-s ", ref.text):
            yield "egress"
        elif re.search(r"(^| )-d ", ref.text):
            yield "ingress"

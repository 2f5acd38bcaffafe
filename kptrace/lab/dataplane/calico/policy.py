"""NetworkPolicies as Felix writes them: policies in, chains and ipsets out; pure.

A policy is a chain (``cali-pi-`` for ingress, ``cali-po-`` for egress) whose rules mark the packet
as accepted or passed on and return, or drop it. A pod's own chain (``cali-tw-``, ``cali-fw-``) goes
through the policies that select it, tier by tier; a packet that none has marked is dropped at the
end of the tier. Only a policy's first rule says in a comment which policy it is, and an empty one
has a rule without a target for that.

The texts of releases differ, as do the marks: see ``FelixRelease``.

Source: felix/rules/policy.go, endpoints.go, felix/hashutils, of 2023, 2024 and 2026.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kptrace.lab.address_plan import Plan, PodPlan
from kptrace.lab.network_policy import LabPolicyRule, Policy, Way

Chains = dict[str, list[str]]


class FelixRelease(NamedTuple):
    """What changed between releases: which bits mean what, and how tiers and policies are told.

    drop: 0 where a deny needs no mark of its own
    """

    accept: int
    passed: int
    drop: int
    scratch0: int
    scratch1: int
    begins: str
    ends: str
    tiers: bool

    @property
    def every(self) -> int:
        return self.accept | self.passed | self.drop | self.scratch0 | self.scratch1

    @property
    def endpoints(self) -> int:
        """The bits that are left (of 0xffff0000) tell pods apart, under IPVS."""
        return 0xFFFF0000 & ~self.every

    @property
    def stranger(self) -> int:
        """The endpoint mark of a packet that came from no pod of ours: the lowest one."""
        return self.endpoints & -self.endpoints


# until about 3.28, and of 2026
OLD = FelixRelease(
    accept=0x10000,
    passed=0x20000,
    drop=0,
    scratch0=0x40000,
    scratch1=0x80000,
    begins="Start of policies",
    ends="Drop if no policies passed packet",
    tiers=False,
)
NEW = FelixRelease(
    accept=0x10000,
    passed=0x20000,
    drop=0x40000,
    scratch0=0x80000,
    scratch1=0x100000,
    begins="Start of tier {}",
    ends="End of tier {}. Drop if no policies passed packet",
    tiers=True,
)


def shape(plan: Plan) -> FelixRelease:
    """Felix that programs the routes itself (VXLAN) is the newer one here."""
    return NEW if plan.network == "calico-vxlan" else OLD


def single(bit: int) -> str:
    return f"{bit:#x}/{bit:#x}"


def why(text: str) -> str:
    return f'-m comment --comment "{text}"'


def policy_chains(plan: Plan, policies: Iterable[Policy], family: int) -> Chains:
    release = shape(plan)
    return {chain_of(policy, release): [*_policy(policy, release, family)] for policy in policies}


def tiers(plan: Plan, pod: PodPlan, way: Way, policies: Sequence[Policy]) -> Iterator[str]:
    """The part of a pod's chain that goes through its policies."""
    release = shape(plan)
    mine = [p for p in policies if (p.namespace, p.app, p.way) == (pod.namespace, pod.app, way)]
    for tier in sorted(
        {_tier(policy, release) for policy in mine}, key=lambda name: name == "default"
    ):
        yield f"{why(release.begins.format(tier))} -j MARK --set-xmark 0x0/{release.passed:#x}"
        # Calico's own come before those of Kubernetes, whose order is 1000
        inside = [policy for policy in mine if _tier(policy, release) == tier]
        for policy in sorted(inside, key=lambda policy: policy.kind == "KubernetesNetworkPolicy"):
            yield f"-m mark --mark 0x0/{release.passed:#x} -j {chain_of(policy, release)}"
            accepted = f"-m mark --mark {single(release.accept)}"
            yield f"{why('Return if policy accepted')} {accepted} -j RETURN"
        yield f"{why(release.ends.format(tier))} -m mark --mark 0x0/{release.passed:#x} -j DROP"


def chain_of(policy: Policy, release: FelixRelease) -> str:
    prefix = "cali-pi-" if policy.way == "ingress" else "cali-po-"
    return f"{prefix}_{_hash(_called(policy, release))[:19]}"


def _called(policy: Policy, release: FelixRelease) -> str:
    """How the comment names it; before kinds had a word of their own, names began with the tier."""
    if release.tiers:
        return f"{policy.kind} {policy.namespace}/{policy.name}"
    kind = "knp." if policy.kind == "KubernetesNetworkPolicy" else ""
    return f"Policy {policy.namespace}/{kind}{_tier(policy, release)}.{policy.name}"


def _tier(policy: Policy, release: FelixRelease) -> str:
    return policy.tier if release.tiers else "default"


def _policy(policy: Policy, release: FelixRelease, family: int) -> Iterator[str]:
    lines: list[str] = []
    for rule in policy.rules:
        if any(rule.net) and not rule.net[family]:
            continue
        lines += _rule(policy, rule, release, family)
    if lines and lines[-1].endswith("-j RETURN"):
        lines.pop()  # the end of the chain does it
    yield f"{why(f'{_called(policy, release)} {policy.way}')} {lines[0] if lines else ''}".strip()
    yield from lines[1:]


def _rule(policy: Policy, rule: LabPolicyRule, release: FelixRelease, family: int) -> Iterator[str]:
    mark = {"allow": release.accept, "pass": release.passed, "deny": release.drop}[rule.action]
    verdict = "DROP" if rule.action == "deny" else "RETURN"
    match = " ".join(_match(policy, rule, family))
    if not mark:
        yield f"{match} -j {verdict}".strip()
        return
    yield f"{match} -j MARK --set-xmark {single(mark)}".strip()
    yield f"-m mark --mark {single(mark)} -j {verdict}"


def _match(policy: Policy, rule: LabPolicyRule, family: int) -> Iterator[str]:
    option, side = ("-s", "src") if policy.way == "ingress" else ("-d", "dst")
    if rule.protocol:
        yield f"-p {rule.protocol}"
    if rule.net[family]:
        yield f"{option} {rule.net[family]}"
    if rule.peer:
        yield f"-m set --match-set {set_of(policy, rule, family)} {side}"
    if rule.ports:
        yield f"-m multiport --dports {','.join(map(str, rule.ports))}"


# --- ipsets -------------------------------------------------------------------------------------


def ipsets(plan: Plan, policies: Iterable[Policy], family: int) -> dict[str, tuple[str, ...]]:
    """The members of each selector's set."""
    entries_by_set: dict[str, tuple[str, ...]] = {}
    for policy in policies:
        for rule in policy.rules:
            if rule.peer:
                entries_by_set[set_of(policy, rule, family)] = tuple(
                    pod.addresses[family]
                    for pod in plan.pods
                    if pod.namespace == policy.namespace and rule.peer in ("*", pod.app)
                )
    return entries_by_set


def set_of(policy: Policy, rule: LabPolicyRule, family: int) -> str:
    """31 characters, as an ipset's name may have."""
    selector = f"{policy.namespace} {rule.peer}"
    return f"{'cali60' if family else 'cali40'}s:{_hash(selector)[:23]}"


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")

"""Causes that only the prediction knows: its way ends where the probe was seen last.

Where neither a rule trace nor a drop reason was to be had, the taps prove how far the packet came,
and the rules, routes and devices that were read say what ends it there. That is weaker than the
kernel's own report of the drop, and the evidence says which of the two it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from kptrace.diagnose.catalogue.causes import cause
from kptrace.diagnose.checks.filter_rules import blocked, tunnel_blocked
from kptrace.diagnose.checks.service_proxy import nobody_words, refusal
from kptrace.diagnose.phrases import drop_report, last_seen, next_predicted, rule_name
from kptrace.diagnose.probe_evidence import ProbeEvidence
from kptrace.model import Finding, RuleRef, SimulatedStep

READ = "its rules, routes and devices, as they were read, end it there"
_BY_RULES = ("tunnel-port-blocked", "forward-policy-drop", "rule-drop", "rule-reject")
# for want of endpoints
_FOR_WANT = ("no-endpoints", "no-local-endpoints")
# a line for the device that the packet ends at
_MENDS = {
    "link-down": (
        "ip link set {interface} up  # on {node}",
        "and restart the CNI's pod on {node}: the kernel took the routes over it away",
    ),
}


def diagnose(case: ProbeEvidence) -> Iterator[Finding]:
    branch = case.branch
    if (
        branch is None
        or not branch.cause
        or not branch.deterministic
        or next_predicted(case) is not None
    ):
        return
    last = branch.steps[-1] if branch.steps else None
    if last is not None and last.rule is not None and branch.cause in _BY_RULES:
        yield _by_rule(case, branch.cause, last, last.rule)
        return
    node = last.netns.node if last else case.node
    about = [*nobody_words(case), *refusal(case)] if branch.cause in _FOR_WANT else []
    yield Finding(
        cause=branch.cause,
        severity="error",
        node=node,
        object=branch.object.removeprefix(f"{node}: "),
        summary=branch.full_description
        if node in branch.full_description
        else f"{node}: {branch.full_description}",
        evidence=(*(drop_report(case, d) for d in case.drops[:1]), *last_seen(case), *about, READ),
        remedy=tuple(_mends(case, branch.cause, last.interface if last else "", node)),
    )


def _mends(case: ProbeEvidence, id: str, interface: str, node: str) -> Iterator[str]:
    """For the device or the Service that it ends at; else what mends this cause mostly."""
    service, entry = case.resolution.service, cause(id)
    if interface and id in _MENDS:
        yield from (text.format(interface=interface, node=node) for text in _MENDS[id])
    elif service is not None and id in _FOR_WANT:
        yield f"kubectl -n {service.namespace} describe svc {service.name}"
    elif entry is not None:
        yield entry.mend


def _by_rule(case: ProbeEvidence, id: str, step: SimulatedStep, ref: RuleRef) -> Finding:
    node, name = step.netns.node, rule_name(ref)
    text = f": {ref.text}" if ref.text and ref.number else ""
    evidence = [
        *last_seen(case),
        f"{name} of {node}, as it was read{text}",
        "no rule trace and no drop report was to be had that would confirm it",
    ]
    if id == "tunnel-port-blocked" and case.last is not None:
        return tunnel_blocked(case.last.packet, step.netns, name, ref, evidence)
    return blocked(step.netns, ref, step.hook, step.action == "dropped", evidence)

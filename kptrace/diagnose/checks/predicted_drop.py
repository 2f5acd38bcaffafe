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


def diagnose(evidence: ProbeEvidence) -> Iterator[Finding]:
    branch = evidence.branch
    if (
        branch is None
        or not branch.cause
        or not branch.deterministic
        or next_predicted(evidence) is not None
    ):
        return
    last = branch.steps[-1] if branch.steps else None
    if last is not None and last.rule is not None and branch.cause in _BY_RULES:
        yield _by_rule(evidence, branch.cause, last, last.rule)
        return
    node = last.netns.node if last else evidence.node
    about = [*nobody_words(evidence), *refusal(evidence)] if branch.cause in _FOR_WANT else []
    yield Finding(
        cause=branch.cause,
        severity="error",
        node=node,
        object=branch.object.removeprefix(f"{node}: "),
        summary=branch.full_description
        if node in branch.full_description
        else f"{node}: {branch.full_description}",
        evidence=(
            *(drop_report(evidence, d) for d in evidence.drops[:1]),
            *last_seen(evidence),
            *about,
            READ,
        ),
        remedy=tuple(_mends(evidence, branch.cause, last.interface if last else "", node)),
    )


def _mends(evidence: ProbeEvidence, id: str, interface: str, node: str) -> Iterator[str]:
    """For the device or the Service that it ends at; else the usual fix of this cause."""
    service, entry = evidence.resolution.service, cause(id)
    if interface and id in _MENDS:
        yield from (text.format(interface=interface, node=node) for text in _MENDS[id])
    elif service is not None and id in _FOR_WANT:
        yield f"kubectl -n {service.namespace} describe svc {service.name}"
    elif entry is not None:
        yield entry.fix


def _by_rule(evidence: ProbeEvidence, id: str, step: SimulatedStep, ref: RuleRef) -> Finding:
    node, name = step.netns.node, rule_name(ref)
    text = f": {ref.text}" if ref.text and ref.number else ""
    lines = [
        *last_seen(evidence),
        f"{name} of {node}, as it was read{text}",
        "no rule trace and no drop report was to be had that would confirm it",
    ]
    if id == "tunnel-port-blocked" and evidence.last is not None:
        return tunnel_blocked(evidence.last.packet, step.netns, name, ref, lines)
    return blocked(step.netns, ref, step.hook, step.action == "dropped", lines)

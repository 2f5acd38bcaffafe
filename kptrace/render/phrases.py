"""Small things in words: ends, packets, times, places, rules, what became of it. Pure, text out.

Names come before addresses, and a pod is called as it can be typed again: ``pod/web-1`` in the
target's own namespace, ``pod/shop/web-1`` elsewhere (target.py).
"""

from __future__ import annotations

import re

from kptrace.diagnose.phrases import flow_words
from kptrace.model import MatchedRule, Outcome, Packet, RuleRef, Source, Target, Trace

TCP_WORDS = {"S": "SYN", "SA": "SYN-ACK", "A": "ACK", "R": "RST", "RA": "RST", "FA": "FIN"}

AnyRule = RuleRef | MatchedRule

TARGET_PREFIX = {"service": "svc/", "pod": "pod/", "name": "", "address": ""}


def packet_words(packet: Packet) -> str:
    """The innermost packet: ``10.244.1.10:41515 > 10.96.41.7:80 SYN``."""
    inner = packet.innermost
    kind = TCP_WORDS.get(inner.flags, inner.flags) or inner.flow.protocol.upper()
    return f"{flow_words(inner.flow)} {kind}"


def offset_words(microseconds: float | None) -> str:
    """``0``, ``+12 us``, ``+1.24 ms``, ``+3.00 s``: since the probe left."""
    if microseconds is None:
        return ""
    return (
        "0"
        if microseconds == 0
        else f"{'-' if microseconds < 0 else '+'}{duration_text(microseconds)}"
    )


def duration_text(microseconds: float) -> str:
    amount = abs(microseconds)
    if amount < 1_000:
        return f"{amount:.0f} us"
    if amount < 1_000_000:
        return f"{amount / 1_000:.2f} ms"
    return f"{amount / 1_000_000:.2f} s"


def pod_words(key: str, namespace: str) -> str:
    """A pod's ``namespace/name`` as one would type it while in ``namespace``."""
    return f"pod/{key.removeprefix(f'{namespace}/')}"


def place_words(node: str, netns: str, namespace: str) -> str:
    """``node-a`` or ``pod/client on node-a``."""
    return node if netns == "host" else f"{pod_words(netns, namespace)} on {node}"


def target_words(target: Target) -> str:
    """``svc/web:http (shop)``."""
    if target.kind not in ("service", "pod"):
        return target.text
    port = f":{target.port}" if target.port else ""
    protocol = f"/{target.protocol}" if target.protocol and port else ""
    return f"{TARGET_PREFIX[target.kind]}{target.name}{port}{protocol} ({target.namespace})"


def source_words(source: Source, namespace: str) -> str:
    if source.kind == "outside":
        return source.address or "outside"
    pod = source.netns.pod
    return place_words(source.netns.node, pod or "host", namespace)


def rule_place(rule: AnyRule) -> str:
    """``KUBE-SVC-XIOM 2``, as ``iptables -L --line-numbers`` counts; a policy has no number."""
    return f"{rule.chain} {rule.number}" if rule.number else f"{rule.chain} policy"


def rule_text(rule: AnyRule) -> str:
    """The rule's own text without the ``-A CHAIN`` that its place says already."""
    return rule.text.removeprefix(f"-A {rule.chain} ")


def rule_deed(rule: AnyRule) -> str:
    """What the rule does, in its own words: ``DNAT --to-destination 10.244.2.21:8080``.

    iptables-save writes all matches first, then ``-j`` or ``-g`` and the target with its options;
    quoted text (a comment) may hold anything. A rule of another form is told whole; a choice of
    IPVS in words.
    """
    if rule.backend == "ipvs" and rule.description:
        return rule.description
    for part in re.finditer(r'"(?:[^"\\]|\\.)*"|(?<!\S)-[jg] ', rule.text):
        if part.group()[0] == "-":
            return rule.text[part.end() :]
    return rule_text(rule)


OUTCOME_WORDS = {
    Outcome.DELIVERED: "DELIVERED",
    Outcome.REFUSED: "REFUSED by the backend",
    Outcome.REJECTED: "REJECTED",
    Outcome.DROPPED: "DROPPED",
    Outcome.NO_ENDPOINTS: "NO ENDPOINTS",
    Outcome.NOT_PROGRAMMED: "NOT PROGRAMMED",
    Outcome.UNRESOLVED: "UNRESOLVED",
    Outcome.INCONCLUSIVE: "INCONCLUSIVE",
}

# Where a report says on which node it happened.
PLACED = (Outcome.REJECTED, Outcome.DROPPED, Outcome.NOT_PROGRAMMED)

# The cause whose object says itself where that is: between two nodes.
BETWEEN = "lost-between-nodes"

OUTCOME_STYLES = {Outcome.DELIVERED: "good", Outcome.INCONCLUSIVE: "unsure"}


def outcome_words(trace: Trace) -> str:
    """``DELIVERED in 410 us``, ``DELIVERED 30 of 30``, ``DROPPED on node-b, 28 of 30 delivered``"""
    text = OUTCOME_WORDS[trace.outcome]
    sent = sum(share.seen for share in trace.evidence.shares)
    done = f"{sum(share.delivered for share in trace.evidence.shares)} of {sent}"
    if trace.outcome is Outcome.DELIVERED:
        if sent:
            return f"{text} {done}"
        return (
            f"{text} in {duration_text(trace.elapsed_us)}" if trace.elapsed_us is not None else text
        )
    netns = place_of_fault(trace)
    text += f" {netns}" if trace.outcome in PLACED and netns else ""
    return f"{text}, {done} delivered" if sent else text


def outcome_style(outcome: Outcome) -> str:
    return OUTCOME_STYLES.get(outcome, "bad")


def place_of_fault(trace: Trace) -> str:
    """``on node-b``, ``between node-a and node-b``: as the first error says, else the last hop."""
    for finding in trace.findings:
        if finding.severity == "error" and finding.cause == BETWEEN:
            return finding.object
        if finding.severity == "error" and finding.node:
            return f"on {finding.node}"
    for hop in reversed(trace.hops):
        if hop.action in ("dropped", "rejected"):
            return f"on {hop.node}"
    return ""

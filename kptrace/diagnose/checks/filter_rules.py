"""Causes in filter rules: a rule or a policy dropped the packet, or rejected it.

The proof is the rule trace's last event for the packet, or, where that is missing, the kernel's
own drop reason NETFILTER_DROP. Where the packet was the outer one of a tunnel, what was blocked is
the tunnel, and with it every pod of the other nodes.
"""

from __future__ import annotations

from collections.abc import Iterator

from kptrace.diagnose.chain_traversal import ChainTraversal, MatchedRuleEvent
from kptrace.diagnose.phrases import drop_report, last_seen, rule_hit, rule_name, there
from kptrace.diagnose.probe_evidence import ProbeEvidence
from kptrace.model import CauseId, DropEvent, Finding, Netns, Packet, RuleRef


def diagnose(evidence: ProbeEvidence) -> Iterator[Finding]:
    dropping = evidence.ended_by
    if dropping is not None:
        yield _blocked_by(evidence, *dropping)
        return
    drop = evidence.dropped_for("NETFILTER_DROP")
    if drop is not None:
        yield _blocked(evidence, drop)


def _blocked_by(
    evidence: ProbeEvidence, traversal: ChainTraversal, met: MatchedRuleEvent
) -> Finding:
    lines = [rule_hit(traversal, met), *last_seen(evidence)]
    drop = evidence.dropped_for("NETFILTER_DROP")
    if drop is not None:
        lines.append(drop_report(evidence, drop))
    netns = traversal.place
    if traversal.outer:
        return tunnel_blocked(_carrier(evidence), netns, rule_name(met.ref), met.ref, lines)
    return blocked(netns, met.ref, traversal.hook, met.drops, lines)


def blocked(netns: Netns, ref: RuleRef, hook: str, drops: bool, evidence: list[str]) -> Finding:
    """This rule or policy dropped it."""
    name, node = rule_name(ref), netns.node
    if hook == "forward" and not ref.number:
        return Finding(
            cause="forward-policy-drop",
            severity="error",
            node=node,
            object=name,
            summary=f"the policy of {ref.table} {ref.chain} {there(netns)} is DROP and no rule "
            "accepts the packet before",
            evidence=tuple(evidence),
            remedy=(
                f"{_iptables(ref)} -P {ref.chain} ACCEPT  # {there(netns)}",
                "or let the CNI's own FORWARD rules be written again (restart its pod)",
            ),
        )
    cause, verb = ("rule-drop", "drops") if drops else ("rule-reject", "rejects")
    return Finding(
        cause=cause,
        severity="error",
        node=node,
        object=name,
        summary=f"{name} {there(netns)} {verb} it: {ref.text or ref.description}",
        evidence=tuple(evidence),
        remedy=_removal(ref, netns),
    )


def _carrier(evidence: ProbeEvidence) -> Packet:
    """The tunnel's packet as it was last seen."""
    return next(s.packet for s in reversed(evidence.journey.forward) if s.packet.tunnel)


def tunnel_blocked(
    packet: Packet, netns: Netns, name: str, ref: RuleRef | None, evidence: list[str]
) -> Finding:
    tunnel, node = packet.tunnel, netns.node
    assert tunnel is not None
    outer = packet.flow
    port = f"UDP port {outer.dport}" if outer.protocol == "udp" else "IP protocol 4"
    said = f" by {name}: {ref.text}" if ref and ref.text else f" by {name}" if name else ""
    return Finding(
        cause="tunnel-port-blocked",
        severity="error",
        node=node,
        object=name or port,
        summary=f"the {tunnel.kind.upper()} packet reached {node} and was dropped there{said}",
        evidence=tuple(evidence),
        remedy=(
            *(_removal(ref, netns) if ref else ()),
            f"or let {port} in from the nodes' addresses (here {outer.src})",
        ),
    )


def _blocked(evidence: ProbeEvidence, drop: DropEvent) -> Finding:
    """Only the drop report says it: some rule did, which one is not known."""
    lines = [
        drop_report(evidence, drop),
        *last_seen(evidence),
        "no rule trace tells which rule it was",
    ]
    if drop.packet is not None and drop.packet.tunnel is not None:
        return tunnel_blocked(drop.packet, Netns(node=drop.node), "", None, lines)
    cause = evidence.branch.cause if evidence.branch else None
    predicted = evidence.branch.object if evidence.branch and cause else ""
    return Finding(
        cause=cause if cause and predicted else CauseId.RULE_DROP,
        severity="error",
        node=drop.node,
        object=predicted or "a netfilter rule",
        summary=f"a netfilter rule on {drop.node} drops it"
        + (f", by the rules that were read: {predicted}" if predicted else ""),
        evidence=tuple(lines),
        remedy=("iptables-save -c; nft list ruleset  # on that node: whose counter rises?",),
    )


def _iptables(ref: RuleRef) -> str:
    program = "ip6tables" if ref.family == "ip6" else "iptables"
    variant = "legacy" if ref.backend == "legacy" else "nft"
    table = "" if ref.table == "filter" else f" -t {ref.table}"
    return f"{program}-{variant}{table}"


def _removal(ref: RuleRef, netns: Netns) -> tuple[str, ...]:
    """The command that takes the rule out, by its number: a rule's text may be anybody's, and
    does not belong into a line that is made to be pasted into a shell.
    """
    if not ref.number:
        return ()
    if ref.text.startswith("-") or not ref.text:
        return (f"{_iptables(ref)} -D {ref.chain} {ref.number}  # {there(netns)}",)
    return (
        f"nft -a list chain {ref.family} {ref.table} {ref.chain}  # {there(netns)}; then",
        f"nft delete rule {ref.family} {ref.table} {ref.chain} handle N",
    )

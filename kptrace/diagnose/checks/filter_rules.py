"""Causes in filter rules: a rule or a policy threw the packet away, or rejected it.

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


def diagnose(case: ProbeEvidence) -> Iterator[Finding]:
    dropping = case.ended_by
    if dropping is not None:
        yield _blocked_by(case, *dropping)
        return
    drop = case.dropped_for("NETFILTER_DROP")
    if drop is not None:
        yield _blocked(case, drop)


def _blocked_by(case: ProbeEvidence, passage: ChainTraversal, met: MatchedRuleEvent) -> Finding:
    evidence = [rule_hit(passage, met), *last_seen(case)]
    drop = case.dropped_for("NETFILTER_DROP")
    if drop is not None:
        evidence.append(drop_report(case, drop))
    place = passage.place
    if passage.outer:
        return tunnel_blocked(_carrier(case), place, rule_name(met.ref), met.ref, evidence)
    return blocked(place, met.ref, passage.hook, met.drops, evidence)


def blocked(place: Netns, ref: RuleRef, hook: str, drops: bool, evidence: list[str]) -> Finding:
    """This rule or policy threw it away."""
    name, node = rule_name(ref), place.node
    if hook == "forward" and not ref.number:
        return Finding(
            cause="forward-policy-drop",
            severity="error",
            node=node,
            object=name,
            summary=f"the policy of {ref.table} {ref.chain} {there(place)} is DROP and no rule "
            "accepts the packet before",
            evidence=tuple(evidence),
            remedy=(
                f"{_iptables(ref)} -P {ref.chain} ACCEPT  # {there(place)}",
                "or let the CNI's own FORWARD rules be written again (restart its pod)",
            ),
        )
    cause, verb = ("rule-drop", "drops") if drops else ("rule-reject", "rejects")
    return Finding(
        cause=cause,
        severity="error",
        node=node,
        object=name,
        summary=f"{name} {there(place)} {verb} it: {ref.text or ref.description}",
        evidence=tuple(evidence),
        remedy=_removal(ref, place),
    )


def _carrier(case: ProbeEvidence) -> Packet:
    """The tunnel's packet as it was last seen."""
    return next(s.packet for s in reversed(case.journey.forward) if s.packet.tunnel)


def tunnel_blocked(
    packet: Packet, place: Netns, name: str, ref: RuleRef | None, evidence: list[str]
) -> Finding:
    tunnel, node = packet.tunnel, place.node
    assert tunnel is not None
    outer = packet.flow
    port = f"UDP port {outer.dport}" if outer.protocol == "udp" else "IP protocol 4"
    said = f" by {name}: {ref.text}" if ref and ref.text else f" by {name}" if name else ""
    return Finding(
        cause="tunnel-port-blocked",
        severity="error",
        node=node,
        object=name or port,
        summary=f"the {tunnel.kind.upper()} packet reached {node} and was thrown away there{said}",
        evidence=tuple(evidence),
        remedy=(
            *(_removal(ref, place) if ref else ()),
            f"or let {port} in from the nodes' addresses (here {outer.src})",
        ),
    )


def _blocked(case: ProbeEvidence, drop: DropEvent) -> Finding:
    """Only the drop report says it: some rule did, which one is not known."""
    evidence = [drop_report(case, drop), *last_seen(case), "no rule trace tells which rule it was"]
    if drop.packet is not None and drop.packet.tunnel is not None:
        return tunnel_blocked(drop.packet, Netns(node=drop.node), "", None, evidence)
    cause = case.branch.cause if case.branch else None
    predicted = case.branch.object if case.branch and cause else ""
    return Finding(
        cause=cause if cause and predicted else CauseId.RULE_DROP,
        severity="error",
        node=drop.node,
        object=predicted or "a netfilter rule",
        summary=f"a netfilter rule on {drop.node} drops it"
        + (f", by the rules that were read: {predicted}" if predicted else ""),
        evidence=tuple(evidence),
        remedy=("iptables-save -c; nft list ruleset  # on that node: whose counter rises?",),
    )


def _iptables(ref: RuleRef) -> str:
    program = "ip6tables" if ref.family == "ip6" else "iptables"
    variant = "legacy" if ref.backend == "legacy" else "nft"
    table = "" if ref.table == "filter" else f" -t {ref.table}"
    return f"{program}-{variant}{table}"


def _removal(ref: RuleRef, place: Netns) -> tuple[str, ...]:
    """The command that takes the rule out, by its number: a rule's text may be anybody's, and
    does not belong into a line that is made to be pasted into a shell.
    """
    if not ref.number:
        return ()
    if ref.text.startswith("-") or not ref.text:
        return (f"{_iptables(ref)} -D {ref.chain} {ref.number}  # {there(place)}",)
    return (
        f"nft -a list chain {ref.family} {ref.table} {ref.chain}  # {there(place)}; then",
        f"nft delete rule {ref.family} {ref.table} {ref.chain} handle N",
    )

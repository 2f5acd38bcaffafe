"""Causes in the service proxy's rules: missing, stale, or saying that there is nobody to send to.

What separates them (failures.md's three-way test in the kernel's words): an untranslated packet
has met no DNAT; a stale one was sent to an address that is no endpoint; a refused one met the rule
that kube-proxy writes for a Service without endpoints.
"""

from __future__ import annotations

from collections.abc import Iterator

from kptrace.diagnose.api_only.facts import ApiFacts, selected, why_nobody
from kptrace.diagnose.chain_traversal import DNAT, ChainTraversal, MatchedRuleEvent
from kptrace.diagnose.phrases import end, entry_words, flow_words, last_seen, rule_hit, rule_name
from kptrace.diagnose.probe_evidence import ProbeEvidence
from kptrace.model import Endpoint, Finding, Netns, NoteKind, RuleRef

# How kube-proxy names these rules: comments in iptables mode, maps in nftables mode.
NO_ENDPOINTS = ("has no endpoints", "no-endpoint-services", "no-endpoint-nodeports", "reject-chain")
NO_LOCAL_ENDPOINTS = ("has no local endpoints",)

# In nftables mode a ClusterIP that no map knows for this port ends in this chain.
UNKNOWN_PORT = "cluster-ips-check"


def diagnose(evidence: ProbeEvidence) -> Iterator[Finding]:
    if not evidence.is_service:
        yield from _no_such_port(evidence)
        return
    rejecting = _nobody_rule(evidence)
    if rejecting is not None:
        yield _nobody(evidence, *rejecting)
    elif evidence.backend is None:
        yield from _untranslated(evidence)
    else:
        yield from _stale(evidence)


def _no_such_port(evidence: ProbeEvidence) -> Iterator[Finding]:
    """The address is a Service's, the port is none of its."""
    resolution = evidence.resolution
    owner = next(
        (
            service
            for service in evidence.documents.services
            if resolution.service is None and resolution.address in service.cluster_ips
        ),
        None,
    )
    if owner is None or evidence.backend is not None:
        return
    asked = f"{resolution.port}/{resolution.protocol}"
    offered = ", ".join(f"{port.port}/{port.protocol}" for port in owner.ports)
    yield Finding(
        cause="no-such-port",
        severity="error",
        node=evidence.node,
        object=f"Service {owner.key} port {asked}",
        summary=f"{resolution.address} is Service {owner.key}, which has no port {asked}",
        evidence=(f"the API says that {owner.key} has: {offered}", *last_seen(evidence)),
        remedy=(
            f"use one of its ports: {offered}",
            f"kubectl -n {owner.namespace} get svc {owner.name}  # or add the port to it",
        ),
    )


def _nobody_rule(evidence: ProbeEvidence) -> tuple[ChainTraversal, MatchedRuleEvent] | None:
    """The rule that ended the probe, if it is one that kube-proxy writes for want of endpoints."""
    rejecting = evidence.ended_by
    if rejecting is None:
        return None
    traversal, _ = rejecting
    texts = " ".join(f"{met.ref.chain} {met.ref.text}" for met in traversal.rules)
    marks = (*NO_ENDPOINTS, *NO_LOCAL_ENDPOINTS)
    return rejecting if any(mark in texts for mark in marks) else None


def _nobody(evidence: ProbeEvidence, traversal: ChainTraversal, met: MatchedRuleEvent) -> Finding:
    service = evidence.resolution.service
    assert service is not None
    ready = [e for e in evidence.resolution.endpoints if e.ready]
    lines = [rule_hit(traversal, met), *nobody_words(evidence)]
    lines += refusal(evidence)
    if ready and met.drops:
        return Finding(
            cause="no-local-endpoints",
            severity="error",
            node=traversal.place.node,
            object=rule_name(met.ref),
            summary=f"{service.key} has traffic policy Local and no endpoint on "
            f"{traversal.place.node}: its packets are dropped there",
            evidence=tuple(lines),
            remedy=(
                f"kubectl -n {service.namespace} get pods -o wide  # is one on this node?",
                "or set internalTrafficPolicy/externalTrafficPolicy to Cluster",
            ),
        )
    return Finding(
        cause="no-endpoints",
        severity="error",
        node=traversal.place.node,
        object=f"Service {service.key}",
        summary=f"Service {service.key} has no ready endpoint: "
        f"{rule_name(met.ref)} on {traversal.place.node} rejects its packets",
        evidence=tuple(lines),
        remedy=(
            f"kubectl -n {service.namespace} describe svc {service.name}",
            f"kubectl -n {service.namespace} get pods{_selector(evidence)}  # do any match? ready?",
        ),
    )


def nobody_words(evidence: ProbeEvidence) -> Iterator[str]:
    """That there is nobody to send to, and why, as far as it was the API that told."""
    yield endpoints_words(evidence)
    service, cluster_state = evidence.resolution.service, evidence.documents
    if service is not None and cluster_state.told_by is None:
        api_facts = ApiFacts(
            source=evidence.source,
            resolution=evidence.resolution,
            documents=cluster_state,
            matched=tuple(selected(service, cluster_state)),
        )
        yield from () if api_facts.usable else why_nobody(api_facts, service)


def _selector(evidence: ProbeEvidence) -> str:
    service = evidence.resolution.service
    pairs = ",".join(f"{key}={value}" for key, value in service.selector) if service else ""
    return f" -l {pairs}" if pairs else ""


def endpoints_words(evidence: ProbeEvidence) -> str:
    endpoints = [e for e in evidence.resolution.endpoints if e.port]  # a slice may have no port
    ready = sum(e.ready for e in endpoints)
    return f"the API has {len(endpoints)} endpoints for it, {ready} of them ready"


def refusal(evidence: ProbeEvidence) -> list[str]:
    """What its sender was told, or why it may have been told nothing."""
    for sighting in evidence.journey.back:
        inner = sighting.packet.innermost
        if inner.icmp is not None:
            return [f"the sender received an ICMP error from {inner.flow.src}"]
    return list(evidence.branch.notes_of(NoteKind.REJECT_NOT_SENT)) if evidence.branch else []


def _untranslated(evidence: ProbeEvidence) -> Iterator[Finding]:
    """No DNAT was met anywhere although the API has endpoints to send to."""
    service = evidence.resolution.service
    assert service is not None
    if not any(e.ready or (e.serving and e.terminating) for e in evidence.resolution.endpoints):
        return
    if any(traversal.nat_rule(*DNAT) for traversal in evidence.passages):
        return
    node = proxy_node(evidence)
    branch = evidence.branch
    predicted = branch is not None and branch.cause == "proxy-rules-missing"
    left = (
        evidence.last is not None
        and evidence.last.direction == "out"
        and not evidence.last.netns.pod
    )
    guard = (
        evidence.ended_by
        if evidence.ended_by and evidence.ended_by[1].ref.chain == UNKNOWN_PORT
        else None
    )
    if not predicted and not left and guard is None:
        return
    address = end(evidence.resolution.address, evidence.resolution.port)
    lines = [rule_hit(*guard)] if guard else []
    lines += last_seen(evidence)
    if evidence.final is not None:
        lines.append(f"it still went to {address}: {flow_words(evidence.final)}")
    if evidence.entry is not None:
        lines.append(entry_words(evidence.entry))
    if predicted and branch is not None and branch.full_description:
        lines.append(branch.full_description)
    lines.append(endpoints_words(evidence))
    yield Finding(
        cause="proxy-rules-missing",
        severity="error",
        node=node,
        object=f"rules for {service.key} ({address}/{evidence.resolution.protocol})",
        summary=f"no rule on {node} translates {address}, the address of {service.key}",
        evidence=tuple(lines),
        remedy=_remedies(
            evidence,
            node,
            "kubectl -n kube-system get pods -l k8s-app=kube-proxy -o wide  # is it up there?",
            f"restart kube-proxy on {node}: it writes all its rules anew",
        ),
    )


def _remedies(evidence: ProbeEvidence, node: str, *by_rules: str) -> tuple[str, ...]:
    """If BPF programs do the NAT, the remedy is that of their CNI plugin."""
    snapshot = evidence.snapshots.get(Netns(node=node))
    programs = snapshot.programs if snapshot else None
    return (programs.remedy if programs else ()) or by_rules


def proxy_node(evidence: ProbeEvidence) -> str:
    """The node whose proxy had to translate: the one that owns the address (a node port), else
    the source's.
    """
    for node in evidence.documents.nodes:
        if evidence.resolution.address in node.addresses:
            return node.name
    return evidence.node


def _stale(evidence: ProbeEvidence) -> Iterator[Finding]:
    service = evidence.resolution.service
    backend = evidence.backend
    assert service is not None
    assert backend is not None
    if any((e.address, e.port) == backend for e in _known(evidence)):
        return
    rewrites = [(p, p.nat_rule(*DNAT)) for p in evidence.passages]
    nat = next(((p, nat_event[0]) for p, nat_event in rewrites if nat_event), None)
    program = _program(evidence)
    node = nat[0].place.node if nat else evidence.node if program else proxy_node(evidence)
    culprit = nat[1].ref if nat else program
    address = end(*backend)
    lines = []
    if culprit:
        source = "rule trace" if nat else "the map"
        lines.append(f"{source} on {node}: {rule_name(culprit)}: {culprit.text}")
    if evidence.entry is not None:
        lines.append(entry_words(evidence.entry))
    known = ", ".join(end(e.address, e.port) for e in evidence.resolution.endpoints) or "none"
    lines.append(f"the EndpointSlices of {service.key} hold: {known}")
    lines += last_seen(evidence)
    yield Finding(
        cause="stale-dnat",
        severity="error",
        node=node,
        object=rule_name(culprit) if culprit else f"DNAT to {address}",
        summary=f"{node} sends {service.key} to {address}, which is none of its endpoints",
        evidence=tuple(lines),
        remedy=_remedies(
            evidence,
            node,
            f"restart kube-proxy on {node}: it writes all its rules anew",
            "curl -s localhost:10256/healthz  # on that node: when did it sync last?",
        ),
    )


def _program(evidence: ProbeEvidence) -> RuleRef | None:
    """The entry of a map by which a program chose this backend at connect(), where one did."""
    for step in evidence.branch.steps if evidence.branch else ():
        if step.action == "dnat" and step.rule and step.rule.backend == "bpf":
            return step.rule
    return None


def _known(evidence: ProbeEvidence) -> tuple[Endpoint, ...]:
    service = evidence.resolution.service
    return evidence.documents.endpoints.get(service.key, ()) if service else ()

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


def diagnose(case: ProbeEvidence) -> Iterator[Finding]:
    if not case.is_service:
        yield from _no_such_port(case)
        return
    rejecting = _nobody_rule(case)
    if rejecting is not None:
        yield _nobody(case, *rejecting)
    elif case.backend is None:
        yield from _untranslated(case)
    else:
        yield from _stale(case)


def _no_such_port(case: ProbeEvidence) -> Iterator[Finding]:
    """The address is a Service's, the port is none of its."""
    resolution = case.resolution
    owner = next(
        (
            service
            for service in case.documents.services
            if resolution.service is None and resolution.address in service.cluster_ips
        ),
        None,
    )
    if owner is None or case.backend is not None:
        return
    asked = f"{resolution.port}/{resolution.protocol}"
    offered = ", ".join(f"{port.port}/{port.protocol}" for port in owner.ports)
    yield Finding(
        cause="no-such-port",
        severity="error",
        node=case.node,
        object=f"Service {owner.key} port {asked}",
        summary=f"{resolution.address} is Service {owner.key}, which has no port {asked}",
        evidence=(f"the API says that {owner.key} has: {offered}", *last_seen(case)),
        remedy=(
            f"use one of its ports: {offered}",
            f"kubectl -n {owner.namespace} get svc {owner.name}  # or add the port to it",
        ),
    )


def _nobody_rule(case: ProbeEvidence) -> tuple[ChainTraversal, MatchedRuleEvent] | None:
    """The rule that ended the probe, if it is one that kube-proxy writes for want of endpoints."""
    rejecting = case.ended_by
    if rejecting is None:
        return None
    passage, _ = rejecting
    texts = " ".join(f"{met.ref.chain} {met.ref.text}" for met in passage.rules)
    marks = (*NO_ENDPOINTS, *NO_LOCAL_ENDPOINTS)
    return rejecting if any(mark in texts for mark in marks) else None


def _nobody(case: ProbeEvidence, passage: ChainTraversal, met: MatchedRuleEvent) -> Finding:
    service = case.resolution.service
    assert service is not None
    ready = [e for e in case.resolution.endpoints if e.ready]
    evidence = [rule_hit(passage, met), *nobody_words(case)]
    evidence += refusal(case)
    if ready and met.drops:
        return Finding(
            cause="no-local-endpoints",
            severity="error",
            node=passage.place.node,
            object=rule_name(met.ref),
            summary=f"{service.key} has traffic policy Local and no endpoint on "
            f"{passage.place.node}: its packets are dropped there",
            evidence=tuple(evidence),
            remedy=(
                f"kubectl -n {service.namespace} get pods -o wide  # is one on this node?",
                "or set internalTrafficPolicy/externalTrafficPolicy to Cluster",
            ),
        )
    return Finding(
        cause="no-endpoints",
        severity="error",
        node=passage.place.node,
        object=f"Service {service.key}",
        summary=f"Service {service.key} has no ready endpoint: "
        f"{rule_name(met.ref)} on {passage.place.node} rejects its packets",
        evidence=tuple(evidence),
        remedy=(
            f"kubectl -n {service.namespace} describe svc {service.name}",
            f"kubectl -n {service.namespace} get pods{_selector(case)}  # do any match? ready?",
        ),
    )


def nobody_words(case: ProbeEvidence) -> Iterator[str]:
    """That there is nobody to send to, and why, as far as it was the API that told."""
    yield endpoints_words(case)
    service, documents = case.resolution.service, case.documents
    if service is not None and documents.told_by is None:
        api_facts = ApiFacts(
            source=case.source,
            resolution=case.resolution,
            documents=documents,
            matched=tuple(selected(service, documents)),
        )
        yield from () if api_facts.usable else why_nobody(api_facts, service)


def _selector(case: ProbeEvidence) -> str:
    service = case.resolution.service
    pairs = ",".join(f"{key}={value}" for key, value in service.selector) if service else ""
    return f" -l {pairs}" if pairs else ""


def endpoints_words(case: ProbeEvidence) -> str:
    endpoints = [e for e in case.resolution.endpoints if e.port]  # a slice may have no port
    ready = sum(e.ready for e in endpoints)
    return f"the API has {len(endpoints)} endpoints for it, {ready} of them ready"


def refusal(case: ProbeEvidence) -> list[str]:
    """What its sender was told, or why it may have been told nothing."""
    for sighting in case.journey.back:
        inner = sighting.packet.innermost
        if inner.icmp is not None:
            return [f"the sender received an ICMP error from {inner.flow.src}"]
    return list(case.branch.notes_of(NoteKind.REJECT_NOT_SENT)) if case.branch else []


def _untranslated(case: ProbeEvidence) -> Iterator[Finding]:
    """No DNAT was met anywhere although the API has endpoints to send to."""
    service = case.resolution.service
    assert service is not None
    if not any(e.ready or (e.serving and e.terminating) for e in case.resolution.endpoints):
        return
    if any(passage.nat_rule(*DNAT) for passage in case.passages):
        return
    node = proxy_node(case)
    branch = case.branch
    predicted = branch is not None and branch.cause == "proxy-rules-missing"
    left = case.last is not None and case.last.direction == "out" and not case.last.netns.pod
    guard = case.ended_by if case.ended_by and case.ended_by[1].ref.chain == UNKNOWN_PORT else None
    if not predicted and not left and guard is None:
        return
    address = end(case.resolution.address, case.resolution.port)
    evidence = [rule_hit(*guard)] if guard else []
    evidence += last_seen(case)
    if case.final is not None:
        evidence.append(f"it still went to {address}: {flow_words(case.final)}")
    if case.entry is not None:
        evidence.append(entry_words(case.entry))
    if predicted and branch is not None and branch.full_description:
        evidence.append(branch.full_description)
    evidence.append(endpoints_words(case))
    yield Finding(
        cause="proxy-rules-missing",
        severity="error",
        node=node,
        object=f"rules for {service.key} ({address}/{case.resolution.protocol})",
        summary=f"no rule on {node} translates {address}, the address of {service.key}",
        evidence=tuple(evidence),
        remedy=_remedies(
            case,
            node,
            "kubectl -n kube-system get pods -l k8s-app=kube-proxy -o wide  # is it up there?",
            f"restart kube-proxy on {node}: it writes all its rules anew",
        ),
    )


def _remedies(case: ProbeEvidence, node: str, *by_rules: str) -> tuple[str, ...]:
    """Where programs translate, it is theirs to be mended."""
    snapshot = case.snapshots.get(Netns(node=node))
    programs = snapshot.programs if snapshot else None
    return (programs.mend if programs else ()) or by_rules


def proxy_node(case: ProbeEvidence) -> str:
    """The node whose proxy had to translate: the one that owns the address (a node port), else
    the source's.
    """
    for node in case.documents.nodes:
        if case.resolution.address in node.addresses:
            return node.name
    return case.node


def _stale(case: ProbeEvidence) -> Iterator[Finding]:
    service = case.resolution.service
    backend = case.backend
    assert service is not None
    assert backend is not None
    if any((e.address, e.port) == backend for e in _known(case)):
        return
    rewrites = [(p, p.nat_rule(*DNAT)) for p in case.passages]
    nat = next(((p, nat_event[0]) for p, nat_event in rewrites if nat_event), None)
    program = _program(case)
    node = nat[0].place.node if nat else case.node if program else proxy_node(case)
    culprit = nat[1].ref if nat else program
    address = end(*backend)
    evidence = []
    if culprit:
        source = "rule trace" if nat else "the map"
        evidence.append(f"{source} on {node}: {rule_name(culprit)}: {culprit.text}")
    if case.entry is not None:
        evidence.append(entry_words(case.entry))
    known = ", ".join(end(e.address, e.port) for e in case.resolution.endpoints) or "none"
    evidence.append(f"the EndpointSlices of {service.key} hold: {known}")
    evidence += last_seen(case)
    yield Finding(
        cause="stale-dnat",
        severity="error",
        node=node,
        object=rule_name(culprit) if culprit else f"DNAT to {address}",
        summary=f"{node} sends {service.key} to {address}, which is none of its endpoints",
        evidence=tuple(evidence),
        remedy=_remedies(
            case,
            node,
            f"restart kube-proxy on {node}: it writes all its rules anew",
            "curl -s localhost:10256/healthz  # on that node: when did it sync last?",
        ),
    )


def _program(case: ProbeEvidence) -> RuleRef | None:
    """The entry of a map by which a program chose this backend at connect(), where one did."""
    for step in case.branch.steps if case.branch else ():
        if step.action == "dnat" and step.rule and step.rule.backend == "bpf":
            return step.rule
    return None


def _known(case: ProbeEvidence) -> tuple[Endpoint, ...]:
    service = case.resolution.service
    return case.documents.endpoints.get(service.key, ()) if service else ()

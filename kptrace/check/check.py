"""What on these nodes would break Service traffic: ``check``. Nothing is sent.

In: where the state comes from (agents, a bundle). Out: a Checkup. Three questions are asked, each
of what answers it elsewhere too: of every Service, whether a node's rules do what the API says
(explain/explain.py); of every two nodes, whether a pod's packet gets from one to the other
(diagnose/pod_connectivity.py); of each node, whether its tables and sysctls let it
(diagnose/node_health.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Literal, NamedTuple

from kptrace.diagnose.catalogue.causes import cause
from kptrace.diagnose.catalogue.cluster_causes import SERVICE
from kptrace.diagnose.conflicting_proxies import conflicting_proxies
from kptrace.diagnose.node_health import health
from kptrace.diagnose.pod_connectivity import between
from kptrace.diagnose.policy_denial import CAUSE as POLICY
from kptrace.diagnose.ruleset_churn import (
    LOOKS,
    SETTLE_SECONDS,
    has_errors,
    present_both_times,
    unsteady,
)
from kptrace.explain.explain import StateSource, explain
from kptrace.kube.objects.cluster_state import ClusterState, read_cluster_state
from kptrace.model import (
    CheckReport,
    EvidenceSource,
    Finding,
    Netns,
    NodeReport,
    ProgressCallback,
    Proxy,
    Service,
    Target,
)
from kptrace.model.errors import KptraceError
from kptrace.model.family import Family
from kptrace.plugins.registry import detect_network, read_netns
from kptrace.rules.kubeproxy.expected_endpoints import why_not_programmed
from kptrace.rules.kubeproxy.services_in_rules import services_of
from kptrace.simulate.snapshot.proxy_mode import proxy_of
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace.simulate.snapshot.unread_rules import UnreadRules, unread_rules

MOST_SERVICES = 500  # of each node; explaining one takes some milliseconds
ALIKE = 3  # more Services with the same fault are told together
SHOWN = 8
DNS_PORT = 53
# said once for the node; and what somebody wants so
ELSEWHERE = ("conflicting-nat-tables", POLICY)
ORDER = ("error", "warning", "info")
SLICES = {"services.json", "endpointslices.json"}


class NodeCheck(NamedTuple):
    """One node. ``own``: what is wrong with itself; ``behind``: where its rules differ from the
    API; ``steady``: all that was read of them is of one moment.
    """

    files: Mapping[str, str]
    snapshot: Snapshot
    own: tuple[Finding, ...]
    behind: tuple[Finding, ...]
    steady: bool

    def told(self) -> Iterator[Finding]:
        yield from self.own
        yield from _group_same_cause(self.behind)
        if self.behind and not self.steady:
            yield unsteady(self.snapshot.netns.node)


def check(state: StateSource, names: Iterable[str], progress: ProgressCallback) -> CheckReport:
    """``names``: of the nodes to look at."""
    cluster_state = read_cluster_state(state.api())
    looks: dict[str, NodeCheck] = {}
    absent: list[EvidenceSource] = []
    for name in names:
        progress(f"looking at {name}")
        try:
            looks[name] = _looked_at(name, state, cluster_state, progress)
        except KptraceError as error:
            absent.append(
                EvidenceSource(
                    name="agent",
                    node=name,
                    unavailable=error.message,
                    hint=error.hint,
                    manifest=error.manifest,
                )
            )
    wrong = [name for name in looks if has_errors(looks[name].behind)]
    if wrong and state.refresh_after(SETTLE_SECONDS):
        with suppress(KptraceError):  # what was seen before counts
            cluster_state = read_cluster_state(state.api())
            for name in wrong:
                progress(f"looking at {name} again: rules are always a moment behind the API")
                again = _looked_at(name, state, cluster_state, progress)
                looks[name] = again._replace(
                    behind=present_both_times(again.behind, looks[name].behind)
                )
    progress("walking from node to node")
    snapshots = {Netns(node=name): looks[name].snapshot for name in looks}
    ways, ended = between(cluster_state, snapshots)
    findings = (finding for look in looks.values() for finding in look.told())
    proxied = [service for service in cluster_state.services if not why_not_programmed(service)]
    for name, look in looks.items():
        absent += _unread_sources(name, _unread_rules(look.snapshot, proxied))
    nodes = [_node(look.snapshot, look.files, cluster_state) for look in looks.values()]
    node_findings = [finding for finding in findings if not _told_by(ended, finding)]
    node_findings += [
        *ended,
        *_proxy_mode_mismatch(nodes),
        *_services_without_endpoints(cluster_state),
    ]
    return CheckReport(
        nodes=tuple(nodes),
        services=max((node.services for node in nodes), default=0),
        paths=ways,
        findings=tuple(_sorted(node_findings)),
        unavailable=tuple(absent),
        missing=tuple(f"api/{name}" for name in cluster_state.missing),
    )


def _looked_at(
    name: str, state: StateSource, cluster_state: ClusterState, progress: ProgressCallback
) -> NodeCheck:
    for _ in range(LOOKS):
        files = state.node(name)
        snapshot = read_netns(Netns(node=name), files)
        own = (*health(snapshot, files), *conflicting_proxies(name, snapshot.ruleset))
        behind = tuple(_behind(snapshot, cluster_state, progress))
        steady = not behind or not state.rules_changed_while_reading(name)
        if steady:
            break
    return NodeCheck(files, snapshot, own, behind, steady)


def _told_by(ended: Iterable[Finding], finding: Finding) -> bool:
    """A fault of the node itself shows at each of its Services, and plainer between pods."""
    return finding.cause not in SERVICE and any(
        (other.cause, other.node) == (finding.cause, finding.node) for other in ended
    )


def _sorted(findings: Iterable[Finding]) -> list[Finding]:
    once = dict.fromkeys(finding for finding in findings if finding.severity != "info")
    return sorted(
        once, key=lambda finding: (ORDER.index(finding.severity), finding.node, finding.cause)
    )


def _node(snapshot: Snapshot, files: Mapping[str, str], cluster_state: ClusterState) -> NodeReport:
    best = detect_network(snapshot, files).best
    own = cluster_state.services or services_of(snapshot.ruleset)
    return NodeReport(
        name=snapshot.netns.node,
        proxy=proxy_of(snapshot),
        network=best.name if best else "unknown",
        services=len(own),
        missing=tuple(dict.fromkeys((*snapshot.missing, *snapshot.ruleset.missing))),
    )


# --- one node -------------------------------------------------------------------------------------


def _behind(
    snapshot: Snapshot, cluster_state: ClusterState, progress: ProgressCallback
) -> Iterator[Finding]:
    proxied = [service for service in cluster_state.services if not why_not_programmed(service)]
    if SLICES & set(cluster_state.missing) or not proxied:
        return
    if _unread_rules(snapshot, proxied) and proxy_of(snapshot) in ("none", "cilium"):
        return
    if proxy_of(snapshot) == "none" and snapshot.programs is None:
        yield _no_proxy(snapshot.netns.node, len(proxied))
        return
    yield from _of_services(proxied[:MOST_SERVICES], snapshot, cluster_state, progress)


def _unread_rules(snapshot: Snapshot, services: Iterable[Service]) -> tuple[UnreadRules, ...]:
    """What must be read before it is known that a node lacks the rules of these Services."""
    addresses = (address for service in services for address in service.cluster_ips)
    families = sorted({Family.of(address) for address in addresses})
    unread = (unread_rules(snapshot, family) for family in families)
    return tuple(dict.fromkeys(gap for gap in unread if gap))


def _unread_sources(node: str, unread: Iterable[UnreadRules]) -> Iterator[EvidenceSource]:
    for gap in unread:
        yield EvidenceSource(name="rules", node=node, unavailable=gap.description, hint=gap.hint)


def _no_proxy(node: str, services: int) -> Finding:
    return Finding(
        cause="proxy-rules-missing",
        severity="error",
        node=node,
        object="rules for Services",
        summary=f"{node} has no rule for any of {services} Services: no proxy has written there",
        evidence=("neither iptables, nftables nor IPVS of the node names a Service",),
        remedy=(
            "kubectl -n kube-system get pods -l k8s-app=kube-proxy -o wide  # is it up there?",
            f"restart kube-proxy on {node}: it writes all its rules anew",
        ),
    )


def _of_services(
    services: Iterable[Service],
    snapshot: Snapshot,
    cluster_state: ClusterState,
    progress: ProgressCallback,
) -> Iterator[Finding]:
    node = snapshot.netns.node
    for number, service in enumerate(services, start=1):
        if number % 20 == 0:
            progress(f"comparing the rules of {node} with the API: {number} Services")
        target = Target(
            kind="service", text=service.key, name=service.name, namespace=service.namespace
        )
        for finding in explain(target, None, node, cluster_state, snapshot).findings:
            if finding.cause not in ELSEWHERE and finding.severity != "info":
                yield finding


def _group_same_cause(findings: Iterable[Finding]) -> Iterator[Finding]:
    """One for many of the same kind."""
    alike: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        alike.setdefault((finding.cause, finding.severity), []).append(finding)
    for value in alike.values():
        yield from value if len(value) <= ALIKE else (_together(value),)


def _together(findings: list[Finding]) -> Finding:
    first, entry = findings[0], cause(findings[0].cause)
    lines = [finding.summary for finding in findings[:SHOWN]]
    lines += [f"and {len(findings) - SHOWN} more"] if findings[SHOWN:] else []
    return Finding(
        cause=first.cause,
        severity=first.severity,
        node=first.node,
        object=f"{len(findings)} ways in to Services",
        summary=f"{first.node}, {len(findings)} times: {entry.title if entry else first.cause}",
        evidence=tuple(lines),
        remedy=first.remedy,
    )


# --- all nodes ------------------------------------------------------------------------------------


def _proxy_mode_mismatch(nodes: Iterable[NodeReport]) -> Iterator[Finding]:
    by_proxy: dict[Proxy, list[str]] = {}
    for node in nodes:
        by_proxy.setdefault(node.proxy, []).append(node.name)
    if len(by_proxy) > 1:
        entry = cause("proxy-mode-mismatch")
        yield Finding(
            cause="proxy-mode-mismatch",
            severity="warning",
            node="",
            object="kube-proxy's mode",
            summary="not all nodes translate Services in the same way: "
            + "; ".join(f"{proxy} on {', '.join(texts)}" for proxy, texts in by_proxy.items()),
            remedy=(entry.fix,) if entry else (),
        )


def _services_without_endpoints(cluster_state: ClusterState) -> Iterator[Finding]:
    """Services that are refused everywhere. For names to resolve, DNS must not be among them."""
    if SLICES & set(cluster_state.missing):
        return
    idle = [
        service
        for service in cluster_state.services
        if not why_not_programmed(service) and _idle(service, cluster_state)
    ]
    dns = [service for service in idle if any(port.port == DNS_PORT for port in service.ports)]
    for services in (dns, [service for service in idle if service not in dns]):
        if services:
            yield _without(services, "error" if services is dns else "warning")


def _idle(service: Service, cluster_state: ClusterState) -> bool:
    behind = cluster_state.endpoints.get(service.key, ())
    return not any(endpoint.ready or endpoint.serving for endpoint in behind)


def _without(services: list[Service], severity: Literal["error", "warning"]) -> Finding:
    keys = [service.key for service in services]
    named = ", ".join(keys[:SHOWN]) + (f" and {len(keys) - SHOWN} more" if keys[SHOWN:] else "")
    candidate = services[0]
    many = f"{len(keys)} Services have" if len(keys) > 1 else f"Service {candidate.key} has"
    return Finding(
        cause="no-endpoints",
        severity=severity,
        node="",
        object=named,
        summary=f"{many} no ready endpoint: every node refuses {'them' if keys[1:] else 'it'}",
        evidence=(f"the API has no ready endpoint for {named}",),
        remedy=(f"kubectl -n {candidate.namespace} describe svc {candidate.name}",),
    )

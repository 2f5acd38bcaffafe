"""What one node's rules make of a Service: ``explain_from_state`` and ``explain``. Nothing is sent.

In: the target and where the state comes from (a bundle, a lab, this node). Out: an Explanation: for
each port each way in (ClusterIP, node port, external and load-balancer address, of each family)
from each kind of sender (explain/sample_clients.py), what the rules do with it, which rules these
are, and where they differ from what kube-proxy should have written. Neither function reads anything
itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from kptrace.diagnose.checks import monitor_drops
from kptrace.diagnose.conflicting_proxies import conflicting_proxies
from kptrace.diagnose.ruleset_churn import (
    LOOKS,
    SETTLE_SECONDS,
    has_errors,
    present_both_times,
    unsteady,
)
from kptrace.explain.service_view import ServiceView
from kptrace.kube.objects.cluster_state import ClusterState, read_cluster_state
from kptrace.kube.objects.list_filter import select_objects
from kptrace.kube.objects.resolve import no_such_port, service_at, service_named
from kptrace.model import (
    ExplainedPort,
    Explanation,
    Finding,
    Netns,
    Service,
    ServicePort,
    SourceSpec,
    Target,
)
from kptrace.model.errors import KptraceError, NotFoundError
from kptrace.model.family import Family
from kptrace.plugins.registry import read_netns
from kptrace.rules.kubeproxy.expected_endpoints import why_not_programmed
from kptrace.rules.kubeproxy.services_in_rules import services_of
from kptrace.rules.kubeproxy.session_affinity import WithoutAffinity
from kptrace.simulate.snapshot.proxy_mode import proxy_of
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace.simulate.snapshot.unread_rules import unread_rules


class StateSource(Protocol):
    """A source of node state: a bundle (bundle/folder.py) or agents (environment/local_node.py)."""

    @property
    def nodes(self) -> tuple[str, ...]: ...

    def api(self) -> Mapping[str, str | bytes]: ...

    def node(self, name: str) -> Mapping[str, str]:
        """A node's files by name, of a live one as they are now. Raises NotFound."""

    def rules_changed_while_reading(self, name: str) -> bool:
        """Whether a live node's rules changed while the files that it gave last were read."""

    def refresh_after(self, seconds: float) -> bool:
        """Wait, and from then on tell what is so then, also of the API; False: it is always told
        the same.
        """


def explain_from_state(
    target: Target, source: SourceSpec | None, node: str, state: StateSource
) -> Explanation:
    """``node``: the vantage point; empty: the one of ``source``, else the first.

    Of a fault it is made sure that it is one: rules are always a moment behind the API.
    """
    explanation = _explain_once(target, source, node, state)
    if not has_errors(explanation.findings) or not state.refresh_after(SETTLE_SECONDS):
        return explanation
    try:
        again = _explain_once(target, source, node, state)
    except NotFoundError:
        raise
    except KptraceError:
        return explanation  # the API or the agent is gone; what was seen before counts
    findings = present_both_times(again.findings, explanation.findings)
    return msgspec.structs.replace(again, findings=findings)


def _explain_once(
    target: Target, source: SourceSpec | None, node: str, state: StateSource
) -> Explanation:
    chosen, cluster_state = _documents(target, source, node, state)
    for _ in range(LOOKS):
        files = state.node(chosen)
        snapshot = read_netns(Netns(node=chosen), files)
        explanation = explain(target, source, chosen, cluster_state, snapshot, state.nodes)
        if not state.rules_changed_while_reading(chosen):
            return explanation
    return msgspec.structs.replace(explanation, findings=(*explanation.findings, unsteady(chosen)))


def _documents(
    target: Target, source: SourceSpec | None, node: str, state: StateSource
) -> tuple[str, ClusterState]:
    """The vantage point, and what the API tells of the Service; all of it where it knows none of
    that name, to name the nearest.
    """
    api = state.api()
    chosen = node or _node_of(source, api) or next(iter(state.nodes), "")
    if not chosen:
        raise NotFoundError(
            "there is no node's state in it", "a node's folder holds iptables-save.txt"
        )
    here = source.name if source is not None and source.kind == "pod" else chosen
    texts_by_name = {
        "services.json": target.name,
        "endpointslices.json": target.name,
        "pods.json": here,
        "nodes.json": chosen,
    }
    cluster_state = read_cluster_state(select_objects(api, texts_by_name))
    known = cluster_state.service(f"{target.namespace}/{target.name}") is not None
    if known or "services.json" in cluster_state.missing:
        return chosen, cluster_state
    return chosen, read_cluster_state(api)


def _node_of(source: SourceSpec | None, api: Mapping[str, str | bytes]) -> str:
    if source is None or source.kind == "outside":
        return ""
    if source.kind == "node":
        return source.name
    pods = {name: api[name] for name in ("pods.json",) if name in api}
    cluster_state = read_cluster_state(select_objects(pods, {"pods.json": source.name}))
    pod = cluster_state.pod(f"{source.namespace}/{source.name}")
    return pod.node if pod else ""


def explain(
    target: Target,
    source: SourceSpec | None,
    node: str,
    cluster_state: ClusterState,
    snapshot: Snapshot,
    nodes: tuple[str, ...] = (),
) -> Explanation:
    """``node``: the vantage point, ``nodes``: all that could have been asked."""
    cluster_state = _with_services(target, cluster_state, snapshot)
    if source is None:  # what is true of senders in general, not of one who was there before
        snapshot = msgspec.structs.replace(snapshot, ruleset=WithoutAffinity(snapshot.ruleset))
    if target.kind == "address":
        service = service_at(target, cluster_state)
        target = _named(target, service)
    else:
        service = service_named(target, cluster_state)
    vantage = ServiceView(service, source, node, cluster_state, snapshot)
    why_not = why_not_programmed(service)
    ports, findings = [], list(conflicting_proxies(node, snapshot.ruleset))
    behind = cluster_state.endpoints.get(service.key, ())
    findings += monitor_drops.diagnose(node, snapshot.programs, service, behind)
    if why_not:
        findings.append(_not_proxied(service, node, why_not))
    for port in () if why_not else _ports(service, target):
        results = {family: list(vantage.answers(port, family)) for family in Family}
        ports.append(
            ExplainedPort(
                name=port.name,
                port=port.port,
                protocol=port.protocol,
                entries=tuple(result.entry for value in results.values() for result in value),
            )
        )
        for family, answers in results.items():
            findings += vantage.compare(port, family, answers)
    return Explanation(
        target=target,
        node=node,
        proxy=proxy_of(snapshot),
        ports=tuple(ports),
        findings=tuple(findings),
        service=service,
        nodes=nodes,
        missing=tuple(vantage.missing),
    )


def _named(target: Target, service: Service) -> Target:
    """What an address means; its text stays as it was typed."""
    return msgspec.structs.replace(
        target, kind="service", name=service.name, namespace=service.namespace
    )


def _with_services(target: Target, cluster_state: ClusterState, snapshot: Snapshot) -> ClusterState:
    """Where no API was asked, the rules name the Services."""
    if "services.json" not in cluster_state.missing:
        return cluster_state
    return msgspec.structs.replace(cluster_state, services=services_told(target, snapshot))


def services_told(target: Target, snapshot: Snapshot) -> tuple[Service, ...]:
    """Those that the rules name: the one that is meant, else all, so that its like can be named."""
    key = f"{target.namespace}/{target.name}" if target.kind == "service" else ""
    services = services_of(snapshot.ruleset, key) or services_of(snapshot.ruleset)
    if not services and target.kind == "service":
        proxy = proxy_of(snapshot)
        node = snapshot.netns.node
        if proxy in ("ipvs", "cilium"):
            raise NotFoundError(
                f"nothing on {node} names a Service: proxy {proxy} keeps addresses only",
                "trace its address: kptrace ADDRESS:PORT --offline",
            )
        unread = unread_rules(snapshot, Family.IPV4)
        if unread:
            text = f"no rule that was read names a Service; {unread.description}"
            raise NotFoundError(text, unread.hint)
        raise NotFoundError(
            f"no rule on {node} names a Service: no proxy has written there",
            "is kube-proxy running? kubectl -n kube-system get pods -l k8s-app=kube-proxy -o wide",
        )
    return services


def _ports(service: Service, target: Target) -> tuple[ServicePort, ...]:
    ports = tuple(
        port
        for port in service.ports
        if target.protocol in ("", port.protocol)
        and target.port in ("", port.name, str(port.port), str(port.node_port))
    )
    if not ports:
        raise no_such_port(target, service)
    return ports


def _not_proxied(service: Service, node: str, why: str) -> Finding:
    return Finding(
        cause="not-proxied",
        severity="info",
        node=node,
        object=f"Service {service.key}",
        summary=f"no node has rules for {service.key}: {why}",
    )

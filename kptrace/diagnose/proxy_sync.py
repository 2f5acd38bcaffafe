"""The rules of a node against the API: what is missing, stale, doubled or weighed wrongly.

In: a Service port's entries as the node's rules decided them, and what kube-proxy should have
programmed (rules/kubeproxy/expected_endpoints.py). Out: Findings, one for each endpoint and fault,
with the ways in where it shows. What a node leaves out on purpose (topology hints, traffic policy
Local, endpoints that are not ready) is told as right, with its reason.

Which list a way in uses (proxier.go of each mode): the ClusterIP the internal policy's; from
outside the external policy's; a pod of the cluster or the node itself goes round an external
policy Local to all endpoints, but in nftables mode only while the node has some of its own, and
only where the rules can tell that the sender is one of the cluster's. In IPVS mode there is one
virtual server for all senders: with policy Local it holds the local endpoints or, if there is none,
all, and then the packets from outside keep their source and their answers go astray.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network

from kptrace.diagnose.catalogue.causes import CAUSES
from kptrace.diagnose.catalogue.cluster_causes import SERVICE
from kptrace.diagnose.phrases import end
from kptrace.diagnose.policy_denial import CAUSE as POLICY
from kptrace.model import (
    CauseId,
    Endpoint,
    Finding,
    Outcome,
    Proxy,
    Service,
    ServiceEntrypoint,
    ServicePort,
    Value,
)
from kptrace.rules.kubeproxy.chain_names import service_port_name
from kptrace.rules.kubeproxy.expected_endpoints import ExpectedEndpoints

TOLERANCE = 1e-6  # iptables prints a probability with 11 digits

_SENDERS = {"pod": "from a pod", "node": "from the node", "outside": "from outside"}
_KINDS = {
    "clusterIP": "ClusterIP",
    "nodePort": "NodePort",
    "externalIP": "external IP",
    "loadBalancer": "load balancer IP",
}
_SYNC = "it writes all its rules anew"


class PortCheck(Value):
    """One port of a Service in one family on one node, beside what the rules do with it.

    ignored: the topology whose hints this node does not obey; ``wanted`` is without them then
    causes: what ended each entry's packets, by the walk (empty: nothing did)
    times: how often a backend stands in the rules, by address and port
    """

    service: Service
    port: ServicePort
    node: str
    proxy: Proxy
    known: tuple[Endpoint, ...]
    wanted: ExpectedEndpoints
    entries: tuple[ServiceEntrypoint, ...]
    times: dict[tuple[str, int], int]
    causes: tuple[str, ...] = ()
    ignored: str = ""

    @property
    def name(self) -> str:
        return service_port_name(self.service, self.port)


def differences(port: PortCheck) -> Iterator[Finding]:
    faults: dict[tuple[str, str, str], list[ServiceEntrypoint]] = {}
    for entry, cause in zip(port.entries, port.causes, strict=True):
        for fault in _faults(port, entry, cause):
            faults.setdefault(fault, []).append(entry)
    for (cause, where, summary), entries in faults.items():
        yield Finding(
            cause=cause,
            severity="error",
            node=port.node,
            object=f"{port.name} {where}".strip(),
            summary=f"{port.node} {summary}",
            evidence=(_shown(entries), _endpoints_words(port)),
            remedy=_remedy(port, cause),
        )
    yield from _left_out(port)
    if port.ignored:
        yield _ignored(port)


def _remedy(port: PortCheck, id: str) -> tuple[str, ...]:
    entry = CAUSES.get(id)
    if id in SERVICE or entry is None:
        if port.proxy == "cilium":
            return (f"restart the Cilium agent on {port.node}: it writes its maps anew",)
        return (f"restart kube-proxy on {port.node}: {_SYNC}",)
    return (entry.fix,)


def _faults(
    port: PortCheck, entry: ServiceEntrypoint, cause: str
) -> Iterator[tuple[str, str, str]]:
    """(cause, object, summary) of what one way in does wrongly."""
    lists = expected(port, entry)
    actual = {(backend.address, backend.port) for backend in entry.backends}
    if entry.outcome is not Outcome.DELIVERED and not entry.deterministic:
        return
    requested = {(endpoint.address, endpoint.port) for endpoint in lists[0]}
    if cause == POLICY and entry.denied_by:
        if not actual:
            return  # by a policy before the translation
    elif entry.outcome is not Outcome.DELIVERED:
        if all(lists):
            yield from _nothing(port, entry, cause)
        return
    if any(
        actual == {(endpoint.address, endpoint.port) for endpoint in endpoints}
        for endpoints in lists
    ):
        yield from _weights(port, entry)
        return
    if port.service.affinity_seconds and len(actual) == 1 and actual < requested:
        return  # this client is remembered
    for address, number in sorted(requested - actual):
        where = end(address, number)
        yield "endpoint-missing", where, f"sends nothing to {where}, an endpoint of {port.name}"
    for address, number in sorted(actual - requested):
        where = end(address, number)
        why = _why_not(port, address, number)
        yield "stale-dnat", where, f"sends {port.name} to {where}, {why}"
    least = min(port.times.get(where, 1) for where in actual)
    for address, number in sorted(actual):
        times = port.times.get((address, number), 1)
        if times > least:
            where = end(address, number)
            yield "endpoint-duplicated", where, f"has {where} {times} times for {port.name}"


def expected(port: PortCheck, entry: ServiceEntrypoint) -> tuple[tuple[Endpoint, ...], ...]:
    """The lists that this way in may lead to; the first is what one would expect."""
    expected = port.wanted
    if entry.kind == "clusterIP":
        return (expected.internal(port.service),)
    external = expected.external(port.service)
    if entry.kind == "loadBalancer" and not _admitted(port.service, entry):
        return ((),)
    if entry.sender == "outside":
        return (
            (external, expected.cluster) if port.proxy == "ipvs" and not external else (external,)
        )
    return expected.cluster, external


def _admitted(service: Service, entry: ServiceEntrypoint) -> bool:
    """``loadBalancerSourceRanges``; kube-proxy lets the load balancer's own address in, too."""
    if not entry.source:
        return not service.source_ranges
    source = ip_address(entry.source)
    ranges = [ip_network(text) for text in service.source_ranges]
    own = [network for network in ranges if network.version == source.version]
    return not own or entry.source == entry.address or any(source in network for network in own)


def _weights(port: PortCheck, entry: ServiceEntrypoint) -> Iterator[tuple[str, str, str]]:
    right = 1 / len(entry.backends) if entry.backends else 0.0
    for backend in entry.backends:
        if abs(backend.weight - right) <= TOLERANCE * right:
            continue
        where = end(backend.address, backend.port)
        times = port.times.get((backend.address, backend.port), 1)
        share = f"{backend.weight:.1%} of {port.name} instead of {right:.1%}"
        if times > 1 and backend.weight > right:
            yield "endpoint-duplicated", where, f"has {where} {times} times: it gets {share}"
        else:
            yield "endpoint-weight", where, f"gives {where} {share}"


def _nothing(
    port: PortCheck, entry: ServiceEntrypoint, cause: str
) -> Iterator[tuple[str, str, str]]:
    """Nobody gets it although somebody should: kube-proxy's refusal, or another rule's."""
    address = end(entry.address, entry.port)
    if cause == CauseId.IPVS_ADDRESS_MISSING:
        summary = f"has IPVS services for {entry.address}, but not this address on kube-ipvs0"
        yield cause, f"{entry.address} on kube-ipvs0", summary
    elif entry.outcome is Outcome.NOT_PROGRAMMED:
        yield (
            "proxy-rules-missing",
            address,
            f"has no rule for {address}, {_KINDS[entry.kind]} of {port.name}",
        )
    elif entry.outcome is Outcome.NO_ENDPOINTS:
        yield "endpoint-missing", address, f"refuses {port.name} as if it had no endpoints"
    else:
        text = entry.description or entry.outcome
        known = cause or ("rule-reject" if entry.outcome is Outcome.REJECTED else "rule-drop")
        yield known, address, f"does not let {port.name} through: {text}"


def _why_not(port: PortCheck, address: str, number: int) -> str:
    for left in port.wanted.excluded:
        if (left.endpoint.address, left.endpoint.port) == (address, number):
            return f"though {left.reason}"
    if any((endpoint.address, endpoint.port) == (address, number) for endpoint in port.known):
        return "which this way in should not use"
    return "which is none of its endpoints"


def _left_out(port: PortCheck) -> Iterator[Finding]:
    """Endpoints that are rightly not here."""
    left = port.wanted.excluded
    if not left:
        return
    count, whole = len(left), len(left) + len(port.wanted.reachable)
    yield Finding(
        cause="endpoint-left-out",
        severity="info",
        node=port.node,
        object=port.name,
        summary=f"{port.node} rightly leaves out {count} of {whole} endpoints of {port.name}",
        evidence=tuple(
            f"{end(excluded.endpoint.address, excluded.endpoint.port)}: {excluded.reason}"
            for excluded in left
        ),
    )


def _ignored(port: PortCheck) -> Finding:
    return Finding(
        cause="topology-hints-ignored",
        severity="info",
        node=port.node,
        object=port.name,
        summary=f"{port.node} does not obey the topology hints of {port.name} ({port.ignored})",
        evidence=(_endpoints_words(port),),
    )


def _shown(entries: Sequence[ServiceEntrypoint]) -> str:
    """``ClusterIP 10.96.0.1:80 from a pod, from the node``."""
    said: dict[str, list[str]] = {}
    for entry in entries:
        where = f"{_KINDS[entry.kind]} {end(entry.address, entry.port)}"
        said.setdefault(where, []).append(_SENDERS[entry.sender])
    return "; ".join(f"{where} {', '.join(senders)}" for where, senders in said.items())


def _endpoints_words(port: PortCheck) -> str:
    known = [f"{end(endpoint.address, endpoint.port)}{_state(endpoint)}" for endpoint in port.known]
    return f"the EndpointSlices hold: {_few(known)}"


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8]) or "none"
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown


def _state(endpoint: Endpoint) -> str:
    if endpoint.ready:
        return ""
    return " (terminating)" if endpoint.terminating else " (not ready)"

"""Which endpoints a node's kube-proxy puts into its rules: a Service port in, Programmed out.

The API's endpoints are not the node's. kube-proxy 1.36 (topology.go, CategorizeEndpoints) makes
two lists for a port:

cluster  for traffic under policy Cluster, and for pods and the node itself when they use an
         external address of a Service with ``externalTrafficPolicy: Local``: the ready endpoints
         that the topology hints allow here, or, when none is ready anywhere, those that are
         terminating but still serving;
local    for traffic under policy Local: the node's own ready endpoints, or its own serving
         terminating ones. Hints do not count here.

Hints count only if every ready endpoint has one and at least one names this node (first) or this
zone (second); otherwise all ready endpoints are used. Rules for a port with no list at all:
rejected if there is no usable endpoint anywhere, dropped if there are some but Local forbids them.

Everything that is left out carries its reason, so that "3 in the API, 2 in the rules" can be
called right or wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from kptrace.model import Endpoint, Service, ServicePort, Value
from kptrace.rules.kubeproxy.chain_names import endpoint_text

Family = Literal["ip", "ip6"]
Topology = Literal["", "PreferSameNode", "PreferSameZone"]


class ExcludedEndpoint(Value):
    """An endpoint of the API that this node's rules lack, and why that is right."""

    endpoint: Endpoint
    why: str


class ExpectedEndpoints(Value):
    """The lists of one Service port and family on one node.

    uses_cluster, uses_local: whether the port has traffic under that policy at all
    any_endpoints: some endpoint in the cluster is usable, though maybe not from here
    topology: the hints that are obeyed here; empty: none
    """

    cluster: tuple[Endpoint, ...] = ()
    local: tuple[Endpoint, ...] = ()
    reachable: tuple[Endpoint, ...] = ()
    uses_cluster: bool = True
    uses_local: bool = False
    any_endpoints: bool = False
    topology: Topology = ""
    left_out: tuple[ExcludedEndpoint, ...] = ()

    def internal(self, service: Service) -> tuple[Endpoint, ...]:
        """Where traffic to the ClusterIP may go."""
        return self.local if service.internal_policy == "Local" else self.cluster

    def external(self, service: Service) -> tuple[Endpoint, ...]:
        """Where traffic from outside to a NodePort, external or load balancer IP may go."""
        return self.local if external_policy_local(service) else self.cluster


def why_not_programmed(service: Service) -> str:
    """Why no kube-proxy writes rules for this Service; empty: it does."""
    if service.type == "ExternalName":
        return "an ExternalName Service is a DNS name only: no proxy writes rules for it"
    if service.headless or not service.cluster_ips:
        return "a headless Service has no ClusterIP: DNS gives the pods' own addresses"
    if service.proxy_name:
        return f"label service-proxy-name hands it to the proxy {service.proxy_name!r}"
    return ""


def in_family(addresses: Iterable[str], family: Family) -> tuple[str, ...]:
    """Those addresses or CIDRs that belong to one family; kube-proxy runs once for each."""
    return tuple(text for text in addresses if (":" in text) == (family == "ip6"))


def externally_accessible(service: Service, port: ServicePort, family: Family) -> bool:
    """A way in other than the ClusterIP exists (BaseServicePortInfo.ExternallyAccessible)."""
    return bool(
        port.node_port
        or in_family(service.external_ips, family)
        or in_family(service.load_balancer_ips, family)
    )


def external_policy_local(service: Service) -> bool:
    """``externalTrafficPolicy: Local`` counts only where there is external traffic."""
    open_type = service.type in ("NodePort", "LoadBalancer") or bool(service.external_ips)
    return open_type and service.external_policy == "Local"


def endpoints_of(
    endpoints: Iterable[Endpoint], port: ServicePort, family: Family
) -> tuple[Endpoint, ...]:
    """A Service's endpoints that serve this port, in kube-proxy's order (by ``address:port``)."""
    serving = (
        one
        for one in endpoints
        if one.port
        and one.port_name == port.name
        and one.protocol == port.protocol
        and (":" in one.address) == (family == "ip6")
    )
    return tuple(sorted(serving, key=endpoint_text))


def expected_endpoints(
    service: Service,
    port: ServicePort,
    endpoints: Iterable[Endpoint],
    *,
    node: str,
    zone: str = "",
    family: Family = "ip",
) -> ExpectedEndpoints:
    """``endpoints``: all that the API gives for the Service; ``node``, ``zone``: where we are."""
    known = endpoints_of(endpoints, port, family)
    open_outside = externally_accessible(service, port, family)
    internal_local = service.internal_policy == "Local"
    uses_cluster = not internal_local or open_outside
    uses_local = internal_local or (external_policy_local(service) and open_outside)
    topology = _topology(known, node, zone) if uses_cluster else ""
    ready = [one for one in known if one.ready]
    cluster = _cluster(known, ready, topology, node, zone) if uses_cluster else ()
    local = _usable([one for one in known if one.node == node]) if uses_local else ()
    reachable = tuple(one for one in known if one in cluster or one in local)
    return ExpectedEndpoints(
        cluster=cluster,
        local=local,
        reachable=reachable,
        uses_cluster=uses_cluster,
        uses_local=uses_local,
        any_endpoints=bool(_usable(known)),
        topology=topology,
        left_out=tuple(
            ExcludedEndpoint(
                endpoint=one, why=_why(one, uses_cluster, topology, node, zone, bool(ready))
            )
            for one in known
            if one not in reachable
        ),
    )


def _usable(endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """The ready ones, or else those that still serve while they terminate."""
    ready = tuple(one for one in endpoints if one.ready)
    return ready or tuple(one for one in endpoints if one.serving and one.terminating)


def _cluster(
    known: Sequence[Endpoint],
    ready: Sequence[Endpoint],
    topology: Topology,
    node: str,
    zone: str,
) -> tuple[Endpoint, ...]:
    if not ready:
        return _usable(known)
    return tuple(one for one in ready if _hinted(one, topology, node, zone))


def _topology(known: Sequence[Endpoint], node: str, zone: str) -> Topology:
    ready = [one for one in known if one.ready]
    if not ready:
        return ""
    if all(one.nodes for one in ready) and any(node in one.nodes for one in ready):
        return "PreferSameNode"
    if all(one.zones for one in ready) and any(zone in one.zones for one in ready):
        return "PreferSameZone"
    return ""


def _hinted(endpoint: Endpoint, topology: Topology, node: str, zone: str) -> bool:
    if topology == "PreferSameNode":
        return node in endpoint.nodes
    if topology == "PreferSameZone":
        return zone in endpoint.zones
    return True


def _why(
    endpoint: Endpoint,
    uses_cluster: bool,
    topology: Topology,
    node: str,
    zone: str,
    any_ready: bool,
) -> str:
    if not endpoint.ready:
        if endpoint.terminating and endpoint.serving:
            return "it is terminating, and ready endpoints exist" if any_ready else _away(node)
        return "it is terminating and serves no more" if endpoint.terminating else "it is not ready"
    if not uses_cluster:
        return _away(node)
    if topology == "PreferSameNode":
        return f"its topology hint is for node {', '.join(endpoint.nodes)}, this is {node}"
    return f"its topology hint is for zone {', '.join(endpoint.zones)}, this is {zone}"


def _away(node: str) -> str:
    return f"it is not on {node}, and the traffic policy is Local"

"""Tell which of a Service port's endpoints the kube-proxy of a node puts into its rules.

These are not all endpoints of the API. kube-proxy 1.36 (topology.go, CategorizeEndpoints) makes two
lists for a port:

cluster  for traffic under policy Cluster, and for pods and the node itself when they use an
         external address of a Service with ``externalTrafficPolicy: Local``: the ready endpoints
         that the topology hints allow here, or, when none is ready anywhere, those that are
         terminating but still serving;
local    for traffic under policy Local: the node's own ready endpoints, or its own serving
         terminating ones. Hints do not count here.

Hints count only if every ready endpoint has one and at least one names this node (first) or this
zone (second); otherwise all ready endpoints are used. Rules for a port with no list at all:
rejected if there is no usable endpoint anywhere, dropped if there are some but Local forbids them.

Each endpoint that is excluded has its reason, so that "3 in the API, 2 in the rules" can be
checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from kptrace.model import Endpoint, Service, ServicePort, Value
from kptrace.model.family import Family
from kptrace.rules.kubeproxy.chain_names import endpoint_text

Topology = Literal["", "PreferSameNode", "PreferSameZone"]


class ExcludedEndpoint(Value):
    """An endpoint of the API that this node's rules rightly lack, and the reason."""

    endpoint: Endpoint
    reason: str


class ExpectedEndpoints(Value):
    """The endpoint lists of one Service port and family on one node.

    cluster, local: the endpoints for traffic under policy Cluster and Local
    reachable: those in either list
    uses_cluster, uses_local: whether the port has traffic under that policy
    any_endpoints: an endpoint in the cluster is usable, though perhaps not from this node
    topology: the kind of hints that apply on this node; empty: none
    excluded: all other endpoints
    """

    cluster: tuple[Endpoint, ...] = ()
    local: tuple[Endpoint, ...] = ()
    reachable: tuple[Endpoint, ...] = ()
    uses_cluster: bool = True
    uses_local: bool = False
    any_endpoints: bool = False
    topology: Topology = ""
    excluded: tuple[ExcludedEndpoint, ...] = ()

    def internal(self, service: Service) -> tuple[Endpoint, ...]:
        """The endpoints for traffic to the ClusterIP."""
        return self.local if service.internal_policy == "Local" else self.cluster

    def external(self, service: Service) -> tuple[Endpoint, ...]:
        """The endpoints for traffic from outside to a NodePort, external or load balancer IP."""
        return self.local if external_policy_local(service) else self.cluster


def why_not_programmed(service: Service) -> str:
    """The reason why no kube-proxy writes rules for this Service; empty if it does."""
    if service.type == "ExternalName":
        return "an ExternalName Service is a DNS name only: no proxy writes rules for it"
    if service.headless or not service.cluster_ips:
        return "a headless Service has no ClusterIP: DNS gives the pods' own addresses"
    if service.proxy_name:
        return f"label service-proxy-name hands it to the proxy {service.proxy_name!r}"
    return ""


def in_family(addresses: Iterable[str], family: Family) -> tuple[str, ...]:
    """The addresses or CIDRs of one family; kube-proxy has a proxier for each family."""
    return tuple(text for text in addresses if (":" in text) == (family == "ip6"))


def externally_accessible(service: Service, port: ServicePort, family: Family) -> bool:
    """Whether a port has another address than the ClusterIP (ExternallyAccessible)."""
    return bool(
        port.node_port
        or in_family(service.external_ips, family)
        or in_family(service.load_balancer_ips, family)
    )


def external_policy_local(service: Service) -> bool:
    """Whether ``externalTrafficPolicy: Local`` applies: only to a Service with external traffic."""
    open_type = service.type in ("NodePort", "LoadBalancer") or bool(service.external_ips)
    return open_type and service.external_policy == "Local"


def endpoints_of(
    endpoints: Iterable[Endpoint], port: ServicePort, family: Family
) -> tuple[Endpoint, ...]:
    """A Service's endpoints that serve this port, in kube-proxy's order (by ``address:port``)."""
    serving = (
        endpoint
        for endpoint in endpoints
        if endpoint.port
        and endpoint.port_name == port.name
        and endpoint.protocol == port.protocol
        and (":" in endpoint.address) == (family == "ip6")
    )
    return tuple(sorted(serving, key=endpoint_text))


def expected_endpoints(
    service: Service,
    port: ServicePort,
    endpoints: Iterable[Endpoint],
    *,
    node: str,
    zone: str = "",
    family: Family = Family.IPV4,
) -> ExpectedEndpoints:
    """The endpoint lists of a port.

    endpoints: all that the API has for the Service
    node, zone: the node whose kube-proxy is meant
    """
    endpoints_of_port = endpoints_of(endpoints, port, family)
    open_outside = externally_accessible(service, port, family)
    internal_local = service.internal_policy == "Local"
    uses_cluster = not internal_local or open_outside
    uses_local = internal_local or (external_policy_local(service) and open_outside)
    topology = _topology(endpoints_of_port, node, zone) if uses_cluster else ""
    ready = [endpoint for endpoint in endpoints_of_port if endpoint.ready]
    cluster = _cluster(endpoints_of_port, ready, topology, node, zone) if uses_cluster else ()
    local = (
        _usable([endpoint for endpoint in endpoints_of_port if endpoint.node == node])
        if uses_local
        else ()
    )
    reachable = tuple(
        endpoint for endpoint in endpoints_of_port if endpoint in cluster or endpoint in local
    )
    return ExpectedEndpoints(
        cluster=cluster,
        local=local,
        reachable=reachable,
        uses_cluster=uses_cluster,
        uses_local=uses_local,
        any_endpoints=bool(_usable(endpoints_of_port)),
        topology=topology,
        excluded=tuple(
            ExcludedEndpoint(
                endpoint=endpoint,
                reason=_why(endpoint, uses_cluster, topology, node, zone, bool(ready)),
            )
            for endpoint in endpoints_of_port
            if endpoint not in reachable
        ),
    )


def _usable(endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """The ready endpoints, or else those that still serve while they terminate."""
    ready = tuple(endpoint for endpoint in endpoints if endpoint.ready)
    return ready or tuple(
        endpoint for endpoint in endpoints if endpoint.serving and endpoint.terminating
    )


def _cluster(
    endpoints_of_port: Sequence[Endpoint],
    ready: Sequence[Endpoint],
    topology: Topology,
    node: str,
    zone: str,
) -> tuple[Endpoint, ...]:
    if not ready:
        return _usable(endpoints_of_port)
    return tuple(endpoint for endpoint in ready if _hinted(endpoint, topology, node, zone))


def _topology(endpoints_of_port: Sequence[Endpoint], node: str, zone: str) -> Topology:
    ready = [endpoint for endpoint in endpoints_of_port if endpoint.ready]
    if not ready:
        return ""
    if all(endpoint.nodes for endpoint in ready) and any(
        node in endpoint.nodes for endpoint in ready
    ):
        return "PreferSameNode"
    if all(endpoint.zones for endpoint in ready) and any(
        zone in endpoint.zones for endpoint in ready
    ):
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

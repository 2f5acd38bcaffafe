"""What kube-proxy knows about a Service port before it writes rules, whichever backend it drives.

In: Services, their endpoints and the node. Out: one ``ProxiedPort`` for each port of each Service
that has a ClusterIP of the family, sorted by name (kube-proxy's own order is that of a Go map, so
rules of different Services stand in any order).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network

from kptrace.model import Endpoint, Service, ServicePort, Value
from kptrace.model.family import Family
from kptrace.rules.kubeproxy.chain_names import service_port_name
from kptrace.rules.kubeproxy.expected_endpoints import (
    ExpectedEndpoints,
    expected_endpoints,
    external_policy_local,
    externally_accessible,
    in_family,
    why_not_programmed,
)

MASQUERADE_MARK = 0x4000


class ProxyNode(Value):
    """The node whose rules are written, and kube-proxy's flags that shape them.

    addresses:     the primary address of each family
    cluster_cidrs: ``--cluster-cidr``; a family without one masquerades no ClusterIP traffic
    service_cidrs: those of the cluster's ServiceCIDR objects
    nfacct:        the kernel has kube-proxy's accounting objects; it omits their rules otherwise
    node_port_addresses: the node's own addresses; IPVS has a virtual service for each
    """

    name: str
    addresses: tuple[str, ...]
    zone: str = ""
    cluster_cidrs: tuple[str, ...] = ()
    service_cidrs: tuple[str, ...] = ()
    nfacct: bool = False
    node_port_addresses: tuple[str, ...] = ()

    def address(self, family: Family) -> str:
        return next(iter(in_family(self.addresses, family)), "")

    def cluster_cidr(self, family: Family) -> str:
        return next(iter(in_family(self.cluster_cidrs, family)), "")


class ProxiedPort(Value):
    """One port of one Service in one family, seen from one node."""

    service: Service
    port: ServicePort
    cluster_ip: str
    external_ips: tuple[str, ...]
    load_balancer_ips: tuple[str, ...]
    source_ranges: tuple[str, ...]
    accessible: bool
    programmed: ExpectedEndpoints

    @property
    def name(self) -> str:
        """``namespace/name:port``"""
        return service_port_name(self.service, self.port)

    @property
    def internal_local(self) -> bool:
        return self.service.internal_policy == "Local"

    @property
    def external_local(self) -> bool:
        return external_policy_local(self.service)

    @property
    def has_endpoints(self) -> bool:
        return self.programmed.any_endpoints

    @property
    def has_internal_endpoints(self) -> bool:
        return self._has(self.internal_local)

    @property
    def has_external_endpoints(self) -> bool:
        return self._has(self.external_local)

    @property
    def uses_external_chain(self) -> bool:
        """Even without external endpoints: pods and the node short-circuit to all endpoints."""
        return self.has_endpoints and self.accessible

    @property
    def uses_firewall(self) -> bool:
        return self.has_endpoints and bool(self.load_balancer_ips and self.source_ranges)

    @property
    def health_check_port(self) -> int:
        """Only a load balancer under policy Local has a use for one."""
        needs = self.service.type == "LoadBalancer" and self.external_local
        return self.service.health_check_node_port if needs else 0

    def allowed_sources(self, node_address: str) -> tuple[str, ...]:
        """The source ranges, and the load balancer's own addresses where the node is in range.

        A node that owns the address as a local one talks to it from that very address.
        """
        in_range = node_address and any(
            ip_address(node_address) in ip_network(cidr) for cidr in self.source_ranges
        )
        return self.source_ranges + (self.load_balancer_ips if in_range else ())

    def _has(self, local: bool) -> bool:
        return self.has_endpoints and bool(self.programmed.local or not local)


def proxied_ports(
    services: Sequence[Service],
    endpoints: Mapping[str, Sequence[Endpoint]],
    node: ProxyNode,
    family: Family,
) -> Iterator[ProxiedPort]:
    """``endpoints``: by Service key, as ``Documents`` has them."""
    for service in sorted(services, key=lambda service_: service_.key):
        cluster_ips = in_family(service.cluster_ips, family)
        if why_not_programmed(service) or not cluster_ips:
            continue
        for port in service.ports:
            yield ProxiedPort(
                service=service,
                port=port,
                cluster_ip=cluster_ips[0],
                external_ips=in_family(service.external_ips, family),
                load_balancer_ips=in_family(service.load_balancer_ips, family),
                source_ranges=in_family(service.source_ranges, family),
                accessible=externally_accessible(service, port, family),
                programmed=expected_endpoints(
                    service,
                    port,
                    endpoints.get(service.key, ()),
                    node=node.name,
                    zone=node.zone,
                    family=family,
                ),
            )

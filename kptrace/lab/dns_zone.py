"""The cluster's DNS records: Services and EndpointSlices in, names with their records out; pure.

The names are those of the Kubernetes DNS specification 1.1.0:

    NAME.NS.svc.cluster.local            A and AAAA: the cluster IPs; of a headless Service every
                                         ready endpoint; CNAME for an ExternalName
    _PORT._PROTO.NAME.NS.svc...          SRV for a named port: the Service, or of a headless one
                                         each endpoint under its dashed address
    dns-version.cluster.local            TXT, the version of that specification

A name that only leads to others (``svc.cluster.local``, a namespace) exists without records: it is
answered with NOERROR, not NXDOMAIN, because resolvers stop searching at an NXDOMAIN above them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address

from kptrace.lab.address_plan import DNS_ADDRESS
from kptrace.model import Endpoint, Service, Value

DOMAIN = "cluster.local"
TTL = 30  # kubeadm's Corefile
VERSION = "1.1.0"
SERIAL = 1
SOA = f"ns.dns.{DOMAIN}. hostmaster.{DOMAIN}. {SERIAL} 7200 1800 86400 {TTL}"

Record = tuple[str, str, str]


class Zone(Value):
    """``records``: name (lower case, no last dot) -> type -> rdata texts."""

    records: dict[str, dict[str, tuple[str, ...]]]

    def text(self) -> str:
        """As a master file (RFC 1035), which CoreDNS' ``file`` plugin reads."""
        lines = [f"{DOMAIN}. {TTL} IN NS ns.dns.{DOMAIN}."]
        lines += [
            f"{name}. {TTL} IN {kind} {rdata}"
            for name, kinds in self.records.items()
            for kind, texts in kinds.items()
            for rdata in texts
        ]
        return "\n".join(sorted(lines, key=lambda line: " SOA " not in line)) + "\n"


def zone(services: Sequence[Service], endpoints: Mapping[str, Sequence[Endpoint]]) -> Zone:
    """``endpoints``: by Service key, as kptrace.kube.objects.cluster_state has them."""
    zone: dict[str, dict[str, dict[str, None]]] = {}
    for name, kind, rdata in _records(services, endpoints):
        zone.setdefault(name, {}).setdefault(kind, {})[rdata] = None
    for name in list(zone):
        for parent in _parents(name):
            zone.setdefault(parent, {})
    return Zone(
        records={
            name: {kind: tuple(texts) for kind, texts in kinds.items()}
            for name, kinds in zone.items()
        }
    )


def _records(
    services: Sequence[Service], endpoints: Mapping[str, Sequence[Endpoint]]
) -> Iterator[Record]:
    yield DOMAIN, "SOA", SOA
    yield f"ns.dns.{DOMAIN}", "A", DNS_ADDRESS
    yield f"dns-version.{DOMAIN}", "TXT", f'"{VERSION}"'
    for service in services:
        name = f"{service.name}.{service.namespace}.svc.{DOMAIN}"
        if service.external_name:
            yield name, "CNAME", f"{service.external_name.rstrip('.')}."
        elif service.headless:
            yield from _headless(name, endpoints.get(service.key, ()))
        else:
            yield from _cluster_ip(name, service)


def _cluster_ip(name: str, service: Service) -> Iterator[Record]:
    for address in service.cluster_ips:
        yield name, _kind(address), address
    for port in service.ports:
        yield from _srv(name, port.name, port.protocol, port.port, name)


def _headless(name: str, endpoints: Sequence[Endpoint]) -> Iterator[Record]:
    """With no ready endpoint there is no such name, as CoreDNS has it."""
    for endpoint in endpoints:
        if not endpoint.ready:
            continue
        own = f"{_dashed(endpoint.address)}.{name}"
        yield name, _kind(endpoint.address), endpoint.address
        yield own, _kind(endpoint.address), endpoint.address
        yield from _srv(name, endpoint.port_name, endpoint.protocol, endpoint.port, own)


def _srv(name: str, port_name: str, protocol: str, port: int, target: str) -> Iterator[Record]:
    if port_name:
        yield f"_{port_name}._{protocol}.{name}", "SRV", f"0 100 {port} {target}."


def _kind(address: str) -> str:
    return "AAAA" if ip_address(address).version == 6 else "A"


def _dashed(address: str) -> str:
    return address.replace(".", "-").replace(":", "-")


def _parents(name: str) -> Iterator[str]:
    """The names above, up to the domain itself."""
    while name != DOMAIN:
        name = name.partition(".")[2]
        yield name

"""The table that kube-proxy 1.36 writes in nftables mode, as text for ``nft -f``.

In: Services, their endpoints, the node and the family. Out: the whole table ``kube-proxy`` of that
family; the text replaces one that is there in the same transaction. This is syncProxyRules of
pkg/proxy/nftables:

* ``services`` looks an address, protocol and port up in the map ``service-ips`` and the port alone
  in ``service-nodeports``, for the node's primary address only (``--nodeport-addresses primary``);
* what it finds is a chain of the Service port: ``service-`` (policy Cluster) and ``local-`` choose
  an endpoint and DNAT to it in one rule; ``external-`` decides between them for traffic from
  outside. With session affinity there is a chain and a set of clients for each endpoint;
* ``no-endpoint-…`` maps refuse or drop, ``firewall-ips`` guards source ranges;
* ``masquerading`` does SNAT for what is marked 0x4000 and for what its own sender is chosen to
  answer (set ``hairpin-connections``, this node's endpoints).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kptrace.lab.dataplane.kubeproxy.service_port import (
    MASQUERADE_MARK,
    ProxiedPort,
    ProxyNode,
    proxied_ports,
)
from kptrace.model import Endpoint, Service
from kptrace.model.family import Family
from kptrace.rules.kubeproxy.chain_names import (
    NftablesKind,
    endpoint_text,
    nftables_chain,
    nftables_endpoint_name,
)
from kptrace.rules.kubeproxy.expected_endpoints import in_family

_MARK = f"meta mark set meta mark | {MASQUERADE_MARK:#x}"
_PORT_KEY = "meta l4proto . th dport"
_NEW = "ct state new"

_BASE_CHAINS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    # before DNAT: source ranges are about the address that the client used
    (
        "filter-prerouting-pre-dnat",
        "filter hook prerouting priority -110",
        (f"{_NEW} jump firewall-check",),
    ),
    (
        "filter-output-pre-dnat",
        "filter hook output priority -110",
        (f"{_NEW} jump firewall-check",),
    ),
    (
        "filter-input",
        "filter hook input priority 0",
        (f"{_NEW} jump nodeport-endpoints-check", f"{_NEW} jump service-endpoints-check"),
    ),
    (
        "filter-forward",
        "filter hook forward priority 0",
        (f"{_NEW} jump service-endpoints-check", f"{_NEW} jump cluster-ips-check"),
    ),
    (
        "filter-output",
        "filter hook output priority 0",
        (f"{_NEW} jump service-endpoints-check", f"{_NEW} jump cluster-ips-check"),
    ),
    ("nat-prerouting", "nat hook prerouting priority -100", ("jump services",)),
    ("nat-output", "nat hook output priority -100", ("jump services",)),
    ("nat-postrouting", "nat hook postrouting priority 100", ("jump masquerading",)),
)

_ADDRESS_TYPE = {"ip": "ipv4_addr", "ip6": "ipv6_addr"}

# name, kind, type without the address, comment
_COLLECTIONS = (
    (
        "hairpin-connections",
        "set",
        "{a} . {a} . inet_proto . inet_service",
        "service hairpin connections",
    ),
    ("cluster-ips", "set", "{a}", "Active ClusterIPs"),
    ("nodeport-ips", "set", "{a}", "IPs that accept NodePort traffic"),
    (
        "no-endpoint-services",
        "map",
        "{a} . inet_proto . inet_service : verdict",
        "vmap to drop or reject packets to services with no endpoints",
    ),
    (
        "no-endpoint-nodeports",
        "map",
        "inet_proto . inet_service : verdict",
        "vmap to drop or reject packets to service nodeports with no endpoints",
    ),
    (
        "firewall-ips",
        "map",
        "{a} . inet_proto . inet_service : verdict",
        "destinations that are subject to LoadBalancerSourceRanges",
    ),
    (
        "service-ips",
        "map",
        "{a} . inet_proto . inet_service : verdict",
        "ClusterIP, ExternalIP and LoadBalancer IP traffic",
    ),
    ("service-nodeports", "map", "inet_proto . inet_service : verdict", "NodePort traffic"),
)


def render(
    services: Sequence[Service],
    endpoints: Mapping[str, Sequence[Endpoint]],
    node: ProxyNode,
    family: Family,
) -> str:
    """The text names the table twice before it fills it: one that exists is replaced."""
    writer = _Writer(node, family)
    for port in proxied_ports(services, endpoints, node, family):
        writer.add(port)
    return "\n".join(
        [
            f"add table {family} kube-proxy",
            f"delete table {family} kube-proxy",
            *_block(f"table {family} kube-proxy", writer.body()),
            "",
        ]
    )


class _Writer:
    """Elements of the maps and sets, affinity sets and chains, as they grow port by port."""

    def __init__(self, node: ProxyNode, family: Family) -> None:
        self.node = node
        self.family = family
        self.cluster_cidr = node.cluster_cidr(family)
        # dicts as ordered sets: one endpoint may serve many Services
        self.elements: dict[str, dict[str, None]] = {name: {} for name, *_ in _COLLECTIONS}
        self.affinity_sets: dict[str, int] = {}
        self.chains: dict[str, list[str]] = {}
        if address := node.address(family):
            self._element("nodeport-ips", address)

    # --- one port: how packets get in -----------------------------------------------------

    def add(self, port: ProxiedPort) -> None:
        self._element("cluster-ips", port.cluster_ip)
        self._cluster_ip(port)
        self._outside_addresses(port)
        self._node_port(port)
        self._hairpin(port)
        self._external_chain(port)
        self._firewall_chain(port)
        self._endpoint_chains(port)
        self._balance(port, "service", port.programmed.cluster)
        self._balance(port, "local", port.programmed.local)

    def _cluster_ip(self, port: ProxiedPort) -> None:
        key = self._key(port, port.cluster_ip)
        if port.has_internal_endpoints:
            chain = self._chain("local" if port.internal_local else "service", port)
            self._element("service-ips", f"{key} : goto {chain}")
        else:
            self._refuse("no-endpoint-services", port, key)

    def _outside_addresses(self, port: ProxiedPort) -> None:
        external = self._chain("external", port)
        for address in port.external_ips + port.load_balancer_ips:
            key = self._key(port, address)
            if port.has_endpoints:
                self._element("service-ips", f"{key} : goto {external}")
            if not port.has_external_endpoints:
                self._refuse("no-endpoint-services", port, key)

    def _node_port(self, port: ProxiedPort) -> None:
        if not port.port.node_port:
            return
        key = f"{port.port.protocol} . {port.port.node_port}"
        if port.has_endpoints:
            self._element("service-nodeports", f"{key} : goto {self._chain('external', port)}")
        if not port.has_external_endpoints:
            self._refuse("no-endpoint-nodeports", port, key)

    def _refuse(self, collection: str, port: ProxiedPort, key: str) -> None:
        verdict = "drop" if port.has_endpoints else "goto reject-chain"
        self._element(collection, f'{key} comment "{port.name}" : {verdict}')

    def _hairpin(self, port: ProxiedPort) -> None:
        for endpoint in port.programmed.reachable:
            if endpoint.node == self.node.name:
                self._element(
                    "hairpin-connections",
                    f"{endpoint.address} . {endpoint.address} . {endpoint.protocol}"
                    f" . {endpoint.port}",
                )

    # --- one port: its own chains ---------------------------------------------------------

    def _external_chain(self, port: ProxiedPort) -> None:
        if not port.uses_external_chain:
            return
        service, rules = self._chain("service", port), []
        if not port.external_local:
            rules.append(f'{_MARK} comment "masquerade"')
        else:
            if self.cluster_cidr:
                pods = f"{self.family} saddr {self.cluster_cidr}"
                rules.append(f'{pods} goto {service} comment "short-circuit pod traffic"')
            local = "fib saddr type local"
            rules.append(f'{local} {_MARK} comment "masquerade local traffic"')
            rules.append(f'{local} goto {service} comment "short-circuit local traffic"')
        if port.has_external_endpoints:
            policy = self._chain("local", port) if port.external_local else service
            rules.append(f"goto {policy}")
        self.chains[self._chain("external", port)] = rules

    def _firewall_chain(self, port: ProxiedPort) -> None:
        if not port.uses_firewall:
            return
        chain = self._chain("firewall", port)
        for address in port.load_balancer_ips:
            self._element("firewall-ips", f"{self._key(port, address)} : goto {chain}")
        allowed = ", ".join(port.allowed_sources(self.node.address(self.family)))
        self.chains[chain] = [f"{self.family} saddr != {{ {allowed} }} drop"]

    def _endpoint_chains(self, port: ProxiedPort) -> None:
        seconds = port.service.affinity_seconds
        if not seconds:
            return
        for endpoint in port.programmed.reachable:
            clients = self._affinity(port, endpoint)
            self.affinity_sets[clients] = seconds
            self.chains[self._endpoint_chain(port, endpoint)] = [
                f"update @{clients} {{ {self.family} saddr }}",
                f"meta l4proto {port.port.protocol} dnat to {endpoint_text(endpoint)}",
            ]

    def _balance(
        self, port: ProxiedPort, kind: NftablesKind, endpoints: Sequence[Endpoint]
    ) -> None:
        if not endpoints:
            return
        choice = f"numgen random mod {len(endpoints)}"
        if port.service.affinity_seconds:
            targets = [self._endpoint_chain(port, endpoint) for endpoint in endpoints]
            rules = [
                f"{self.family} saddr @{self._affinity(port, endpoint)} goto {target}"
                for endpoint, target in zip(endpoints, targets, strict=True)
            ]
            rules.append(f"{choice} vmap {_numbered(f'goto {target}' for target in targets)}")
        else:
            addresses = _numbered(f"{endpoint.address} . {endpoint.port}" for endpoint in endpoints)
            rules = [
                f"meta l4proto {port.port.protocol} dnat {self.family} addr . port"
                f" to {choice} map {addresses}"
            ]
        self.chains[self._chain(kind, port)] = rules

    # --- the table ------------------------------------------------------------------------

    def body(self) -> list[str]:
        lines = ['comment "rules for kube-proxy"']
        for name, kind, shape, comment in _COLLECTIONS:
            lines += _block(f"{kind} {name}", self._collection(name, shape, comment))
        for name, seconds in self.affinity_sets.items():
            kind = f"type {_ADDRESS_TYPE[self.family]}"
            lines += _block(f"set {name}", [kind, "flags dynamic,timeout", f"timeout {seconds}s"])
        for name, hook, jumps in _BASE_CHAINS:
            lines += _block(f"chain {name}", [f"type {hook}", *jumps])
        for name, rules in (self._fixed_chains() | self.chains).items():
            lines += _block(f"chain {name}", rules)
        return lines

    def _collection(self, name: str, shape: str, comment: str) -> list[str]:
        lines = [f"type {shape.format(a=_ADDRESS_TYPE[self.family])}", f'comment "{comment}"']
        if elements := self.elements[name]:
            lines.append(f"elements = {{ {', '.join(elements)} }}")
        return lines

    def _fixed_chains(self) -> dict[str, Sequence[str]]:
        ip = self.family
        address_key = f"{ip} daddr . {_PORT_KEY}"
        nodeports = f"{ip} daddr @nodeport-ips {_PORT_KEY}"
        marked = f"meta mark & {MASQUERADE_MARK:#x} != 0"
        flow = f"{ip} saddr . {address_key}"
        return {
            "nodeport-endpoints-check": (f"{nodeports} vmap @no-endpoint-nodeports",),
            "service-endpoints-check": (f"{address_key} vmap @no-endpoint-services",),
            "firewall-check": (f"{address_key} vmap @firewall-ips",),
            "services": (
                *self._masquerade_cluster_ips(),
                f"{address_key} vmap @service-ips",
                f"{nodeports} vmap @service-nodeports",
            ),
            "masquerading": (
                f"{marked} meta mark set meta mark ^ {MASQUERADE_MARK:#x} masquerade fully-random",
                f"ct status dnat {flow} @hairpin-connections masquerade fully-random",
            ),
            "cluster-ips-check": (
                f'{ip} daddr @cluster-ips reject comment "Reject traffic to invalid ports of'
                ' ClusterIPs"',
                *self._drop_unallocated(),
            ),
            "reject-chain": (
                'comment "helper for @no-endpoint-services / @no-endpoint-nodeports"',
                "reject",
            ),
        }

    def _masquerade_cluster_ips(self) -> Iterable[str]:
        if self.cluster_cidr:
            yield (
                f"{self.family} daddr @cluster-ips {self.family} saddr != {self.cluster_cidr}"
                f' {_MARK} comment "masquerade clusterIP traffic from outside cluster"'
            )

    def _drop_unallocated(self) -> Iterable[str]:
        ranges = in_family(self.node.service_cidrs, self.family)
        if ranges:
            these = ranges[0] if len(ranges) == 1 else f"{{ {', '.join(ranges)} }}"
            comment = "Drop traffic to unallocated ClusterIPs"
            yield f'{self.family} daddr {these} drop comment "{comment}"'

    # --- pieces ---------------------------------------------------------------------------

    def _element(self, collection: str, text: str) -> None:
        self.elements[collection][text] = None

    def _key(self, port: ProxiedPort, address: str) -> str:
        return f"{address} . {port.port.protocol} . {port.port.port}"

    def _chain(self, kind: NftablesKind, port: ProxiedPort) -> str:
        return nftables_chain(kind, port.service, port.port)

    def _endpoint_chain(self, port: ProxiedPort, endpoint: Endpoint) -> str:
        return nftables_endpoint_name("endpoint", port.service, port.port, endpoint)

    def _affinity(self, port: ProxiedPort, endpoint: Endpoint) -> str:
        return nftables_endpoint_name("affinity", port.service, port.port, endpoint)


def _numbered(values: Iterable[str]) -> str:
    return f"{{ {', '.join(f'{number} : {value}' for number, value in enumerate(values))} }}"


def _block(head: str, lines: Iterable[str]) -> list[str]:
    return [f"{head} {{", *(f"\t{line}" for line in lines), "}"]

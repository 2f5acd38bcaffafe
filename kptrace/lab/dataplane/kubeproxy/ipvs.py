"""What kube-proxy 1.36 makes in IPVS mode: Services and endpoints in, its objects on the node out.

In: Services, their endpoints, the node, the family and the scheduler. Out: an ``Ipvs``: texts for
``ipset restore``, ``iptables-restore``, ``ip -batch`` (addresses) and ``ipvsadm -R``, in the forms
in which the programs print them, so that they can be compared with a node's.

The content is in IPVS and in ipsets; the rules are nearly constant (pkg/proxy/ipvs/proxier.go):

ipvs        a virtual service for each ClusterIP, external IP and load balancer IP with its port,
            and for each NodePort on each of the node's addresses; servers by masquerading (NAT),
            weight 1. A Service without endpoints is one without servers.
kube-ipvs0  a dummy device, always down, with every address but the node's own: it makes packets for
            them local, so that they reach INPUT, where IPVS takes them.
nat         marks what needs SNAT, by sets; ACCEPTs the rest, so that nobody else's DNAT comes
            first. A rule about an empty set is left out.
filter      refuses ports of Service addresses that no Service has, and what source ranges forbid.

``externalTrafficPolicy: Local`` without local endpoints takes all endpoints, for the node's own
pods; ``internalTrafficPolicy: Local`` without local ones takes none (syncEndpoint).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kptrace.lab.dataplane.kubeproxy.service_port import (
    MASQUERADE_MARK,
    ProxiedPort,
    ProxyNode,
    proxied_ports,
)
from kptrace.lab.network_objects import AddAddress
from kptrace.model import Endpoint, Service, Value
from kptrace.model.family import Family
from kptrace.rules.kubeproxy.chain_names import endpoint_text
from kptrace.rules.kubeproxy.expected_endpoints import endpoints_of, in_family

DEVICE = "kube-ipvs0"
# ipset names have at most 31 characters (IPSET_MAXNAMELEN less the end)
_NAME_LENGTH = 31
_IP_PORT, _IP_PORT_IP, _IP_PORT_NET = "hash:ip,port", "hash:ip,port,ip", "hash:ip,port,net"
_PORTS, _IPS = "bitmap:port", "hash:ip"
_SETS = {
    "LOOP-BACK": _IP_PORT_IP,
    "CLUSTER-IP": _IP_PORT,
    "EXTERNAL-IP": _IP_PORT,
    "EXTERNAL-IP-LOCAL": _IP_PORT,
    "LOAD-BALANCER": _IP_PORT,
    "LOAD-BALANCER-LOCAL": _IP_PORT,
    "LOAD-BALANCER-FW": _IP_PORT,
    "LOAD-BALANCER-SOURCE-IP": _IP_PORT_IP,
    "LOAD-BALANCER-SOURCE-CIDR": _IP_PORT_NET,
    "NODE-PORT-TCP": _PORTS,
    "NODE-PORT-LOCAL-TCP": _PORTS,
    "NODE-PORT-UDP": _PORTS,
    "NODE-PORT-LOCAL-UDP": _PORTS,
    "NODE-PORT-SCTP-HASH": _IP_PORT,
    "NODE-PORT-LOCAL-SCTP-HASH": _IP_PORT,
    "HEALTH-CHECK-NODE-PORT": _PORTS,
    "IPVS-IPS": _IPS,
}
_OPTIONS = {"tcp": "-t", "udp": "-u", "sctp": "--sctp-service"}
# the scheduler's flags that kube-proxy sets: mh hashes the port too (utilipvs.FlagSourceHash)
_FLAGS = {"mh": " -b mh-port"}
_REJECT = {"ip": "icmp-port-unreachable", "ip6": "icmp6-port-unreachable"}
_LOOPBACK = {"ip": "127.0.0.0/8", "ip6": "::1/128"}
_MARKED = f"{MASQUERADE_MARK:#x}/{MASQUERADE_MARK:#x}"

Chains = dict[str, list[str]]


class Ipvs(Value):
    """What one family needs: texts for ipset, iptables-restore and ipvsadm, and the addresses that
    kube-ipvs0 has.
    """

    ipsets: str
    rules: str
    addresses: tuple[AddAddress, ...]
    services: str


def render(
    services: Sequence[Service],
    endpoints: Mapping[str, Sequence[Endpoint]],
    node: ProxyNode,
    family: Family,
    *,
    scheduler: str = "rr",
    jumps: bool = True,
) -> Ipvs:
    """``jumps=False``: without the rules in INPUT and so on, to load a second time."""
    writer = _Writer(node, family, scheduler)
    for port in proxied_ports(services, endpoints, node, family):
        writer.add(port, endpoints.get(port.service.key, ()))
    return Ipvs(
        ipsets=writer.ipset_text(),
        rules=writer.rules_text(jumps),
        addresses=tuple(
            AddAddress(
                device=DEVICE,
                address=f"{address}/{32 if family == 'ip' else 128}",
                nodad=family == "ip6",
            )
            for address in writer.bound
        ),
        services=writer.services_text(),
    )


def set_name(name: str, family: Family) -> str:
    prefix = "KUBE-6-" if family == "ip6" else "KUBE-"
    return f"{prefix}{name}"[:_NAME_LENGTH]


class _Writer:
    """Sets and virtual services as they grow, port by port."""

    def __init__(self, node: ProxyNode, family: Family, scheduler: str) -> None:
        self.node = node
        self.family = family
        self.scheduler = scheduler
        self.sets: dict[str, dict[str, None]] = {name: {} for name in _SETS}
        self.bound: dict[str, None] = {}
        self.virtual: dict[str, tuple[str, ...]] = {}

    # --- one port -------------------------------------------------------------------------

    def add(self, port: ProxiedPort, known: Sequence[Endpoint]) -> None:
        outside = self._servers(port, port.external_local)
        for endpoint in endpoints_of(known, port.port, self.family):
            if endpoint.node == self.node.name:
                where = self._where(port, endpoint.address, endpoint.port)
                self._put("LOOP-BACK", f"{where},{endpoint.address}")
        self._put("CLUSTER-IP", self._where(port, port.cluster_ip))
        self._bind(port, port.cluster_ip, self._servers(port, port.internal_local))
        for address in port.external_ips:
            kind = "EXTERNAL-IP-LOCAL" if port.external_local else "EXTERNAL-IP"
            self._put(kind, self._where(port, address))
            self._bind(port, address, outside)
        for address in port.load_balancer_ips:
            self._load_balancer(port, address)
            self._bind(port, address, outside)
        if port.health_check_port:
            self._put("HEALTH-CHECK-NODE-PORT", str(port.health_check_port))
        if port.port.node_port:
            self._node_port(port, outside)

    def _servers(self, port: ProxiedPort, only_local: bool) -> tuple[Endpoint, ...]:
        local = port.programmed.local
        return local if only_local and (local or port.internal_local) else port.programmed.cluster

    def _load_balancer(self, port: ProxiedPort, address: str) -> None:
        where = self._where(port, address)
        self._put("LOAD-BALANCER", where)
        if port.external_local:
            self._put("LOAD-BALANCER-LOCAL", where)
        if not port.source_ranges:
            return
        self._put("LOAD-BALANCER-FW", where)
        for source in port.allowed_sources(self.node.address(self.family)):
            kind = "LOAD-BALANCER-SOURCE-CIDR" if "/" in source else "LOAD-BALANCER-SOURCE-IP"
            self._put(kind, f"{where},{source}")

    def _node_port(self, port: ProxiedPort, servers: tuple[Endpoint, ...]) -> None:
        number, protocol = port.port.node_port, port.port.protocol
        addresses = in_family(self.node.node_port_addresses, self.family)
        kinds = ["NODE-PORT-"] + ["NODE-PORT-LOCAL-"] * port.external_local
        for kind in kinds:
            if protocol == "sctp":
                for address in addresses:
                    self._put(f"{kind}SCTP-HASH", self._where(port, address, number))
            else:
                self._put(f"{kind}{protocol.upper()}", str(number))
        for address in addresses:
            self._serve(port, address, number, servers)

    def _bind(self, port: ProxiedPort, address: str, servers: tuple[Endpoint, ...]) -> None:
        self._put("IPVS-IPS", address)
        self.bound[address] = None
        self._serve(port, address, port.port.port, servers)

    def _serve(
        self, port: ProxiedPort, address: str, number: int, servers: tuple[Endpoint, ...]
    ) -> None:
        where = f"[{address}]:{number}" if self.family == "ip6" else f"{address}:{number}"
        service = f"{_OPTIONS[port.port.protocol]} {where}"
        seconds = port.service.affinity_seconds
        flags = f"{f' -p {seconds}' if seconds else ''}{_FLAGS.get(self.scheduler, '')}"
        self.virtual[f"-A {service} -s {self.scheduler}{flags}"] = tuple(
            f"-a {service} -r {endpoint_text(server)} -m -w 1" for server in servers
        )

    def _where(self, port: ProxiedPort, address: str, number: int = 0) -> str:
        return f"{address},{port.port.protocol}:{number or port.port.port}"

    def _put(self, name: str, entry: str) -> None:
        self.sets[name][entry] = None

    # --- texts ----------------------------------------------------------------------------

    def services_text(self) -> str:
        return "".join(
            f"{line}\n" for service, servers in self.virtual.items() for line in (service, *servers)
        )

    def ipset_text(self) -> str:
        family = "inet6" if self.family == "ip6" else "inet"
        lines = []
        for name, kind in _SETS.items():
            options = (
                "range 0-65535"
                if kind == _PORTS
                else f"family {family} hashsize 1024 maxelem 65536 bucketsize 12"
            )
            full = set_name(name, self.family)
            lines.append(f"create {full} {kind} {options}")
            lines += [f"add {full} {entry}" for entry in self.sets[name]]
        return "".join(f"{line}\n" for line in lines)

    def rules_text(self, jumps: bool) -> str:
        tables = (("filter", _FILTER_JUMPS, self._filter()), ("nat", _NAT_JUMPS, self._nat()))
        lines = []
        for table, hooked, chains in tables:
            lines.append(f"*{table}")
            builtin = dict.fromkeys(chain for chain, _, _ in hooked) if jumps else {}
            lines += [f":{chain} - [0:0]" for chain in (*builtin, *sorted(chains))]
            if jumps:
                lines += [f"-A {chain} {_comment(why)} -j {to}" for chain, why, to in hooked]
            lines += [f"-A {chain} {rule}" for chain in sorted(chains) for rule in chains[chain]]
            lines.append("COMMIT")
        return "\n".join(lines) + "\n"

    def _filter(self) -> Chains:
        chains: Chains = {
            "KUBE-FORWARD": [
                f"{_comment('kubernetes forwarding rules')} -m mark --mark {_MARKED} -j ACCEPT",
                f"{_comment('kubernetes forwarding conntrack rule')}"
                " -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            ],
            "KUBE-IPVS-FILTER": [
                *(f"{self._in(name)} -j RETURN" for name in _SERVED),
                f"-m conntrack --ctstate NEW {self._in('IPVS-IPS')}"
                f" -j REJECT --reject-with {_REJECT[self.family]}",
            ],
            "KUBE-IPVS-OUT-FILTER": [],
            "KUBE-NODE-PORT": [
                f"{_comment('Kubernetes health check node port')}"
                f" {self._in('HEALTH-CHECK-NODE-PORT')} -j ACCEPT"
            ],
            "KUBE-PROXY-FIREWALL": [],
            "KUBE-SOURCE-RANGES-FIREWALL": [],
        }
        self._by_set(chains, _FILTER_BY_SET)
        chains["KUBE-SOURCE-RANGES-FIREWALL"].append("-j DROP")
        return chains

    def _nat(self) -> Chains:
        chains: Chains = {
            "KUBE-LOAD-BALANCER": [],
            "KUBE-MARK-MASQ": [f"-j MARK --set-xmark {_MARKED}"],
            "KUBE-NODE-PORT": [],
            "KUBE-POSTROUTING": [],
            "KUBE-SERVICES": [f"-s {_LOOPBACK[self.family]} -j RETURN"],
        }
        self._by_set(chains, _NAT_BY_SET)
        services = chains["KUBE-SERVICES"]
        services += self._masquerade_rules()
        for name, mark in (("EXTERNAL-IP", True), ("EXTERNAL-IP-LOCAL", False)):
            services += self._external_rules(name, mark)
        services.append("-m addrtype --dst-type LOCAL -j KUBE-NODE-PORT")
        services += [
            f"{self._in(name)} -j ACCEPT"
            for name in ("CLUSTER-IP", "LOAD-BALANCER")
            if self.sets[name]
        ]
        chains["KUBE-LOAD-BALANCER"].append("-j KUBE-MARK-MASQ")
        chains["KUBE-POSTROUTING"] += [
            f"-m mark ! --mark {_MARKED} -j RETURN",
            f"-j MARK --set-xmark {MASQUERADE_MARK:#x}/0x0",
            f"{_comment('kubernetes service traffic requiring SNAT')} -j MASQUERADE --random-fully",
        ]
        return chains

    def _masquerade_rules(self) -> list[str]:
        """Without ``--cluster-cidr`` only a Service's own address as the source is masqueraded."""
        if not self.sets["CLUSTER-IP"]:
            return []
        why = _comment("Kubernetes service cluster ip + port for masquerade purpose")
        cidr = self.node.cluster_cidr(self.family)
        source = f"! -s {cidr} " if cidr else ""
        match = self._in("CLUSTER-IP", "dst,dst" if cidr else "src,dst")
        return [f"{source}{why} {match} -j KUBE-MARK-MASQ"]

    def _external_rules(self, name: str, mark: bool) -> list[str]:
        """What comes neither from a pod behind a bridge nor from the node itself, or is for us."""
        if not self.sets[name]:
            return []
        why = _EXTERNAL + ("for masquerade and filter purpose" if mark else _POLICY)
        match = f"{_comment(why)} {self._in(name)}"
        from_outside = "-m physdev ! --physdev-is-in -m addrtype ! --src-type LOCAL"
        return [
            *([f"{match} -j KUBE-MARK-MASQ"] if mark else []),
            f"{match} {from_outside} -j ACCEPT",
            f"{match} -m addrtype --dst-type LOCAL -j ACCEPT",
        ]

    def _by_set(self, chains: Chains, rules: Iterable[tuple[str, str, str, str, str]]) -> None:
        for chain, protocol, why, name, target in rules:
            if self.sets[name]:
                only = f"-p {protocol} " if protocol else ""
                chains[chain].append(f"{only}{_comment(why)} {self._in(name)} -j {target}")

    def _in(self, name: str, fields: str = "") -> str:
        fields = fields or _FIELDS.get(name) or _FIELDS[_SETS[name]]
        return f"-m set --match-set {set_name(name, self.family)} {fields}"


def _comment(text: str) -> str:
    return f'-m comment --comment "{text}"'


_FIELDS = {
    _PORTS: "dst",
    _IPS: "dst",
    _IP_PORT: "dst,dst",
    _IP_PORT_IP: "dst,dst,src",
    _IP_PORT_NET: "dst,dst,src",
}
_SERVED = (
    "LOAD-BALANCER",
    "CLUSTER-IP",
    "EXTERNAL-IP",
    "EXTERNAL-IP-LOCAL",
    "HEALTH-CHECK-NODE-PORT",
)
_EXTERNAL = "Kubernetes service external ip + port "
_BALANCER = "Kubernetes service load balancer ip + port "
_POLICY = "with externalTrafficPolicy=local"

# chain, why, target; as they stand in the end
_FILTER_JUMPS = (
    ("INPUT", "kubernetes ipvs access filter", "KUBE-IPVS-FILTER"),
    ("INPUT", "kube-proxy firewall rules", "KUBE-PROXY-FIREWALL"),
    ("INPUT", "kubernetes health check rules", "KUBE-NODE-PORT"),
    ("FORWARD", "kube-proxy firewall rules", "KUBE-PROXY-FIREWALL"),
    ("FORWARD", "kubernetes forwarding rules", "KUBE-FORWARD"),
    ("OUTPUT", "kubernetes ipvs access filter", "KUBE-IPVS-OUT-FILTER"),
)
_NAT_JUMPS = (
    ("PREROUTING", "kubernetes service portals", "KUBE-SERVICES"),
    ("OUTPUT", "kubernetes service portals", "KUBE-SERVICES"),
    ("POSTROUTING", "kubernetes postrouting rules", "KUBE-POSTROUTING"),
)

# ipsetWithIptablesChain: chain, protocol, why, set, target
_FILTER_BY_SET = (
    (
        "KUBE-PROXY-FIREWALL",
        "",
        _BALANCER + "for load balancer with sourceRange",
        "LOAD-BALANCER-FW",
        "KUBE-SOURCE-RANGES-FIREWALL",
    ),
    (
        "KUBE-SOURCE-RANGES-FIREWALL",
        "",
        _BALANCER + "+ source cidr for packet filter purpose",
        "LOAD-BALANCER-SOURCE-CIDR",
        "RETURN",
    ),
    (
        "KUBE-SOURCE-RANGES-FIREWALL",
        "",
        _BALANCER + "+ source IP for packet filter purpose",
        "LOAD-BALANCER-SOURCE-IP",
        "RETURN",
    ),
)
_NAT_BY_SET = (
    (
        "KUBE-POSTROUTING",
        "",
        "Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose",
        "LOOP-BACK",
        "MASQUERADE",
    ),
    ("KUBE-SERVICES", "", "Kubernetes service lb portal", "LOAD-BALANCER", "KUBE-LOAD-BALANCER"),
    ("KUBE-LOAD-BALANCER", "", _BALANCER + _POLICY, "LOAD-BALANCER-LOCAL", "RETURN"),
    *(
        (
            "KUBE-NODE-PORT",
            protocol.lower(),
            f"Kubernetes nodeport {protocol} port {why}",
            f"NODE-PORT{policy}-{protocol}{kind}",
            target,
        )
        for protocol, kind in (("TCP", ""), ("UDP", ""), ("SCTP", "-HASH"))
        for policy, why, target in (
            ("-LOCAL", _POLICY, "RETURN"),
            ("", "for masquerade purpose", "KUBE-MARK-MASQ"),
        )
    ),
)

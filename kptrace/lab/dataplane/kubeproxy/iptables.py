"""The rules that kube-proxy 1.36 writes in iptables mode, as text for ``iptables-restore``.

In: Services, their endpoints, the node and the family. Out: the tables ``mangle``, ``filter`` and
``nat`` in the form in which ``iptables-save`` prints them, so that the text can be compared with a
node's line by line. For a cluster of any size this is syncProxyRules (pkg/proxy/iptables):

nat     KUBE-SERVICES dispatches by address to KUBE-SVC- (policy Cluster), KUBE-SVL- (Local),
        KUBE-EXT- (from outside) or KUBE-FW- (source ranges); these pick a KUBE-SEP-, which does
        the DNAT. KUBE-NODEPORTS, the last rule of KUBE-SERVICES, dispatches by port to KUBE-EXT-.
        What needs SNAT is marked 0x4000, and KUBE-POSTROUTING masquerades it.
filter  refuses (REJECT) what has no endpoints and discards (DROP) what policy Local forbids.
mangle  an empty chain: when it vanishes, somebody has flushed the tables.

Of ``k`` endpoints that are left, a rule takes one with probability 1/k; the kernel holds it in 31
bits, hence 0.33333333349. Above 1,000 endpoints the comments that name endpoints are left out.
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
    IptablesKind,
    endpoint_text,
    iptables_chain,
    iptables_endpoint_chain,
)
from kptrace.rules.kubeproxy.expected_endpoints import endpoints_of

LARGE_CLUSTER_ENDPOINTS = 1000
# linux/netfilter/xt_statistic.h: the probability is a fraction of 2^31
PROBABILITY_UNIT = 0x80000000

Chains = dict[str, list[str]]

_NEW = "-m conntrack --ctstate NEW"
_MARKED = f"{MASQUERADE_MARK:#x}/{MASQUERADE_MARK:#x}"
_REJECT = {"ip": "icmp-port-unreachable", "ip6": "icmp6-port-unreachable"}
_PREFIX = {"ip": 32, "ip6": 128}
_HOST_MASK = {"ip": "255.255.255.255", "ip6": ":".join(["ffff"] * 8)}


def _comment(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'-m comment --comment "{escaped}"'


# The jumps from the kernel's chains as they stand in the end (kube-proxy inserts each at the top):
# chain, only new connections?, comment, target
_FIREWALL = (True, "kubernetes load balancer firewall", "KUBE-PROXY-FIREWALL")
_PORTALS = (True, "kubernetes service portals", "KUBE-SERVICES")
_EXTERNAL = (True, "kubernetes externally-visible service portals", "KUBE-EXTERNAL-SERVICES")
_JUMPS: Mapping[str, tuple[tuple[str, bool, str, str], ...]] = {
    "mangle": (),
    "filter": (
        ("INPUT", False, "", "KUBE-FIREWALL"),
        ("INPUT", *_FIREWALL),
        ("INPUT", False, "kubernetes health check service ports", "KUBE-NODEPORTS"),
        ("INPUT", *_EXTERNAL),
        ("FORWARD", *_FIREWALL),
        ("FORWARD", False, "kubernetes forwarding rules", "KUBE-FORWARD"),
        ("FORWARD", *_PORTALS),
        ("FORWARD", *_EXTERNAL),
        ("OUTPUT", False, "", "KUBE-FIREWALL"),
        ("OUTPUT", *_FIREWALL),
        ("OUTPUT", *_PORTALS),
    ),
    "nat": (
        ("PREROUTING", False, "kubernetes service portals", "KUBE-SERVICES"),
        ("OUTPUT", False, "kubernetes service portals", "KUBE-SERVICES"),
        ("POSTROUTING", False, "kubernetes postrouting rules", "KUBE-POSTROUTING"),
    ),
}

_FILTER_CHAINS = (
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-FIREWALL",
    "KUBE-FORWARD",
    "KUBE-NODEPORTS",
    "KUBE-PROXY-CANARY",
    "KUBE-PROXY-FIREWALL",
    "KUBE-SERVICES",
)
_NAT_CHAINS = (
    "KUBE-MARK-MASQ",
    "KUBE-NODEPORTS",
    "KUBE-POSTROUTING",
    "KUBE-PROXY-CANARY",
    "KUBE-SERVICES",
)


def render(
    services: Sequence[Service],
    endpoints: Mapping[str, Sequence[Endpoint]],
    node: ProxyNode,
    family: Family,
    *,
    jumps: bool = True,
) -> str:
    """``jumps=False``: without the rules in INPUT, FORWARD and so on, to load a second time.

    Loaded with ``--noflush``: kube-proxy's chains are emptied and filled again, the kernel's own
    chains are only added to.
    """
    ports = tuple(proxied_ports(services, endpoints, node, family))
    total = sum(
        len(endpoints_of(endpoints.get(port.service.key, ()), port.port, family)) for port in ports
    )
    writer = _Writer(node, family, named_endpoints=total <= LARGE_CLUSTER_ENDPOINTS)
    for port in ports:
        writer.add(port)
    writer.finish()
    tables: dict[str, Chains] = {
        "mangle": {"KUBE-PROXY-CANARY": []},
        "filter": writer.filter,
        "nat": writer.nat,
    }
    return "".join(_table(name, chains, jumps) for name, chains in tables.items())


def _table(name: str, chains: Chains, jumps: bool) -> str:
    hooked = _JUMPS[name] if jumps else ()
    # a policy of "-" leaves the one that is set
    declared = [*dict.fromkeys(chain for chain, *_ in hooked), *sorted(chains)]
    lines = [f"*{name}", *(f":{chain} - [0:0]" for chain in declared)]
    for chain, new, comment, target in hooked:
        parts = (_NEW if new else "", comment and _comment(comment), f"-j {target}")
        lines.append(f"-A {chain} {_words(parts)}")
    lines += [f"-A {chain} {rule}" for chain in sorted(chains) for rule in chains[chain]]
    return "\n".join([*lines, "COMMIT", ""])


class _Writer:
    """The chains of ``filter`` and ``nat`` as they grow, port by port."""

    def __init__(self, node: ProxyNode, family: Family, *, named_endpoints: bool) -> None:
        self.node = node
        self.family = family
        self.named_endpoints = named_endpoints
        self.filter: Chains = {chain: [] for chain in _FILTER_CHAINS}
        self.nat: Chains = {chain: [] for chain in _NAT_CHAINS}
        self.cluster_cidr = node.cluster_cidr(family)
        self._fixed_rules()

    def _fixed_rules(self) -> None:
        nfacct = " -m nfacct --nfacct-name  ct_state_invalid_dropped_pkts"
        self.filter["KUBE-FORWARD"] += [
            f"-m conntrack --ctstate INVALID{nfacct if self.node.nfacct else ''} -j DROP",
            f"{_comment('kubernetes forwarding rules')} -m mark --mark {_MARKED} -j ACCEPT",
            f"{_comment('kubernetes forwarding conntrack rule')}"
            " -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ]
        if self.family == "ip":
            # route_localnet is on for NodePorts on 127.0.0.1; nobody else may reach it so
            self.filter["KUBE-FIREWALL"].append(
                f"! -s 127.0.0.0/8 -d 127.0.0.0/8 {_comment('block incoming localnet connections')}"
                " -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
            )
        self.nat["KUBE-MARK-MASQ"].append(f"-j MARK --set-xmark {_MARKED}")
        self.nat["KUBE-POSTROUTING"] += [
            f"-m mark ! --mark {_MARKED} -j RETURN",
            f"-j MARK --set-xmark {MASQUERADE_MARK:#x}/0x0",
            f"{_comment('kubernetes service traffic requiring SNAT')} -j MASQUERADE --random-fully",
        ]

    def finish(self) -> None:
        # localhost NodePorts work only on IPv4
        but = "! -d ::1/128 " if self.family == "ip6" else ""
        note = "kubernetes service nodeports; NOTE: this must be the last rule in this chain"
        self.nat["KUBE-SERVICES"].append(
            f"{but}{_comment(note)} -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
        )

    # --- one port: how packets get in -----------------------------------------------------

    def add(self, port: ProxiedPort) -> None:
        self._cluster_ip(port)
        self._outside_addresses(port)
        self._node_port(port)
        self._external_chain(port)
        self._firewall_chain(port)
        self._policy_chains(port)
        for endpoint in port.programmed.reachable:
            self._endpoint_chain(port, endpoint)

    def _cluster_ip(self, port: ProxiedPort) -> None:
        match = self._addressed(port, port.cluster_ip, f"{port.name} cluster IP")
        if not port.has_internal_endpoints:
            self._refuse("KUBE-SERVICES", port, port.cluster_ip)
            return
        chain = self._chain("SVL" if port.internal_local else "SVC", port)
        self.nat["KUBE-SERVICES"].append(f"{match} -j {chain}")
        if self.cluster_cidr:
            self._to(chain, f"! -s {self.cluster_cidr} {match} -j KUBE-MARK-MASQ")

    def _outside_addresses(self, port: ProxiedPort) -> None:
        kinds: tuple[tuple[str, tuple[str, ...], IptablesKind], ...] = (
            ("external IP", port.external_ips, "EXT"),
            ("loadbalancer IP", port.load_balancer_ips, "FW" if port.uses_firewall else "EXT"),
        )
        for kind, addresses, chain in kinds:
            for address in addresses:
                if port.has_endpoints:
                    match = self._addressed(port, address, f"{port.name} {kind}")
                    self.nat["KUBE-SERVICES"].append(f"{match} -j {self._chain(chain, port)}")
                if not port.has_external_endpoints:
                    self._refuse("KUBE-EXTERNAL-SERVICES", port, address)

    def _node_port(self, port: ProxiedPort) -> None:
        number = port.port.node_port
        if port.health_check_port:
            comment = _comment(f"{port.name} health check node port")
            self.filter["KUBE-NODEPORTS"].append(
                f"-p tcp {comment} -m tcp --dport {port.health_check_port} -j ACCEPT"
            )
        if not number:
            return
        protocol, external = port.port.protocol, self._chain("EXT", port)
        match = f"-p {protocol} {_comment(port.name)} -m {protocol} --dport {number}"
        if port.has_endpoints and self.node.nfacct and self.family == "ip":
            self.nat["KUBE-NODEPORTS"].append(
                f"-d 127.0.0.0/8 {match} -m nfacct --nfacct-name  localhost_nps_accepted_pkts"
                f" -j {external}"
            )
        if port.has_endpoints:
            self.nat["KUBE-NODEPORTS"].append(f"{match} -j {external}")
        if not port.has_external_endpoints:
            why, target = self._refusal(port)
            self.filter["KUBE-EXTERNAL-SERVICES"].append(
                f"-p {protocol} {_comment(why)} -m addrtype --dst-type LOCAL"
                f" -m {protocol} --dport {number} {target}"
            )

    def _refuse(self, chain: str, port: ProxiedPort, address: str) -> None:
        why, target = self._refusal(port)
        self.filter[chain].append(f"{self._addressed(port, address, why)} {target}")

    def _refusal(self, port: ProxiedPort) -> tuple[str, str]:
        if port.has_endpoints:
            return f"{port.name} has no local endpoints", "-j DROP"
        return (
            f"{port.name} has no endpoints",
            f"-j REJECT --reject-with {_REJECT[self.family]}",
        )

    # --- one port: its own chains ---------------------------------------------------------

    def _external_chain(self, port: ProxiedPort) -> None:
        if not port.uses_external_chain:
            return
        chain, cluster = self._chain("EXT", port), self._chain("SVC", port)
        traffic = f"traffic for {port.name} external destinations"
        if not port.external_local:
            self._to(chain, f"{_comment(f'masquerade {traffic}')} -j KUBE-MARK-MASQ")
        else:
            if self.cluster_cidr:
                self._to(chain, f"-s {self.cluster_cidr} {_comment(f'pod {traffic}')} -j {cluster}")
            local = "-m addrtype --src-type LOCAL"
            self._to(chain, f"{_comment(f'masquerade LOCAL {traffic}')} {local} -j KUBE-MARK-MASQ")
            self._to(chain, f"{_comment(f'route LOCAL {traffic}')} {local} -j {cluster}")
        if port.has_external_endpoints:
            policy = self._chain("SVL", port) if port.external_local else cluster
            self._to(chain, f"-j {policy}")

    def _firewall_chain(self, port: ProxiedPort) -> None:
        if not port.uses_firewall:
            return
        chain, external = self._chain("FW", port), self._chain("EXT", port)
        for address in port.load_balancer_ips:
            match = self._addressed(port, address, f"{port.name} traffic not accepted by {chain}")
            self.filter["KUBE-PROXY-FIREWALL"].append(f"{match} -j DROP")
        comment = _comment(f"{port.name} loadbalancer IP")
        for source in port.allowed_sources(self.node.address(self.family)):
            cidr = source if "/" in source else f"{source}/{_PREFIX[self.family]}"
            self._to(chain, f"-s {cidr} {comment} -j {external}")
        # what falls off here was not DNATed and meets KUBE-PROXY-FIREWALL
        rest = f"other traffic to {port.name} will be dropped by KUBE-PROXY-FIREWALL"
        self._to(chain, _comment(rest))

    def _policy_chains(self, port: ProxiedPort) -> None:
        self._balance(port, "SVC", port.programmed.cluster)
        self._balance(port, "SVL", port.programmed.local)

    def _balance(
        self, port: ProxiedPort, kind: IptablesKind, endpoints: Sequence[Endpoint]
    ) -> None:
        chain = self._chain(kind, port)
        if port.service.affinity_seconds:
            for endpoint in endpoints:
                target = iptables_endpoint_chain(port.service, port.port, endpoint)
                seen = f"--rcheck --seconds {port.service.affinity_seconds} --reap"
                self._to(
                    chain, self._arrow(port, endpoint), self._recent(target, seen), f"-j {target}"
                )
        for left, endpoint in zip(range(len(endpoints), 0, -1), endpoints, strict=True):
            target = iptables_endpoint_chain(port.service, port.port, endpoint)
            self._to(chain, self._arrow(port, endpoint), _one_of(left), f"-j {target}")

    def _endpoint_chain(self, port: ProxiedPort, endpoint: Endpoint) -> None:
        chain = iptables_endpoint_chain(port.service, port.port, endpoint)
        comment = _comment(port.name) if self.named_endpoints else ""
        source = f"-s {endpoint.address}/{_PREFIX[self.family]}"
        self._to(chain, source, comment, "-j KUBE-MARK-MASQ")
        recent = self._recent(chain, "--set") if port.service.affinity_seconds else ""
        protocol, target = port.port.protocol, endpoint_text(endpoint)
        self._to(
            chain,
            f"-p {protocol}",
            comment,
            recent,
            f"-m {protocol} -j DNAT --to-destination {target}",
        )

    # --- pieces ---------------------------------------------------------------------------

    def _to(self, chain: str, *parts: str) -> None:
        self.nat.setdefault(chain, []).append(_words(parts))

    def _chain(self, kind: IptablesKind, port: ProxiedPort) -> str:
        return iptables_chain(kind, port.service, port.port)

    def _addressed(self, port: ProxiedPort, address: str, comment: str) -> str:
        protocol, number = port.port.protocol, port.port.port
        return (
            f"-d {address}/{_PREFIX[self.family]} -p {protocol} {_comment(comment)}"
            f" -m {protocol} --dport {number}"
        )

    def _arrow(self, port: ProxiedPort, endpoint: Endpoint) -> str:
        return _comment(f"{port.name} -> {endpoint_text(endpoint)}") if self.named_endpoints else ""

    def _recent(self, name: str, action: str) -> str:
        return f"-m recent {action} --name {name} --mask {_HOST_MASK[self.family]} --rsource"


def _one_of(left: int) -> str:
    """The probability as kube-proxy writes it (ten digits) and the kernel rounds it."""
    if left == 1:
        return ""
    kept = round(float(f"{1 / left:.10f}") * PROBABILITY_UNIT) / PROBABILITY_UNIT
    return f"-m statistic --mode random --probability {kept:.11f}"


def _words(parts: Iterable[str]) -> str:
    return " ".join(part for part in parts if part)

"""Find the Services that a node's rules name, where no API server is asked.

The Services have addresses and ports; the rules hold no types, selectors and policies. kube-proxy
in iptables mode writes the name into the comment of the rules of KUBE-SERVICES, KUBE-NODEPORTS and
KUBE-EXTERNAL-SERVICES (proxier.go)::

    -d 10.96.1.6/32 -p tcp ... --comment "default/lb:http cluster IP" --dport 80 -j KUBE-SVC-...

and in nftables mode into the name of the chain to which a map's element leads, or into the
element's comment if there is no such chain (no endpoints). A load balancer's address looks like an
external one there, unless its sources are limited.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kptrace.model import AddressKind, Service, ServicePort, Value
from kptrace.rules.kubeproxy.chain_names import read_nftables_name
from kptrace.rules.model.expressions import Comparison, Concat, Const, Field, Prefix, Verdict
from kptrace.rules.model.ruleset import Rule, Ruleset, Table
from kptrace.rules.model.sets import Key

_NAME = r"(?P<namespace>[a-z0-9-]+)/(?P<name>[a-z0-9.-]+?)(?::(?P<port>[a-z0-9-]*))?"
_COMMENT = re.compile(rf"{_NAME}(?: (?P<what>[a-z].*))?", re.IGNORECASE)
_WAYS: dict[str, AddressKind] = {
    "cluster IP": "clusterIP",
    "external IP": "externalIP",
    "loadbalancer IP": "loadBalancer",
}
_UNUSABLE = ("has no endpoints", "has no local endpoints")
_CHAINS = {
    "nat": ("KUBE-SERVICES", "KUBE-NODEPORTS"),
    "filter": ("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES"),
}
_ADDRESSED = ("address", "protocol", "port")
_MAPS = ("service-ips", "service-nodeports", "no-endpoint-services", "no-endpoint-nodeports")


class ServiceHint(Value):
    """An address of a Service port that a rule or element names; ``address`` is empty for a
    NodePort.
    """

    namespace: str
    name: str
    port_name: str
    protocol: str
    kind: AddressKind
    address: str
    port: int

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


def services_of(ruleset: Ruleset, key: str = "") -> tuple[Service, ...]:
    """The Services by name.

    ``key``: only the Service ``namespace/name``, without reading all rules.
    """
    hints: dict[str, list[ServiceHint]] = {}
    for table in ruleset.tables():
        for hint in (*_of_chains(ruleset, table, key), *_of_maps(ruleset, table, key)):
            if key in ("", hint.key):
                hints.setdefault(hint.key, []).append(hint)
    return tuple(_service(hints[name]) for name in sorted(hints))


def _service(hints: list[ServiceHint]) -> Service:
    ports: dict[tuple[str, str], dict[str, int]] = {}
    addresses: dict[AddressKind, dict[str, None]] = {}
    for hint in hints:
        numbers = ports.setdefault((hint.port_name, hint.protocol), {})
        numbers["node" if hint.kind == "nodePort" else "port"] = hint.port
        if hint.address:
            addresses.setdefault(hint.kind, {})[hint.address] = None
    cluster, external, balancer = (
        tuple(addresses.get(way, ())) for way in ("clusterIP", "externalIP", "loadBalancer")
    )
    open_ports = any("node" in numbers for numbers in ports.values())
    return Service(
        namespace=hints[0].namespace,
        name=hints[0].name,
        type="LoadBalancer" if balancer else "NodePort" if open_ports else "ClusterIP",
        cluster_ips=cluster,
        external_ips=external,
        load_balancer_ips=balancer,
        ports=tuple(
            ServicePort(
                name=name,
                protocol=protocol,
                port=numbers.get("port", 0),
                target_port="",
                node_port=numbers.get("node", 0),
            )
            for (name, protocol), numbers in ports.items()
        ),
    )


# --- iptables mode ----------------------------------------------------------------------------


def _of_chains(ruleset: Ruleset, table: Table, key: str) -> Iterator[ServiceHint]:
    for name in _CHAINS.get(table.name, ()):
        chain = ruleset.chain(table, name)
        for rule in chain.rules.containing_text(key) if chain else ():
            yield from _of_rule(rule)


def _of_rule(rule: Rule) -> Iterator[ServiceHint]:
    comment = _COMMENT.fullmatch(rule.comment)
    tests = {
        part.left.key: part.right
        for part in rule.body
        if isinstance(part, Comparison) and part.op == "==" and isinstance(part.left, Field)
    }
    protocol = tests.get("meta l4proto")
    number = next((value for key, value in tests.items() if key.endswith(" dport")), None)
    if comment is None or not isinstance(protocol, Const) or not isinstance(number, Const):
        return
    address = tests.get(f"{rule.table.family} daddr")
    destination = str(address.value) if isinstance(address, Const) else ""
    way = _way(rule, comment["what"] or "", destination)
    if way is None or isinstance(address, Prefix):
        return
    yield ServiceHint(
        namespace=comment["namespace"],
        name=comment["name"],
        port_name=comment["port"] or "",
        protocol=str(protocol.value),
        kind=way,
        address=destination,
        port=int(number.value),
    )


def _way(rule: Rule, what: str, address: str) -> AddressKind | None:
    if what in _WAYS:
        return _WAYS[what]
    if rule.chain == "KUBE-NODEPORTS":
        return None if what or address else "nodePort"
    if what not in _UNUSABLE:
        return None
    if not address:
        return "nodePort"
    return "clusterIP" if rule.chain == "KUBE-SERVICES" else "externalIP"


# --- nftables mode ----------------------------------------------------------------------------


def _of_maps(ruleset: Ruleset, table: Table, key: str) -> Iterator[ServiceHint]:
    if table.backend != "nft" or table.name != "kube-proxy":
        return
    for name in _MAPS:
        map_ = ruleset.set(table, name)
        for element in map_.members.containing_text(key) if map_ else ():
            parts = element.key.parts if isinstance(element.key, Concat) else ()
            key_values = tuple(part.value for part in parts if isinstance(part, Const))
            chain = element.data.chain if isinstance(element.data, Verdict) else ""
            addressed = len(key_values) == len(_ADDRESSED)
            cluster = addressed and _holds(ruleset, table, "cluster-ips", key_values[:1])
            limited = addressed and _holds(ruleset, table, "firewall-ips", key_values)
            yield from _of_element(key_values, chain, element.comment, cluster, limited)


def _holds(ruleset: Ruleset, table: Table, name: str, key: Key) -> bool:
    nft_set = ruleset.set(table, name)
    return nft_set is not None and nft_set.members.lookup(key) is not None


def _of_element(
    key: tuple[str | int, ...],
    chain: str,
    comment: str,
    cluster: bool,
    limited: bool,
) -> Iterator[ServiceHint]:
    name = read_nftables_name(chain)
    comment_match = _COMMENT.fullmatch(comment)
    if (name is None and comment_match is None) or len(key) not in (2, len(_ADDRESSED)):
        return
    address = str(key[0]) if len(key) == len(_ADDRESSED) else ""
    direct = cluster or (name is not None and name.kind in ("service", "local"))
    way: AddressKind = "nodePort"
    if address:
        way = "clusterIP" if direct else "loadBalancer" if limited else "externalIP"
    yield ServiceHint(
        namespace=name.namespace if name else comment_match["namespace"] if comment_match else "",
        name=name.name if name else comment_match["name"] if comment_match else "",
        port_name=name.port if name else (comment_match["port"] or "") if comment_match else "",
        protocol=str(key[-2]),
        kind=way,
        address=address,
        port=int(key[-1]),
    )

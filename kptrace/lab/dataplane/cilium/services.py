"""Cilium's load-balancing maps for the lab: Services and endpoints in, keys and values out; pure.

One entry a slot of each frontend, slot 0 for the frontend itself; backends by id, apart; and the
addresses of the nodes, by which a program tells a node port on another node from any other
address. A frontend whose policies differ for outside and inside has both scopes.

Layouts: pkg/loadbalancer/maps/types.go, pkg/maps/ipcache. Addresses and ports are big-endian, all
else is in the kernel's own order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from struct import pack

from kptrace.lab.dataplane.kubeproxy.service_port import ProxiedPort, ProxyNode, proxied_ports
from kptrace.model import Endpoint, Service, Value
from kptrace.model.family import Family
from kptrace.rules.kubeproxy.expected_endpoints import in_family

CLUSTER_IP, EXTERNAL_IP, NODE_PORT, AFFINITY, LOAD_BALANCER = 0, 0x1, 0x2, 0x10, 0x20
LOCAL_INSIDE, TWO_SCOPES = 0x10, 0x20  # of the second byte
OUTSIDE, INSIDE = 0, 1
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
HOST_ID, REMOTE_NODE_ID = 1, 6  # reserved identities
ANY: dict[Family, str] = {Family.IPV4: "0.0.0.0", Family.IPV6: "::"}

Entries = dict[bytes, bytes]


class Maps(Value):
    """What one node's maps of one family hold."""

    services: Entries
    backends: Entries
    reverse: Entries
    ipcache: Entries


class Frontend(Value):
    address: str
    port: int
    protocol: str
    flags: int
    outside: tuple[Endpoint, ...]
    inside: tuple[Endpoint, ...]
    sticky: int = 0
    local_inside: bool = False

    @property
    def scopes(self) -> tuple[tuple[int, tuple[Endpoint, ...]], ...]:
        if self.outside == self.inside:
            return ((OUTSIDE, self.inside),)
        return (OUTSIDE, self.outside), (INSIDE, self.inside)


def maps(
    services: Sequence[Service],
    endpoints: Mapping[str, Sequence[Endpoint]],
    node: ProxyNode,
    family: Family,
    nodes: Iterable[str],
) -> Maps:
    """``nodes``: the addresses of all nodes."""
    ports = tuple(proxied_ports(services, endpoints, node, family))
    frontends = [frontend for port in ports for frontend in _frontends(port, node, family)]
    ids = _ids(frontends)
    held, reverse = {}, {}
    for number, frontend in enumerate(frontends, 1):
        held.update(_slots(frontend, number, ids))
        # the id is in network order, here as in the service's value
        reverse[pack("!H", number)] = _packed(frontend.address) + pack("!H", frontend.port)
    return Maps(
        services=held,
        backends={pack("=I", id): _backend(where) for where, id in ids.items()},
        reverse=reverse,
        ipcache=dict(_identity(text, node) for text in in_family(nodes, family)),
    )


def _frontends(port: ProxiedPort, node: ProxyNode, family: Family) -> Iterator[Frontend]:
    inside = port.programmed.internal(port.service)
    outside = port.programmed.external(port.service)
    number = port.port.port
    ways = [(port.cluster_ip, number, CLUSTER_IP, inside)]
    if port.port.node_port:
        own = (ANY[family], *in_family(node.addresses, family))
        ways += [(text, port.port.node_port, NODE_PORT, outside) for text in own]
    ways += [(text, number, EXTERNAL_IP, outside) for text in port.external_ips]
    ways += [(text, number, LOAD_BALANCER, outside) for text in port.load_balancer_ips]
    for address, number, flags, first in ways:
        yield Frontend(
            address=address,
            port=number,
            protocol=port.port.protocol,
            flags=flags | (AFFINITY if port.service.affinity_seconds else 0),
            outside=first,
            inside=inside,
            sticky=port.service.affinity_seconds,
            local_inside=port.internal_local,
        )


Where = tuple[str, int, str]


def _ids(frontends: Iterable[Frontend]) -> dict[Where, int]:
    numbers = {
        _where(end): 0 for frontend in frontends for _, ends in frontend.scopes for end in ends
    }
    return {where: number for number, where in enumerate(sorted(numbers), 1)}


def _where(end: Endpoint) -> Where:
    return end.address, end.port, end.protocol


def _slots(frontend: Frontend, number: int, ids: Mapping[Where, int]) -> Entries:
    slots = {}
    second = (LOCAL_INSIDE if frontend.local_inside else 0) | (
        TWO_SCOPES if len(frontend.scopes) > 1 else 0
    )
    for scope, ends in frontend.scopes:
        for slot in range(len(ends) + 1):
            backend = ids[_where(ends[slot - 1])] if slot else frontend.sticky
            count = 0 if slot else len(ends)
            head = pack("=IH", backend, count) + pack("!H", number)
            slots[_key(frontend, slot, scope)] = head + pack("=BBH", frontend.flags, second, 0)
    return slots


def _key(frontend: Frontend, slot: int, scope: int) -> bytes:
    protocol = PROTOCOLS[frontend.protocol]
    return (
        _packed(frontend.address)
        + pack("!H", frontend.port)
        + pack("=HBB2x", slot, protocol, scope)
    )


def _backend(where: Where) -> bytes:
    address, port, protocol = where
    return _packed(address) + pack("!H", port) + pack("=BBHBx", PROTOCOLS[protocol], 0, 0, 0)


def _identity(text: str, node: ProxyNode) -> tuple[bytes, bytes]:
    """The longest prefix there is; all before the address always counts (32 bits)."""
    packed = _packed(text)
    family = 1 if len(packed) == 4 else 2
    key = pack("=IHBB", 32 + 8 * len(packed), 0, 0, family) + packed.ljust(16, b"\0")
    return key, pack("=I", HOST_ID if text in node.addresses else REMOTE_NODE_ID).ljust(24, b"\0")


def _packed(text: str) -> bytes:
    return ip_address(text).packed

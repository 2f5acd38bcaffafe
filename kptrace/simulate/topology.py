"""Topology: every namespace that was read, and how they are connected.

A veth's ends know each other by ifindex only, and an ifindex means something inside one namespace;
so an end is looked for among the pods of the same node (or, from a pod, in its node), where both
must point at each other. A device without a known other end leads to the wire between the nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

from kptrace.model import Endpoint, Netns, Value
from kptrace.model.addresses import address, network
from kptrace.model.family import Family
from kptrace.simulate.snapshot.network import Link
from kptrace.simulate.snapshot.snapshot import Snapshot

Port = tuple[Netns, Link]


class Topology(Value, dict=True):
    """The namespaces, and what the API says of endpoints and Services.

    services: every address that a Service has; None: not known
    service_ranges: where not every Service is known: the ranges that the others' addresses are of
    node_ports: every port that a Service has on the nodes themselves
    sender: user and group (one number) of the socket that the packet comes from; None: not known
    """

    snapshots: Mapping[Netns, Snapshot]
    endpoints: tuple[Endpoint, ...] = ()
    services: frozenset[str] | None = None
    service_ranges: tuple[str, ...] = ()
    node_ports: frozenset[int] = frozenset()
    sender: int | None = None

    @cached_property
    def _homes(self) -> dict[str, Netns]:
        homes: dict[str, Netns] = {}
        for netns, snapshot in sorted(self.snapshots.items(), key=lambda held: held[0]):
            for held in snapshot.addresses:
                link = snapshot.link(held.interface)
                own = link is None or not (link.loopback or link.kind == "dummy")
                if own and held.scope != "link":
                    homes.setdefault(str(address(held.address)), netns)
        return homes

    @cached_property
    def _endpoints(self) -> dict[tuple[str, int, str], Endpoint]:
        return {
            (endpoint.address, endpoint.port, endpoint.protocol.lower()): endpoint
            for endpoint in self.endpoints
        }

    @cached_property
    def _pods(self) -> dict[str, Endpoint]:
        return {endpoint.address: endpoint for endpoint in self.endpoints}

    @cached_property
    def _pods_by_node(self) -> dict[str, list[Netns]]:
        pods: dict[str, list[Netns]] = {}
        for netns in sorted(self.snapshots):
            if netns.pod:
                pods.setdefault(netns.node, []).append(netns)
        return pods

    def snapshot(self, netns: Netns) -> Snapshot | None:
        return self.snapshots.get(netns)

    def home(self, text: str) -> Netns | None:
        """Return the namespace that has this address on one of its interfaces."""
        return self._homes.get(text)

    def endpoint(self, text: str, port: int, protocol: str) -> Endpoint | None:
        return self._endpoints.get((text, port, protocol))

    def pod_at(self, text: str) -> Endpoint | None:
        """Return an endpoint with this address, whatever its port."""
        return self._pods.get(text)

    def is_service(self, text: str) -> bool:
        """Whether it is a Service's address; where that is not known, whether it can be one."""
        if self.services is not None:
            inside = (address(text) in network(prefix) for prefix in self.service_ranges)
            return text in self.services or any(inside)
        return self.home(text) is None and self.pod_at(text) is None

    def peer(self, netns: Netns, link: Link) -> Port | None:
        """Return the other end of a veth; None where its namespace was not read."""
        if not link.peer:
            return None
        if link.peer_here:
            other = self.snapshots[netns].link_at(link.peer)
            return (netns, other) if other else None
        near = [Netns(node=netns.node)] if netns.pod else self._pods_by_node.get(netns.node, [])
        for candidate in near:
            snapshot = self.snapshots.get(candidate)
            other = snapshot.link_at(link.peer) if snapshot else None
            if other and other.peer == link.index and not other.peer_here:
                return candidate, other
        return None

    def on_link(self, netns: Netns, link: Link) -> Iterator[Port]:
        """Yield whoever receives a broadcast that is sent out of this device."""
        if link.kind == "bridge":
            yield from self._behind_ports(netns, link, "")
            return
        peer = self.peer(netns, link)
        if peer is None:
            yield from (port for port in self._wire() if port[0] != netns)
            return
        there, end = peer
        bridge = self.snapshots[there].link(end.master) if end.master else None
        if bridge is None:
            yield peer
            return
        yield there, bridge
        yield from self._behind_ports(there, bridge, end.name)

    def _behind_ports(self, netns: Netns, bridge: Link, but: str) -> Iterator[Port]:
        for port in self.snapshots[netns].ports(bridge.name):
            peer = self.peer(netns, port) if port.name != but else None
            if peer is not None:
                yield peer

    def _wire(self) -> Iterator[Port]:
        """Yield the nodes' uplinks: devices that are neither virtual nor a pod's."""
        for netns, snapshot in self.snapshots.items():
            for link in snapshot.links:
                virtual = link.loopback or link.tunnel or link.kind in ("bridge", "dummy")
                if netns.pod or virtual or _is_pods(snapshot, link):
                    continue
                if self.peer(netns, link) is None:
                    yield netns, link

    def answering(self, netns: Netns, link: Link, text: str) -> Port | None:
        """Return who answers when this device asks for the address (ARP, neighbour discovery).

        Linux answers for every address it has, on whichever interface (arp_ignore 0), and with
        proxy_arp for what it would route elsewhere.
        """
        proxies: list[Port] = []
        for there, end in self.on_link(netns, link):
            snapshot = self.snapshots[there]
            held = snapshot.holds(text)
            if held and (":" not in text or held.interface in (end.name, end.master)):
                return there, end
            if snapshot.conf(Family.IPV4, end.name, "proxy_arp") or snapshot.conf(
                Family.IPV4, "all", "proxy_arp"
            ):
                proxies.append((there, end))
        return proxies[0] if proxies else None


def _is_pods(snapshot: Snapshot, link: Link) -> bool:
    """Whether a veth is a pod's end on its node: it has no address that is routed, an uplink
    has.
    """
    held = [address for family in Family for address in snapshot.on(link.name, family)]
    return link.kind == "veth" and all(address_.scope == "link" for address_ in held)

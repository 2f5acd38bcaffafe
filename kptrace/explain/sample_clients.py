"""Who sends to a Service, by example: a pod of the node, the node itself, somebody outside. Pure.

In: what ``--from`` named, if anything, the API's documents and the node's snapshot. Out: Origins,
one for each kind of sender. The pod is one that the API knows on this node and that is no backend,
else a free address of the node's pod range; outside are addresses kept for documentation, and one
of each source range that a load balancer limits itself to. What is not known is said to be unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kptrace.kube.objects.cluster_state import ClusterState
from kptrace.model import ClientKind, Service, SourceSpec, Value
from kptrace.model.addresses import Network, address, network
from kptrace.model.errors import NotFoundError
from kptrace.model.family import Family
from kptrace.rules.kubeproxy.expected_endpoints import in_family
from kptrace.simulate.single_node import UNKNOWN_DEVICE, IngressInterface, ingress_interface
from kptrace.simulate.snapshot.snapshot import Snapshot

# kept for documentation: TEST-NET-3 (RFC 5737) and RFC 3849
OUTSIDE = {"ip": "203.0.113.7", "ip6": "2001:db8::7"}


class SampleClient(Value):
    """``arrival`` is None for the node itself; an empty ``source`` is not known or the kernel's
    choice.
    """

    sender: ClientKind
    source: str = ""
    arrival: IngressInterface | None = None


class SampleClients(Value):
    """The senders of one node to one Service."""

    node: str
    service: Service
    documents: ClusterState
    snapshot: Snapshot
    asked: SourceSpec | None = None

    def of(self, family: Family) -> Iterator[SampleClient]:
        if self.asked is None or self.asked.kind == "pod":
            yield self._coming("pod", self._pod(family))
        if self.asked is None or self.asked.kind == "node":
            yield SampleClient(sender="node")
        if self.asked is None or self.asked.kind == "outside":
            yield from (self._coming("outside", text) for text in self._outside(family))

    def _coming(self, sender: ClientKind, source: str) -> SampleClient:
        found = ingress_interface(self.snapshot, source) if source else None
        return SampleClient(
            sender=sender,
            source=source,
            arrival=found or IngressInterface(interface=UNKNOWN_DEVICE),
        )

    # --- outside ------------------------------------------------------------------------------

    def _outside(self, family: Family) -> Iterable[str]:
        if self.asked is not None:
            return in_family((self.asked.address,), family)
        return (OUTSIDE[family],)

    def admitted(self, family: Family) -> Iterator[SampleClient]:
        """Senders from within the load balancer's source ranges."""
        if self.asked is None:
            for text in in_family(self.service.source_ranges, family):
                yield self._coming("outside", self._free(network(text)))
                return

    # --- pods ---------------------------------------------------------------------------------

    def _pod(self, family: Family) -> str:
        if self.asked is not None:
            return self._named(family)
        return next(self._of_the_api(family), "") or next(self._of_the_range(family), "")

    def _named(self, family: Family) -> str:
        assert self.asked is not None
        key = f"{self.asked.namespace}/{self.asked.name}"
        pod = self.documents.pod(key)
        if pod is None:
            raise NotFoundError(f"no pod {self.asked.name} in namespace {self.asked.namespace}")
        if pod.node != self.node:
            raise NotFoundError(
                f"pod {key} is on {pod.node or 'no node'}, not on {self.node}",
                f"leave out --node, or give --node {pod.node}" if pod.node else "",
            )
        return next(iter(in_family(pod.ips, family)), "")

    def _of_the_api(self, family: Family) -> Iterator[str]:
        """Those of the Service's own namespace first: policies mostly admit these."""
        own = self.service.namespace
        here = [pod for pod in self.documents.pods if pod.node == self.node]
        for pod in sorted(here, key=lambda pod: (not pod.ready, pod.namespace != own, pod.key)):
            for text in in_family(pod.ips, family):
                if not pod.host_network and text not in self._backends:
                    yield text

    def _of_the_range(self, family: Family) -> Iterator[str]:
        """The API's range, else that of a bridge of the node."""
        node = self.documents.node(self.node)
        for text in in_family(node.pod_cidrs if node else (), family):
            yield self._free(network(text))
        for route in self.snapshot.table("main", family):
            link = self.snapshot.link(route.nexthops[0].interface) if route.nexthops else None
            wide = 0 < route.destination.prefixlen < route.destination.max_prefixlen
            if link and link.kind == "bridge" and wide and not route.destination.is_link_local:
                yield self._free(route.destination)

    @property
    def _backends(self) -> set[str]:
        return {endpoint.address for endpoint in self.documents.endpoints.get(self.service.key, ())}

    def _free(self, range_: Network) -> str:
        """An address of the range that is nobody's, as far as is known: the last but one."""
        taken = self._backends | {address.address for address in self.snapshot.addresses}
        first = int(range_.network_address)
        for offset in range(range_.num_addresses - 2, max(range_.num_addresses - 1000, -1), -1):
            text = str(address(str(type(range_.network_address)(first + max(offset, 0)))))
            if text not in taken:
                return text
        return str(range_.network_address)

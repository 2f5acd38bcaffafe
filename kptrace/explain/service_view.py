"""One Service seen from one node: what its rules do at each way in, for each kind of sender. Pure.

In: the Service, the API's documents and the node's snapshot. Out: Entries, and how they differ from
what kube-proxy should have written there (diagnose/proxy_sync.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import msgspec

from kptrace.diagnose import policy_denial
from kptrace.diagnose.phrases import end
from kptrace.diagnose.policy_denial import DeniedFlow
from kptrace.explain.sample_clients import SampleClient, SampleClients
from kptrace.kube.objects.cluster_state import ClusterState
from kptrace.model import (
    AddressKind,
    CauseId,
    Endpoint,
    Finding,
    Flow,
    Netns,
    NoteKind,
    Outcome,
    Packet,
    Service,
    ServiceEntrypoint,
    ServicePort,
    SourceSpec,
    Value,
    WeightedBackend,
)
from kptrace.model.family import Family
from kptrace.rules.kubeproxy.chain_names import service_port_name
from kptrace.rules.kubeproxy.expected_endpoints import (
    ExpectedEndpoints,
    endpoints_of,
    expected_endpoints,
    in_family,
)
from kptrace.simulate.matched_rules import matched_rules
from kptrace.simulate.single_node import (
    UNKNOWN_DEVICE,
    NodeResult,
    WeightedBranch,
    routes_are_unknown,
    simulate_node,
    with_default_routes,
)
from kptrace.simulate.snapshot.proxy_mode import proxy_of
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace.simulate.topology import Topology

Where = tuple[str, int]


class ServiceAddress(Value):
    """A way in."""

    kind: AddressKind
    address: str
    port: int


class AddressResult(Value):
    """What one address does for one sender, and how often the rules hold each backend.

    cause: what ended the packets, where something did
    denials: of policies
    """

    entry: ServiceEntrypoint
    times: dict[Where, int]
    cause: str = ""
    denials: tuple[DeniedFlow, ...] = ()


class ServiceView:
    """One Service seen from one node. ``missing``: what was not there to be read."""

    def __init__(
        self,
        service: Service,
        source: SourceSpec | None,
        node: str,
        cluster_state: ClusterState,
        snapshot: Snapshot,
    ) -> None:
        self._service = service
        self._cluster_state = cluster_state
        self._asked = source is not None
        self._node = cluster_state.node(node)
        self._netns = Netns(node=node)
        self._endpoints = cluster_state.endpoints.get(service.key, ())
        self._snapshot = with_default_routes(snapshot, self._node.addresses if self._node else ())
        self._origins = SampleClients(
            node=node,
            service=service,
            documents=cluster_state,
            snapshot=self._snapshot,
            asked=source,
        )
        addresses = (*service.cluster_ips, *service.external_ips, *service.load_balancer_ips)
        self._topology = Topology(
            snapshots={self._netns: self._snapshot},
            endpoints=self._endpoints,
            services=frozenset(addresses),
        )
        self.missing = [f"api/{name}" for name in cluster_state.missing]

    def answers(self, port: ServicePort, family: Family) -> Iterator[AddressResult]:
        for handle in self._service_addresses(port, family):
            admitted = self._origins.admitted(family) if handle.kind == "loadBalancer" else ()
            for origin in (*self._origins.of(family), *admitted):
                yield self._answer(handle, port.protocol, origin)

    def compare(
        self, port: ServicePort, family: Family, answers: Sequence[AddressResult]
    ) -> Iterator[Finding]:
        """What policies deny; where the API was asked, how the rules differ from what it tells."""
        name = service_port_name(self._service, port)
        yield from policy_denial.findings(
            name, ((answer.entry, answer.denials) for answer in answers), self._asked
        )
        entries = tuple(answer.entry for answer in answers)
        cluster_state = self._cluster_state
        if (
            not entries
            or cluster_state.told_by
            or {"services.json", "endpointslices.json"} & {*cluster_state.missing}
        ):
            return
        from kptrace.diagnose.proxy_sync import PortCheck, differences

        times: dict[Where, int] = {}
        for result in answers:
            for where, count in result.times.items():
                times[where] = max(count, times.get(where, 0))
        expected, plain = (
            self._wanted(port, family, with_and_without_hint)
            for with_and_without_hint in self._with_and_without_hints
        )
        obeyed = not expected.topology or any(self._leads(entry, expected) for entry in entries)
        yield from differences(
            PortCheck(
                service=self._service,
                port=port,
                node=self._netns.node,
                proxy=proxy_of(self._snapshot),
                known=endpoints_of(self._endpoints, port, family),
                wanted=expected if obeyed else plain,
                ignored="" if obeyed else expected.topology,
                entries=entries,
                causes=tuple(answer.cause for answer in answers),
                times=times,
            )
        )

    @property
    def _with_and_without_hints(self) -> Iterator[tuple[Endpoint, ...]]:
        yield self._endpoints
        yield tuple(
            msgspec.structs.replace(endpoint, zones=(), nodes=()) for endpoint in self._endpoints
        )

    def _wanted(
        self, port: ServicePort, family: Family, endpoints: tuple[Endpoint, ...]
    ) -> ExpectedEndpoints:
        zone = self._node.zone if self._node else ""
        return expected_endpoints(
            self._service, port, endpoints, node=self._netns.node, zone=zone, family=family
        )

    def _leads(self, entry: ServiceEntrypoint, expected: ExpectedEndpoints) -> bool:
        """The hints are obeyed if some way in leads to just the endpoints that they leave."""
        actual = {(backend.address, backend.port) for backend in entry.backends}
        return bool(actual) and actual <= {
            (endpoint.address, endpoint.port) for endpoint in expected.cluster
        }

    # --- one address -----------------------------------------------------------------------------

    def _service_addresses(self, port: ServicePort, family: Family) -> Iterator[ServiceAddress]:
        """kube-proxy has rules for a family only if the Service has a ClusterIP of it."""
        service = self._service
        cluster = in_family(service.cluster_ips, family)
        if not cluster and (
            service.cluster_ips or "services.json" not in self._cluster_state.missing
        ):
            return
        for address in cluster:
            yield ServiceAddress(kind="clusterIP", address=address, port=port.port)
        for address in self._own_addresses(family) if port.node_port else ():
            yield ServiceAddress(kind="nodePort", address=address, port=port.node_port)
        for address in in_family(service.external_ips, family):
            yield ServiceAddress(kind="externalIP", address=address, port=port.port)
        for address in in_family(service.load_balancer_ips, family):
            yield ServiceAddress(kind="loadBalancer", address=address, port=port.port)

    def _own_addresses(self, family: Family) -> tuple[str, ...]:
        """The node's, as the API has them, else those of the device that leads outside."""
        texts = in_family(self._node.addresses if self._node else (), family)
        if texts:
            return texts
        outside = next(
            (client for client in self._origins.of(family) if client.sender == "outside"), None
        )
        device = outside.arrival.interface if outside and outside.arrival else ""
        held = self._snapshot.on(device, family)
        return tuple(
            address.address
            for address in held
            if address.scope == "global" and not address.secondary
        )

    def _answer(self, handle: ServiceAddress, protocol: str, origin: SampleClient) -> AddressResult:
        flow = Flow(protocol=protocol, src=origin.source, dst=handle.address, dport=handle.port)
        packet = Packet(flow=flow, flags="S" if protocol == "tcp" else "")
        inside = origin.sender != "outside"
        met_here = simulate_node(packet, self._netns, self._topology, origin.arrival, socket=inside)
        decided = self._astray(met_here, origin)
        self.missing += [text for text in decided.missing if text not in self.missing]
        ways = decided.ways
        denials = {way: denied for way in ways if (denied := self._denied(way))}
        entry = ServiceEntrypoint(
            kind=handle.kind,
            address=handle.address,
            port=handle.port,
            sender=origin.sender,
            outcome=_outcome(ways),
            source=_source(origin, ways),
            snat_source=self._snat_source(ways),
            backends=tuple(self._backends(ways)),
            rules=matched_rules((way.branch for way in ways), self._snapshot.ruleset),
            deterministic=all(way.branch.deterministic for way in ways),
            description="; ".join(dict.fromkeys(filter(None, self._all_words(ways, denials)))),
            pod=self._sender(origin),
            denied_by="; ".join(dict.fromkeys(value.object for value in denials.values())),
        )
        causes = [way.branch.cause for way in ways if way.branch.outcome is entry.outcome]
        # a fault is not hidden by a denial that somebody intends
        causes.sort(key=lambda cause: cause == CauseId.POLICY_DROP)
        return AddressResult(
            entry=entry,
            times=_times(decided),
            cause=next(filter(None, causes), ""),
            denials=tuple(denials.values()),
        )

    def _sender(self, origin: SampleClient) -> str:
        pod = self._cluster_state.pod_at(origin.source) if origin.sender == "pod" else None
        return pod.key if pod else ""

    def _denied(self, way: WeightedBranch) -> DeniedFlow | None:
        return policy_denial.predicted_denials(
            way.branch, self._snapshot.ruleset, self._cluster_state
        )

    def _astray(self, decided: NodeResult, origin: SampleClient) -> NodeResult:
        """From outside to another node's backend with its source kept: the answer goes from there
        straight to the client, from an address that it never asked (seen in IPVS mode).
        """
        if origin.sender != "outside":
            return decided
        ways = tuple(
            self._lost(way) if self._reply_bypasses_node(way) else way for way in decided.ways
        )
        return msgspec.structs.replace(decided, ways=ways)

    def _reply_bypasses_node(self, way: WeightedBranch) -> bool:
        backend = way.branch.backend
        if way.branch.outcome is not Outcome.DELIVERED or backend is None:
            return False
        kept = all(step.action != "snat" for step in way.branch.steps)
        return kept and backend.node not in ("", self._netns.node)

    def _lost(self, way: WeightedBranch) -> WeightedBranch:
        assert way.branch.backend is not None
        text = (
            f"it reaches {way.branch.backend.address} on {way.branch.backend.node} with its source "
            "kept, so the answer does not come back through this node"
        )
        branch = msgspec.structs.replace(
            way.branch, outcome=Outcome.DROPPED, description=text, notes=()
        )
        return msgspec.structs.replace(way, branch=branch)

    def _all_words(
        self, ways: Iterable[WeightedBranch], denials: Collection[WeightedBranch]
    ) -> Iterator[str]:
        """Of a denial: for which of the backends; the policies of others are on their nodes."""
        kept, whole = list(self._backends(denials)), list(self._backends(ways))
        if kept and len(kept) < len(whole):
            names = ", ".join(end(backend.address, backend.port) for backend in kept)
            yield f"for {len(kept)} of {len(whole)} backends: {names}"
        for way in ways:
            if way not in denials:
                yield self._words(way)

    def _words(self, way: WeightedBranch) -> str:
        """Why kube-proxy itself refuses; what else ends a packet says so in its own words."""
        if way.branch.cause == "no-local-endpoints":
            return "the traffic policy is Local, and no endpoint is on this node"
        usable = any(endpoint.ready or endpoint.serving for endpoint in self._endpoints)
        if way.branch.cause == "no-endpoints" and not usable:
            silent = way.branch.notes_of(NoteKind.REJECT_NOT_SENT)
            return "; ".join(("the Service has no ready endpoint", *silent))
        return way.branch.full_description

    def _snat_source(self, ways: Iterable[WeightedBranch]) -> str:
        """The source that the backends see, where a rule changes it; ``?``: to some own address."""
        sources = dict.fromkeys(
            step.packet.flow.src
            for way in ways
            for step in way.branch.steps
            if step.action == "snat"
        )
        families = {Family.of(source) for source in sources if source}
        if any(routes_are_unknown(self._snapshot, family) for family in families):
            return UNKNOWN_DEVICE
        return ", ".join(sources)

    def _backends(self, ways: Iterable[WeightedBranch]) -> Iterator[WeightedBackend]:
        weights: dict[Where, float] = {}
        for way in ways:
            if (backend := way.branch.backend) is not None:
                where = (backend.address, backend.port)
                weights[where] = weights.get(where, 0.0) + way.branch.weight
        known = {(endpoint.address, endpoint.port): endpoint for endpoint in self._endpoints}
        for where, weight in weights.items():
            endpoint, pod = known.get(where), self._cluster_state.pod_at(where[0])
            yield WeightedBackend(
                address=where[0],
                port=where[1],
                weight=weight,
                node=(endpoint.node if endpoint else "") or (pod.node if pod else ""),
                pod=(endpoint.pod if endpoint else "") or (pod.key if pod else ""),
            )


def _outcome(ways: Iterable[WeightedBranch]) -> Outcome:
    """The likeliest of those that are no delivery, if there is one; open, if nobody can know."""
    shares: dict[Outcome, float] = {}
    for way in ways:
        outcome = way.branch.outcome
        shares[outcome] = shares.get(outcome, 0.0) + way.branch.weight
    if len(shares) == 1:
        return next(iter(shares))
    if not all(way.branch.deterministic for way in ways):
        return Outcome.INCONCLUSIVE
    shares.pop(Outcome.DELIVERED, None)
    return max(shares, key=lambda outcome: shares[outcome])


def _first(way: WeightedBranch) -> str:
    """The packet's source as it was sent: the kernel chooses that of the node's own packets."""
    for step in way.branch.steps:
        return step.packet.flow.src
    return ""


def _source(origin: SampleClient, ways: Iterable[WeightedBranch]) -> str:
    return origin.source or next(filter(None, map(_first, ways)), "")


def _times(decided: NodeResult) -> dict[Where, int]:
    times: dict[Where, int] = {}
    for way in decided.ways:
        if (endpoint := way.branch.backend) is not None:
            where = (endpoint.address, endpoint.port)
            times[where] = times.get(where, 0) + way.times
    return times

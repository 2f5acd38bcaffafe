"""The ways between pods, walked on paper: from pods of each node to one of each other node.

In: the API's documents and the nodes' Snapshots. Out: a Way for each two nodes and family, and a
Finding for each thing that ends one: a sysctl, a policy, a route, a neighbour, an FDB entry. What
the walk knows of a packet is known here of all that take the same way.

Where no API names the pods, those that the node itself knows by their addresses stand for them,
and routes for the ranges of other nodes; then a way can be seen to end, but not to arrive.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from itertools import islice

from kptrace.diagnose.policy_denial import CAUSE as POLICY
from kptrace.kube.objects.cluster_state import ClusterState
from kptrace.model import Branch, Endpoint, Finding, Flow, Netns, Outcome, Packet, PodPath, Value
from kptrace.model.family import Family
from kptrace.simulate.predict import predict
from kptrace.simulate.snapshot.network import Nexthop, Route
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace.simulate.topology import Topology

MOST_NODES = 30  # a walk takes some milliseconds
MOST_PODS = 10  # of each node, to one of each other node
UNKNOWN_PORT = 8080


class SimulatedPath(Value):
    way: PodPath
    branch: Branch


class PodEndpoint(Value):
    """An address of a pod, real or supposed, on a node. ``node`` empty: on some other one."""

    node: str
    address: str
    pod: str = ""
    port: int = UNKNOWN_PORT


def between(
    cluster_state: ClusterState, snapshots: Mapping[Netns, Snapshot]
) -> tuple[tuple[PodPath, ...], tuple[Finding, ...]]:
    nodes = [netns.node for netns in sorted(snapshots)][:MOST_NODES]
    known = tuple(_ends(cluster_state, snapshots, nodes))
    topology = Topology(
        snapshots=snapshots,
        endpoints=tuple(
            Endpoint(address=end.address, port=end.port, node=end.node, pod=end.pod)
            for end in known
            if end.node
        ),
        services=frozenset(),
    )
    ways: dict[tuple[str, str, int], PodPath] = {}
    faults: dict[tuple[str, str, str], list[SimulatedPath]] = {}
    for start, goal in _pairs(known):
        simulated_path = _walked(start, goal, topology)
        two = (start.node, goal.node or goal.address, ip_address(start.address).version)
        if two not in ways or _rank(simulated_path.way) > _rank(ways[two]):
            ways[two] = simulated_path.way
        if simulated_path.way.outcome not in (Outcome.DELIVERED, Outcome.INCONCLUSIVE):
            branch = simulated_path.branch
            faults.setdefault((branch.cause or "", _where(branch), branch.object), []).append(
                simulated_path
            )
    return tuple(ways.values()), tuple(
        _finding(*key, simulated_paths, snapshots) for key, simulated_paths in faults.items()
    )


def _rank(way: PodPath) -> int:
    """Which of several ways between the same nodes is told: one that fails; not one of a pod that
    somebody wants to be cut off.
    """
    if way.cause == POLICY:
        return 0
    return 1 if way.outcome is Outcome.DELIVERED else 2


def _pairs(known: Iterable[PodEndpoint]) -> Iterator[tuple[PodEndpoint, PodEndpoint]]:
    """Every pod of a node to the first one of each other node."""
    ends = tuple(known)
    goals: dict[tuple[str, int], PodEndpoint] = {}
    for end in ends:
        goals.setdefault((end.node or end.address, ip_address(end.address).version), end)
    for start in ends:
        for (_, family), goal in goals.items():
            if start.node not in ("", goal.node) and ip_address(start.address).version == family:
                yield start, goal


def _walked(start: PodEndpoint, goal: PodEndpoint, topology: Topology) -> SimulatedPath:
    flow = Flow(protocol="tcp", src=start.address, dst=goal.address, sport=40000, dport=goal.port)
    source = Netns(node=start.node, pod=start.pod or start.address)
    prediction = predict(Packet(flow=flow, flags="S"), source, topology)
    worst = next(
        (branch for branch in prediction.branches if branch.outcome is not Outcome.DELIVERED), None
    )
    branch = worst or prediction.branches[0]
    way = PodPath(
        source_node=start.node,
        destination_node=goal.node,
        source=start.address,
        destination=goal.address,
        outcome=branch.outcome,
        description=branch.full_description,
        cause=branch.cause or "",
    )
    return SimulatedPath(way=way, branch=branch)


def _where(branch: Branch) -> str:
    return branch.steps[-1].netns.node if branch.steps else ""


def _finding(
    id: str,
    node: str,
    blame: str,
    simulated_paths: list[SimulatedPath],
    snapshots: Mapping[Netns, Snapshot],
) -> Finding:
    way, branch = simulated_paths[0].way, simulated_paths[0].branch
    goal = way.destination_node or way.destination
    ways = list(
        dict.fromkeys(
            f"{simulated_path.way.source_node} to {simulated_path.way.destination_node or goal}"
            for simulated_path in simulated_paths
        )
    )
    shown = ", ".join(ways[:6]) + (f" and {len(ways) - 6} more" if ways[6:] else "")
    as_elsewhere = () if branch.deterministic else tuple(_other_way(way, snapshots))
    sure = branch.deterministic or bool(as_elsewhere)
    return Finding(
        cause=id or "lost-unexplained",
        severity="info" if id == POLICY else "error" if sure else "warning",
        node=node,
        object=blame,
        summary=f"packets of pods from {way.source_node} to {goal} end on {node}: "
        f"{branch.full_description}",
        evidence=(
            f"what was read there says so: {blame}",
            *as_elsewhere,
            f"walked: pods of {shown}, for one {way.source} > {way.destination}",
        ),
    )


def _other_way(way: PodPath, snapshots: Mapping[Netns, Snapshot]) -> Iterator[str]:
    """A node that has a route of its own the other way round, so here one is missing. Where no node
    has any, a router between them may know the pods (a cloud's routes).
    """
    source = ip_address(way.source)
    for netns, snapshot in sorted(snapshots.items()):
        routes = (
            snapshot.table("main", Family.of(way.source)) if netns.node != way.source_node else ()
        )
        for route in routes:
            if source in route.destination and not route.default:
                yield f"{netns.node} has a route the other way: {route.text}"
                return


# --- whose packets --------------------------------------------------------------------------------


def _ends(
    cluster_state: ClusterState, snapshots: Mapping[Netns, Snapshot], nodes: Iterable[str]
) -> Iterator[PodEndpoint]:
    for node in nodes:
        snapshot = snapshots[Netns(node=node)]
        for family in Family:
            named = tuple(islice(_named(cluster_state, node, family), MOST_PODS))
            seen = dict.fromkeys(islice(_seen(snapshot, family), MOST_PODS))
            yield from named or (PodEndpoint(node=node, address=address) for address in seen)
        if len(snapshots) == 1:
            yield from _behind(snapshot)


def _named(cluster_state: ClusterState, node: str, family: Family) -> Iterator[PodEndpoint]:
    """Ready pods first: what a pod does not yet answer is no fault of the way."""
    ports = {
        endpoint.address: endpoint.port
        for value in cluster_state.endpoints.values()
        for endpoint in value
    }
    here = [pod for pod in cluster_state.pods if pod.node == node and not pod.host_network]
    for pod in sorted(here, key=lambda pod: (not pod.ready, pod.key)):
        for text in pod.ips:
            if Family.of(text) is family:
                port = ports.get(text, 0) or UNKNOWN_PORT
                yield PodEndpoint(node=node, address=text, pod=pod.key, port=port)


def _seen(snapshot: Snapshot, family: Family) -> Iterator[str]:
    """Pods by what the node knows of its devices: an entry on a bridge, a route to one address."""
    for entry in snapshot.neighbours:
        link = snapshot.link(entry.interface)
        own = link is not None and link.kind in ("bridge", "veth")
        outward = any(hop.interface == entry.interface for hop in _default(snapshot, family))
        held = ip_address(entry.address)
        if (
            own
            and not outward
            and entry.mac
            and Family.of(entry.address) is family
            and not held.is_link_local
        ):
            yield entry.address
    for route in snapshot.table("main", family):
        link = snapshot.link(route.nexthops[0].interface) if route.nexthops else None
        if route.destination.num_addresses == 1 and link is not None and link.kind == "veth":
            yield str(route.destination.network_address)
        elif link is not None and link.kind == "bridge" and snapshot.ports(link.name):
            yield from _supposed(snapshot, route)


def _supposed(snapshot: Snapshot, route: Route) -> Iterator[str]:
    """Some address of the range that pods on a bridge have: they are all treated alike."""
    wide = route.destination.num_addresses > 4 and not route.destination.is_link_local
    if wide and route.type == "unicast" and not any(hop.gateway for hop in route.nexthops):
        yield next(
            text for n in range(2, 5) if not snapshot.holds(text := str(route.destination[n]))
        )


def _default(snapshot: Snapshot, family: Family) -> tuple[Nexthop, ...]:
    routes = [route for route in snapshot.table("main", family) if route.default]
    return tuple(hop for route in routes for hop in route.nexthops)


def _behind(snapshot: Snapshot) -> Iterator[PodEndpoint]:
    """An address of each range that a route leads to by another node."""
    for family in Family:
        for route in snapshot.table("main", family):
            if _of_another(route):
                yield PodEndpoint(node="", address=str(route.destination[2]))


def _of_another(route: Route) -> bool:
    wide = route.destination.num_addresses > 2 and not route.default
    return wide and route.type == "unicast" and any(hop.gateway for hop in route.nexthops)

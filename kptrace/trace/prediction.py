"""Where the packet may go: the prediction, and the places that have to be looked at for it. Pure
but for the agents that it asks for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from ipaddress import ip_address, ip_network

from kptrace.kube.objects.cluster_state import ClusterState
from kptrace.model import Flow, Netns, Packet, Prediction, Resolution, Source
from kptrace.plugins.registry import read_netns
from kptrace.simulate.predict import predict
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace.simulate.topology import Topology
from kptrace.trace.agent_session import AgentSession, unique

# More nodes than this are not looked at for one trace; what is beyond is reported as unseen.
ROOT = 0
MOST_NODES = 8
MOST_BACKEND_PODS = 16


def flow_of(source: Source, resolution: Resolution, cluster_state: ClusterState) -> Flow:
    """The probe's 5-tuple as the sender sees it. From a node the kernel chooses the address."""
    pod = cluster_state.pod(source.netns.pod)
    family = ip_address(resolution.address).version
    own = [a for a in (pod.ips if pod else ()) if ip_address(a).version == family]
    return Flow(
        protocol=resolution.protocol,
        src=own[0] if own else "",
        dst=resolution.address,
        dport=resolution.port,
    )


def backend_netns(
    source: Source,
    resolution: Resolution,
    cluster_state: ClusterState,
    backends: Collection[str],
    known: bool = False,
) -> tuple[Netns, ...]:
    """Every other place that the packet can reach: the backends' pods and nodes, and the node that
    the address belongs to.

    backends: addresses that the near node's own rules name; they may be such as the API does not
    know (stale ones). known: the packet goes to one of these and to no other
    """
    endpoints = [e for e in resolution.endpoints if not known or e.address in backends]
    endpoints = endpoints[:MOST_BACKEND_PODS]
    nodes = [
        *(e.node for e in endpoints),
        *(_node_of(address, cluster_state) for address in (*backends, resolution.address)),
    ]
    requested = [Netns(node=node) for node in nodes if node]
    requested += [Netns(node=e.node, pod=e.pod) for e in endpoints if e.node and e.pod]
    hosted = {pod.key for pod in cluster_state.pods if pod.host_network}
    near = (Netns(node=source.netns.node), source.netns)
    return unique(p for p in requested if p not in near and p.pod not in hosted)


def enter_netns(near: str, requested: Iterable[Netns], session: AgentSession) -> tuple[Netns, ...]:
    """Those of the places that can be looked at, on no more nodes than we look at."""
    reached: dict[str, bool] = {near: True}
    namespaces = []
    for netns in requested:
        if netns.node not in reached:
            few = len(reached) < MOST_NODES
            reached[netns.node] = few and session.agent_or_none(netns.node) is not None
        if reached[netns.node] and session.reachable_netns((netns,)):
            namespaces.append(netns)
    return tuple(namespaces)


def _node_of(address: str, cluster_state: ClusterState) -> str:
    """The node that owns an address or the pod range that it is in; empty: none does."""
    requested = ip_address(address)
    for node in cluster_state.nodes:
        if address in node.addresses or any(
            requested in ip_network(cidr, strict=False) for cidr in node.pod_cidrs
        ):
            return node.name
    return ""


def predicted_for(
    source: Source,
    resolution: Resolution,
    cluster_state: ClusterState,
    snapshots: Mapping[Netns, Snapshot],
) -> Prediction:
    if not resolution.address:
        return Prediction()
    flow = flow_of(source, resolution, cluster_state)
    packet = Packet(flow=flow, flags="S" if flow.protocol == "tcp" else "")
    return predict(packet, source.netns, _world(cluster_state, snapshots))


def _world(cluster_state: ClusterState, snapshots: Mapping[Netns, Snapshot]) -> Topology:
    services = cluster_state.services
    known = (
        None
        if "services.json" in cluster_state.missing
        else frozenset(
            address
            for service in services
            for address in (
                *service.cluster_ips,
                *service.external_ips,
                *service.load_balancer_ips,
            )
        )
    )
    return Topology(
        sender=ROOT,  # an agent opens the probe's socket as root
        snapshots=snapshots,
        endpoints=tuple(e for behind in cluster_state.endpoints.values() for e in behind),
        services=known,
        service_ranges=cluster_state.service_cidrs
        if "services.json" in cluster_state.partial
        else (),
        node_ports=frozenset(p.node_port for s in services for p in s.ports if p.node_port),
    )


def snapshots_of(texts: Mapping[Netns, Mapping[str, str]]) -> dict[Netns, Snapshot]:
    """A node's with what its programs do, where a plugin knows them."""
    return {netns: read_netns(netns, files) for netns, files in texts.items()}

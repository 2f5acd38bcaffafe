"""The API's documents as a node tells them itself: for where no API server is asked. Pure.

In: the node's Snapshot and the pods that were found on it. Out: the documents, by file name, in the
API's own form, so that whoever reads them need not know where they come from; a note in each object
says it. Services and ports are those that the proxy's rules name
(rules/kubeproxy/services_in_rules.py); endpoints are the addresses that the rules send to. What no
rule tells (a selector, who is ready, pods of other nodes) is not there, and ``partial.json`` says
that these are no whole lists.

A node behind the wire is called by the address that its packets are sent to: the tunnel's far end,
or the gateway of the route.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import Any

from kptrace.explain.explain import explain, services_told
from kptrace.kube.objects.cluster_state import FILES, PARTIAL, SERVICE_NAME, TOLD_BY, ClusterState
from kptrace.model import Flow, Pod, Service, ServicePort, SourceSpec, Target
from kptrace.model.family import Family
from kptrace.rules.kubeproxy.services_in_rules import services_of
from kptrace.simulate.ip.routing import RouteQuery, lookup
from kptrace.simulate.snapshot.network import Link
from kptrace.simulate.snapshot.snapshot import Snapshot

NOTE = {"kptrace.io/told-by": "this node's own rules, routes and devices; no API server was asked"}
_NO_API = ClusterState(missing=FILES)

Tree = dict[str, Any]


def own_documents(snapshot: Snapshot, target: Target, pods: Iterable[Pod]) -> dict[str, str]:
    known = tuple(pods)
    services = _services(snapshot, target)
    slices = [item for service in services for item in _slices(service, snapshot, known)]
    lists = {
        "services.json": [_service(service) for service in services],
        "endpointslices.json": slices,
        "pods.json": [_pod(pod, snapshot.netns.node) for pod in known],
        "nodes.json": [_node(snapshot)],
    }
    texts = {name: json.dumps({"kind": "List", "items": items}) for name, items in lists.items()}
    told_by = {
        "by": f"the rules of {snapshot.netns.node} itself",
        "why": "not asked: Services and endpoints are as the node's own rules have them",
        "hint": "leave out --offline, or compare by hand: kubectl get endpointslices",
    }
    return {**texts, PARTIAL: json.dumps(sorted(lists)), TOLD_BY: json.dumps(told_by)}


def _services(snapshot: Snapshot, target: Target) -> tuple[Service, ...]:
    """Only the one that is asked for; all where that is not known by its name, for its like."""
    if target.kind == "service":
        return services_told(target, snapshot)
    if target.kind != "address":
        return ()
    requested = str(ip_address(target.name))
    own = snapshot.holds(requested) is not None  # then a node port may be meant
    return tuple(
        service
        for service in services_of(snapshot.ruleset)
        if requested in _addresses(service)
        or (own and any(port.node_port for port in service.ports))
    )


def _addresses(service: Service) -> tuple[str, ...]:
    return (*service.cluster_ips, *service.external_ips, *service.load_balancer_ips)


# --- objects --------------------------------------------------------------------------------------


def _metadata(namespace: str, name: str, **labels: str) -> Tree:
    return {"name": name, "namespace": namespace, "annotations": NOTE, "labels": labels}


def _service(service: Service) -> Tree:
    return {
        "kind": "Service",
        "metadata": _metadata(service.namespace, service.name),
        "spec": {
            "type": service.type,
            "clusterIP": service.cluster_ips[0] if service.cluster_ips else "",
            "clusterIPs": list(service.cluster_ips),
            "externalIPs": list(service.external_ips),
            "ports": [_port(port) for port in service.ports],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": ip} for ip in service.load_balancer_ips]}},
    }


def _port(port: ServicePort) -> Tree:
    return {
        "name": port.name,
        "protocol": port.protocol.upper(),
        "port": port.port,
        **({"nodePort": port.node_port} if port.node_port else {}),
    }


def _slices(service: Service, snapshot: Snapshot, pods: tuple[Pod, ...]) -> Iterator[Tree]:
    """One for each port of the Service and each port that it is sent on to."""
    target = Target(
        kind="service", text=service.key, name=service.name, namespace=service.namespace
    )
    here = snapshot.netns.node
    own = SourceSpec(kind="node", text=here, name=here)
    explanation = explain(target, own, here, _NO_API, snapshot)
    ports = {(port.name, port.protocol): port for port in service.ports}
    for explained in explanation.ports:
        behind: dict[tuple[str, int], dict[str, None]] = {}
        for entry in explained.entries:
            for backend in entry.backends:
                family = "IPv6" if ":" in backend.address else "IPv4"
                behind.setdefault((family, backend.port), {})[backend.address] = None
        port = ports[explained.name, explained.protocol]
        for number, ((family, at), addresses) in enumerate(behind.items()):
            yield {
                "kind": "EndpointSlice",
                "metadata": _metadata(
                    service.namespace,
                    f"{service.name}-{port.name or port.port}-{number}",
                    **{SERVICE_NAME: service.name},
                ),
                "addressType": family,
                "ports": [{"name": port.name, "port": at, "protocol": port.protocol.upper()}],
                "endpoints": [_endpoint(text, snapshot, pods) for text in addresses],
            }


def _endpoint(address: str, snapshot: Snapshot, pods: tuple[Pod, ...]) -> Tree:
    pod = next((pod for pod in pods if address in pod.ips), None)
    if pod is not None:
        ref = {"kind": "Pod", "namespace": pod.namespace, "name": pod.name}
        return {"addresses": [address], "nodeName": snapshot.netns.node, "targetRef": ref}
    return {"addresses": [address], "nodeName": node_behind(snapshot, address)}


def _pod(pod: Pod, node: str) -> Tree:
    return {
        "kind": "Pod",
        "metadata": _metadata(pod.namespace, pod.name),
        "spec": {"nodeName": node},
        "status": {
            "phase": "Running",
            "podIPs": [{"ip": text} for text in pod.ips],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def _node(snapshot: Snapshot) -> Tree:
    """Its addresses are those of the device that leads outside."""
    routes = [
        route for family in Family for route in snapshot.table("main", family) if route.default
    ]
    outside = {hop.interface for route in routes for hop in route.nexthops}
    held = [
        address.address
        for address in snapshot.addresses
        if address.interface in outside and address.scope == "global"
    ]
    return {
        "kind": "Node",
        "metadata": _metadata("", snapshot.netns.node),
        "status": {"addresses": [{"type": "InternalIP", "address": text} for text in held]},
    }


# --- behind the wire ------------------------------------------------------------------------------


def node_behind(snapshot: Snapshot, address: str) -> str:
    """The node that packets for this address are sent to, by its address; this one's name where it
    has it itself or on a device of its own; empty: not known.
    """
    result = lookup(snapshot, RouteQuery(flow=Flow(protocol="", src="", dst=address)))
    if result.local:
        return snapshot.netns.node
    hop = result.nexthops[0] if result.nexthops else None
    link = snapshot.link(hop.interface) if hop else None
    if hop is None or link is None:
        return ""
    if link.tunnel:
        return _far_end(snapshot, link, hop.gateway or address, address)
    if hop.gateway:
        return "" if result.route is not None and result.route.default else hop.gateway
    return snapshot.netns.node if link.kind in ("bridge", "veth") else ""


def _far_end(snapshot: Snapshot, link: Link, gateway: str, address: str) -> str:
    if link.ipip is not None:
        return link.ipip.remote or gateway
    for item in (link.geneve, link.gre):
        if item is not None:
            return item.remote
    if link.kind == "wireguard":
        peer = link.wireguard.peer_of(address) if link.wireguard else None
        return peer.endpoint[0] if peer and peer.endpoint else ""
    entry = snapshot.neighbour(link.name, gateway)
    ends = snapshot.tunnel_entries(link.name, entry.mac) if entry and entry.mac else ()
    return ends[0].destination if ends else ""

"""The lab as the API would give it: the plan in, ordinary Kubernetes objects out; pure.

Out: one ``List`` a file, as ``kubectl get -o json`` prints it, so that the code which reads a
cluster or a bundle reads the lab. EndpointSlices are what the EndpointSlice controller makes of a
Service's selector: one for each address family, also where nothing is selected (``endpoints:
null``), with the ports of the pods. Nodes carry Flannel's annotations, from which a tool learns
which VTEP and which public address belong together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from kptrace.lab import workloads
from kptrace.lab.address_plan import UNDERLAY_PREFIX, VXLAN_ID, NodePlan, Plan, PodPlan, cluster_ips
from kptrace.lab.dataplane.calico.network import TUNNELLED

Object = dict[str, Any]

FLANNEL = "flannel.alpha.coreos.com"
CALICO = "projectcalico.org"
CILIUM = "network.cilium.io"
CONTROLLER = "endpointslice-controller.k8s.io"
AFFINITY_SECONDS = 10800


def documents(plan: Plan) -> dict[str, str]:
    """File name -> text, for the ``api`` folder."""
    return {
        "namespaces.json": as_list(
            [namespace(name) for name in ("default", *workloads.NAMESPACES)]
        ),
        "nodes.json": as_list([node(plan, one) for one in plan.nodes]),
        "pods.json": as_list([pod(plan, one) for one in plan.pods]),
        "services.json": as_list([service(one) for one in workloads.SERVICES]),
        "endpointslices.json": endpointslices(plan),
    }


def endpointslices(plan: Plan, without: Iterable[str] = ()) -> str:
    """``endpointslices.json``; the Services named in ``without`` select no pod."""
    unselected = frozenset(without)
    return as_list(
        [
            endpointslice(plan, one, index, () if one.key in unselected else plan.backends(one))
            for one in workloads.SERVICES
            for index, _ in enumerate(one.families)
        ]
    )


def as_list(items: list[Object]) -> str:
    listing = {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}}
    return json.dumps({**listing, "items": items}, indent=1) + "\n"


def namespace(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
        "status": {"phase": "Active"},
    }


def node(plan: Plan, one: NodePlan) -> Object:
    addresses = [{"type": "InternalIP", "address": address} for address in one.addresses]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": one.name,
            "labels": {
                "kubernetes.io/hostname": one.name,
                "kubernetes.io/os": "linux",
                "topology.kubernetes.io/zone": one.zone,
            },
            "annotations": network_annotations(plan, one),
        },
        "spec": {"podCIDR": one.pod_cidrs[0], "podCIDRs": list(one.pod_cidrs)},
        "status": {
            "addresses": [*addresses, {"type": "Hostname", "address": one.name}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        },
    }


def network_annotations(plan: Plan, one: NodePlan) -> dict[str, str]:
    if plan.calico:
        return calico_annotations(plan, one)
    if plan.network == "bridge":
        return {}
    return cilium_annotations(one) if plan.cilium else flannel_annotations(plan, one)


def cilium_annotations(one: NodePlan) -> dict[str, str]:
    """With ``annotateK8sNode`` (pkg/annotation)."""
    return {
        f"{CILIUM}/ipv4-cilium-host": one.gateways[0],
        f"{CILIUM}/ipv6-cilium-host": one.gateways[1],
        f"{CILIUM}/ipv4-pod-cidr": one.pod_cidrs[0],
        f"{CILIUM}/ipv6-pod-cidr": one.pod_cidrs[1],
    }


def flannel_annotations(plan: Plan, one: NodePlan) -> dict[str, str]:
    data, data6 = (
        json.dumps({"VNI": VXLAN_ID, "VtepMAC": mac}, separators=(",", ":"))
        if plan.network == "vxlan"
        else "null"
        for mac in one.vtep_macs
    )
    return {
        f"{FLANNEL}/backend-data": data,
        f"{FLANNEL}/backend-type": plan.network.removeprefix("flannel-"),
        f"{FLANNEL}/backend-v6-data": data6,
        f"{FLANNEL}/kube-subnet-manager": "true",
        f"{FLANNEL}/public-ip": one.addresses[0],
        f"{FLANNEL}/public-ipv6": one.addresses[1],
    }


def calico_annotations(plan: Plan, one: NodePlan) -> dict[str, str]:
    """As calico-node leaves them (node/pkg/lifecycle/startup, allocateip)."""
    prefix, prefix6 = UNDERLAY_PREFIX
    found = {
        f"{CALICO}/IPv4Address": f"{one.addresses[0]}/{prefix}",
        f"{CALICO}/IPv6Address": f"{one.addresses[1]}/{prefix6}",
    }
    if plan.network in TUNNELLED:
        found[f"{CALICO}/IPv4IPIPTunnelAddr"] = one.gateways[0]
    if plan.network == "calico-vxlan":
        found[f"{CALICO}/IPv4VXLANTunnelAddr"] = one.gateways[0]
        found[f"{CALICO}/VXLANTunnelMACAddr"] = one.vtep_macs[0]
    return found


def pod(plan: Plan, one: PodPlan) -> Object:
    ports = [
        {"name": port.name, "containerPort": port.port, "protocol": port.protocol.upper()}
        for port in one.listeners
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": one.name,
            "namespace": one.namespace,
            "uid": uid(f"pod/{one.key}"),
            "labels": {"app": one.app},
        },
        "spec": {
            "nodeName": one.node,
            "dnsPolicy": "ClusterFirst",
            "containers": [{"name": one.app, "image": "kptrace-lab", "ports": ports}],
        },
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "hostIP": plan.node(one.node).addresses[0],
            "podIP": one.addresses[0],
            "podIPs": [{"ip": address} for address in one.addresses],
        },
    }


def service(one: workloads.ServiceSpec) -> Object:
    ips = list(cluster_ips(one)) or ["None"]
    dual = len(one.families) == 2
    spec: Object = {
        "type": one.type,
        "clusterIP": ips[0],
        "clusterIPs": ips,
        "ipFamilies": list(one.families),
        "ipFamilyPolicy": "RequireDualStack" if dual else "SingleStack",
        "internalTrafficPolicy": one.internal_policy,
        "selector": {"app": one.app},
        "sessionAffinity": "ClientIP" if one.sticky else "None",
        "ports": [service_port(port) for port in one.ports],
    }
    if one.type == "NodePort" or one.external_ips:
        spec["externalTrafficPolicy"] = one.external_policy
    if one.external_ips:
        spec["externalIPs"] = list(one.external_ips)
    if one.sticky:
        spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": one.name,
            "namespace": one.namespace,
            "uid": uid(f"service/{one.key}"),
        },
        "spec": spec,
        "status": {"loadBalancer": {}},
    }


def service_port(port: workloads.PortSpec) -> Object:
    made: Object = {"port": port.port, "targetPort": port.target, "protocol": port.protocol}
    if port.name:
        made["name"] = port.name
    if port.node_port:
        made["nodePort"] = port.node_port
    return made


def endpointslice(
    plan: Plan, one: workloads.ServiceSpec, index: int, backends: tuple[PodPlan, ...]
) -> Object:
    """The slice of the Service's family number ``index``."""
    family = one.families[index]
    which = 1 if family == "IPv6" else 0
    named = {port.name: port for pod in backends for port in pod.listeners}
    ports = [
        {"name": port.name, "port": named[port.target].port, "protocol": port.protocol}
        for port in one.ports
        if port.target in named
    ]
    labels = {"endpointslice.kubernetes.io/managed-by": CONTROLLER}
    if one.host == 0 and one.key != workloads.DNS_SERVICE:
        labels["service.kubernetes.io/headless"] = ""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{one.name}-{uid(f'slice/{one.key}/{family}')[:5]}",
            "namespace": one.namespace,
            "labels": {**labels, "kubernetes.io/service-name": one.name},
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Service", "name": one.name, "controller": True}
            ],
        },
        "addressType": family,
        "endpoints": [endpoint(plan, pod, pod.addresses[which]) for pod in backends] or None,
        "ports": ports or None,
    }


def endpoint(plan: Plan, pod: PodPlan, address: str) -> Object:
    return {
        "addresses": [address],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "nodeName": pod.node,
        "zone": plan.node(pod.node).zone,
        "targetRef": {
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": uid(f"pod/{pod.key}"),
        },
    }


def uid(what: str) -> str:
    """A stable identity in the form of a UUID."""
    digest = hashlib.sha256(what.encode()).hexdigest()
    return "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32]))

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
        "nodes.json": as_list([node(plan, item) for item in plan.nodes]),
        "pods.json": as_list([pod(plan, item) for item in plan.pods]),
        "services.json": as_list([service(item) for item in workloads.SERVICES]),
        "endpointslices.json": endpointslices(plan),
    }


def endpointslices(plan: Plan, without: Iterable[str] = ()) -> str:
    """``endpointslices.json``; the Services named in ``without`` select no pod."""
    unselected = frozenset(without)
    return as_list(
        [
            endpointslice(plan, item, index, () if item.key in unselected else plan.backends(item))
            for item in workloads.SERVICES
            for index, _ in enumerate(item.families)
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


def node(plan: Plan, spec: NodePlan) -> Object:
    addresses = [{"type": "InternalIP", "address": address} for address in spec.addresses]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": spec.name,
            "labels": {
                "kubernetes.io/hostname": spec.name,
                "kubernetes.io/os": "linux",
                "topology.kubernetes.io/zone": spec.zone,
            },
            "annotations": network_annotations(plan, spec),
        },
        "spec": {"podCIDR": spec.pod_cidrs[0], "podCIDRs": list(spec.pod_cidrs)},
        "status": {
            "addresses": [*addresses, {"type": "Hostname", "address": spec.name}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        },
    }


def network_annotations(plan: Plan, node_plan: NodePlan) -> dict[str, str]:
    if plan.calico:
        return calico_annotations(plan, node_plan)
    if plan.network == "bridge":
        return {}
    return cilium_annotations(node_plan) if plan.cilium else flannel_annotations(plan, node_plan)


def cilium_annotations(node_plan: NodePlan) -> dict[str, str]:
    """With ``annotateK8sNode`` (pkg/annotation)."""
    return {
        f"{CILIUM}/ipv4-cilium-host": node_plan.gateways[0],
        f"{CILIUM}/ipv6-cilium-host": node_plan.gateways[1],
        f"{CILIUM}/ipv4-pod-cidr": node_plan.pod_cidrs[0],
        f"{CILIUM}/ipv6-pod-cidr": node_plan.pod_cidrs[1],
    }


def flannel_annotations(plan: Plan, node_plan: NodePlan) -> dict[str, str]:
    data, data6 = (
        json.dumps({"VNI": VXLAN_ID, "VtepMAC": mac}, separators=(",", ":"))
        if plan.network == "vxlan"
        else "null"
        for mac in node_plan.vtep_macs
    )
    return {
        f"{FLANNEL}/backend-data": data,
        f"{FLANNEL}/backend-type": plan.network.removeprefix("flannel-"),
        f"{FLANNEL}/backend-v6-data": data6,
        f"{FLANNEL}/kube-subnet-manager": "true",
        f"{FLANNEL}/public-ip": node_plan.addresses[0],
        f"{FLANNEL}/public-ipv6": node_plan.addresses[1],
    }


def calico_annotations(plan: Plan, node_plan: NodePlan) -> dict[str, str]:
    """As calico-node leaves them (node/pkg/lifecycle/startup, allocateip)."""
    prefix, prefix6 = UNDERLAY_PREFIX
    annotations = {
        f"{CALICO}/IPv4Address": f"{node_plan.addresses[0]}/{prefix}",
        f"{CALICO}/IPv6Address": f"{node_plan.addresses[1]}/{prefix6}",
    }
    if plan.network in TUNNELLED:
        annotations[f"{CALICO}/IPv4IPIPTunnelAddr"] = node_plan.gateways[0]
    if plan.network == "calico-vxlan":
        annotations[f"{CALICO}/IPv4VXLANTunnelAddr"] = node_plan.gateways[0]
        annotations[f"{CALICO}/VXLANTunnelMACAddr"] = node_plan.vtep_macs[0]
    return annotations


def pod(plan: Plan, pod_plan: PodPlan) -> Object:
    ports = [
        {"name": port.name, "containerPort": port.port, "protocol": port.protocol.upper()}
        for port in pod_plan.listeners
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_plan.name,
            "namespace": pod_plan.namespace,
            "uid": uid(f"pod/{pod_plan.key}"),
            "labels": {"app": pod_plan.app},
        },
        "spec": {
            "nodeName": pod_plan.node,
            "dnsPolicy": "ClusterFirst",
            "containers": [{"name": pod_plan.app, "image": "kptrace-lab", "ports": ports}],
        },
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "hostIP": plan.node(pod_plan.node).addresses[0],
            "podIP": pod_plan.addresses[0],
            "podIPs": [{"ip": address} for address in pod_plan.addresses],
        },
    }


def service(spec_: workloads.ServiceSpec) -> Object:
    ips = list(cluster_ips(spec_)) or ["None"]
    dual = len(spec_.families) == 2
    spec: Object = {
        "type": spec_.type,
        "clusterIP": ips[0],
        "clusterIPs": ips,
        "ipFamilies": list(spec_.families),
        "ipFamilyPolicy": "RequireDualStack" if dual else "SingleStack",
        "internalTrafficPolicy": spec_.internal_policy,
        "selector": {"app": spec_.app},
        "sessionAffinity": "ClientIP" if spec_.sticky else "None",
        "ports": [service_port(port) for port in spec_.ports],
    }
    if spec_.type == "NodePort" or spec_.external_ips:
        spec["externalTrafficPolicy"] = spec_.external_policy
    if spec_.external_ips:
        spec["externalIPs"] = list(spec_.external_ips)
    if spec_.sticky:
        spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": spec_.name,
            "namespace": spec_.namespace,
            "uid": uid(f"service/{spec_.key}"),
        },
        "spec": spec,
        "status": {"loadBalancer": {}},
    }


def service_port(port: workloads.PortSpec) -> Object:
    port_object: Object = {"port": port.port, "targetPort": port.target, "protocol": port.protocol}
    if port.name:
        port_object["name"] = port.name
    if port.node_port:
        port_object["nodePort"] = port.node_port
    return port_object


def endpointslice(
    plan: Plan, service_spec: workloads.ServiceSpec, index: int, backends: tuple[PodPlan, ...]
) -> Object:
    """The slice of the Service's family number ``index``."""
    family = service_spec.families[index]
    which = 1 if family == "IPv6" else 0
    named = {port.name: port for pod in backends for port in pod.listeners}
    ports = [
        {"name": port.name, "port": named[port.target].port, "protocol": port.protocol}
        for port in service_spec.ports
        if port.target in named
    ]
    labels = {"endpointslice.kubernetes.io/managed-by": CONTROLLER}
    if service_spec.host == 0 and service_spec.key != workloads.DNS_SERVICE:
        labels["service.kubernetes.io/headless"] = ""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service_spec.name}-{uid(f'slice/{service_spec.key}/{family}')[:5]}",
            "namespace": service_spec.namespace,
            "labels": {**labels, "kubernetes.io/service-name": service_spec.name},
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "name": service_spec.name,
                    "controller": True,
                }
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

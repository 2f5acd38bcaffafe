"""The shape of the API objects, as far as kptrace reads them; ``msgspec`` checks it.

Field names are the API's own. What Go prints as ``null`` may be ``None`` here; what a manifest may
leave out has the API server's default. Unknown fields are ignored.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec


class Object(msgspec.Struct, frozen=True, rename="camel"):
    """Anything of the API."""


class ObjectMeta(Object, frozen=True, kw_only=True):
    name: str
    namespace: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    deletion_timestamp: str | None = None


class Named(Object, frozen=True, kw_only=True):
    """An object of its own: with a kind and a name."""

    kind: str = ""
    metadata: ObjectMeta


class Header(Object, frozen=True, kw_only=True):
    kind: str = ""


T = TypeVar("T", bound=Named)


class Listing(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    kind: str = ""
    items: list[T]


class Port(Object, frozen=True, kw_only=True):
    name: str = ""
    protocol: str = "TCP"
    port: int
    target_port: int | str | None = None
    node_port: int | None = None
    app_protocol: str | None = None


class ClientIP(Object, frozen=True, kw_only=True):
    timeout_seconds: int | None = None


class AffinityConfig(Object, frozen=True, kw_only=True):
    client_ip: ClientIP | None = msgspec.field(name="clientIP", default=None)


class ServiceSpec(Object, frozen=True, kw_only=True):
    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    cluster_ips: list[str] | None = msgspec.field(name="clusterIPs", default=None)
    external_ips: list[str] | None = msgspec.field(name="externalIPs", default=None)
    external_name: str = ""
    ports: list[Port] | None = None
    selector: dict[str, str] | None = None
    session_affinity: str = "None"
    session_affinity_config: AffinityConfig | None = None
    internal_traffic_policy: str | None = None
    external_traffic_policy: str | None = None
    load_balancer_source_ranges: list[str] | None = None
    health_check_node_port: int | None = None
    traffic_distribution: str | None = None


class Ingress(Object, frozen=True, kw_only=True):
    ip: str = ""
    ip_mode: str | None = None


class LoadBalancer(Object, frozen=True, kw_only=True):
    ingress: list[Ingress] | None = None


class ServiceStatus(Object, frozen=True, kw_only=True):
    load_balancer: LoadBalancer = LoadBalancer()


class Service(Named, frozen=True, kw_only=True):
    spec: ServiceSpec
    status: ServiceStatus = ServiceStatus()


class SlicePort(Object, frozen=True, kw_only=True):
    name: str | None = None
    protocol: str | None = None
    port: int | None = None


class Conditions(Object, frozen=True, kw_only=True):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Hint(Object, frozen=True, kw_only=True):
    name: str


class Hints(Object, frozen=True, kw_only=True):
    for_zones: list[Hint] | None = None
    for_nodes: list[Hint] | None = None


class Reference(Object, frozen=True, kw_only=True):
    kind: str = ""
    name: str = ""
    namespace: str = ""


class SliceEndpoint(Object, frozen=True, kw_only=True):
    addresses: list[str]
    conditions: Conditions = Conditions()
    hints: Hints | None = None
    node_name: str | None = None
    target_ref: Reference | None = None


class EndpointSlice(Named, frozen=True, kw_only=True):
    address_type: str
    ports: list[SlicePort] | None = None
    endpoints: list[SliceEndpoint] | None = None


class Condition(Object, frozen=True, kw_only=True):
    type: str
    status: str


class ContainerPort(Object, frozen=True, kw_only=True):
    container_port: int
    name: str = ""
    protocol: str = "TCP"
    host_port: int | None = None


class Container(Object, frozen=True, kw_only=True):
    ports: list[ContainerPort] | None = None


class PodSpec(Object, frozen=True, kw_only=True):
    node_name: str = ""
    host_network: bool | None = None
    containers: list[Container] = []


class PodIP(Object, frozen=True, kw_only=True):
    ip: str = ""


class PodStatus(Object, frozen=True, kw_only=True):
    phase: str = ""
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: list[PodIP] | None = msgspec.field(name="podIPs", default=None)
    conditions: list[Condition] | None = None


class Pod(Named, frozen=True, kw_only=True):
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class NodeSpec(Object, frozen=True, kw_only=True):
    pod_cidr: str = msgspec.field(name="podCIDR", default="")
    pod_cidrs: list[str] | None = msgspec.field(name="podCIDRs", default=None)


class NodeAddress(Object, frozen=True, kw_only=True):
    type: str
    address: str


class NodeInfo(Object, frozen=True, kw_only=True):
    kubelet_version: str = ""
    kernel_version: str = ""


class NodeStatus(Object, frozen=True, kw_only=True):
    addresses: list[NodeAddress] | None = None
    conditions: list[Condition] | None = None
    node_info: NodeInfo = NodeInfo()


class Node(Named, frozen=True, kw_only=True):
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class ServiceCIDRSpec(Object, frozen=True, kw_only=True):
    cidrs: list[str] | None = None


class ServiceCIDR(Named, frozen=True, kw_only=True):
    spec: ServiceCIDRSpec = ServiceCIDRSpec()


class Requirement(Object, frozen=True, kw_only=True):
    key: str
    operator: str
    values: list[str] | None = None


class LabelSelector(Object, frozen=True, kw_only=True):
    match_labels: dict[str, str] | None = None
    match_expressions: list[Requirement] | None = None


class IPBlock(Object, frozen=True, kw_only=True):
    cidr: str
    except_: list[str] | None = msgspec.field(name="except", default=None)


class PolicyPeer(Object, frozen=True, kw_only=True):
    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IPBlock | None = None


class PolicyPort(Object, frozen=True, kw_only=True):
    protocol: str | None = None
    port: int | str | None = None
    end_port: int | None = None


class NetworkPolicyRule(Object, frozen=True, kw_only=True):
    """Of ingress (``from``) or egress (``to``)."""

    from_: list[PolicyPeer] | None = msgspec.field(name="from", default=None)
    to: list[PolicyPeer] | None = None
    ports: list[PolicyPort] | None = None


class NetworkPolicySpec(Object, frozen=True, kw_only=True):
    pod_selector: LabelSelector = LabelSelector()
    policy_types: list[str] | None = None
    ingress: list[NetworkPolicyRule] | None = None
    egress: list[NetworkPolicyRule] | None = None


class NetworkPolicy(Named, frozen=True, kw_only=True):
    spec: NetworkPolicySpec = NetworkPolicySpec()


class Namespace(Named, frozen=True, kw_only=True):
    pass

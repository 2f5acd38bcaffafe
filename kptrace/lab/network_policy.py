"""The NetworkPolicies of a Calico lab: who may talk to whom; pure.

Two are there from the start and let every Service work; two more are faults
(lab/faults/catalogue.py). Policies see a packet as it is at the pod's own veth: on its way out of
the client it is translated already, on its way into a backend it may come from a node that
masqueraded it. So whoever admits peers must admit the backends' ports, and the nodes, as people
find out in their own clusters.
"""

from __future__ import annotations

from typing import Literal

from kptrace.lab.address_plan import POD_NETWORK, SERVICE_NETWORK, UNDERLAY, UNDERLAY_PREFIX, Plan
from kptrace.lab.workloads import HTTP, METRICS
from kptrace.model import Value

Way = Literal["ingress", "egress"]
Kind = Literal["KubernetesNetworkPolicy", "NetworkPolicy"]
Net = tuple[str, str]


class LabPolicyRule(Value):
    """peer: an app, whose pods are meant, or ``*``: every pod of the namespace; empty: anybody.

    net: a network (IPv4, IPv6), either empty where the other family alone has it
    """

    action: Literal["allow", "deny", "pass"]
    peer: str = ""
    net: Net = ("", "")
    protocol: str = ""
    ports: tuple[int, ...] = ()


class Policy(Value):
    """kind: of Kubernetes (always in the tier ``default``) or of Calico; app: whom it selects."""

    kind: Kind
    namespace: str
    name: str
    app: str
    way: Way
    rules: tuple[LabPolicyRule, ...] = ()
    tier: str = "default"


REMOTE_CLOSED = Policy(
    kind="KubernetesNetworkPolicy",
    namespace="shop",
    name="remote-closed",
    app="remote",
    way="ingress",
)
CLIENT_QUARANTINE = Policy(
    kind="NetworkPolicy",
    namespace="shop",
    name="client-quarantine",
    app="client",
    way="egress",
    tier="security",
    rules=(
        LabPolicyRule(action="deny", peer="remote", protocol="tcp"),
        LabPolicyRule(action="pass"),
    ),
)


def healthy(plan: Plan) -> tuple[Policy, ...]:
    """Every Service works with these."""
    ports = (HTTP.port, METRICS.port)
    nodes = [UNDERLAY_NETWORK, *((f"{node.gateways[0]}/32", "") for node in plan.nodes)]
    admitted = [LabPolicyRule(action="allow", peer="*", protocol="tcp", ports=ports)]
    admitted += [
        LabPolicyRule(action="allow", net=net, protocol="tcp", ports=ports) for net in nodes
    ]
    inside = (POD_NETWORK, SERVICE_NETWORK, UNDERLAY_NETWORK)
    return (
        Policy(
            kind="KubernetesNetworkPolicy",
            namespace="shop",
            name="web-from-shop",
            app="web",
            way="ingress",
            rules=tuple(admitted),
        ),
        Policy(
            kind="KubernetesNetworkPolicy",
            namespace="shop",
            name="client-to-cluster",
            app="client",
            way="egress",
            rules=tuple(LabPolicyRule(action="allow", net=net) for net in inside),
        ),
    )


# also the second one, of calico-crosssubnet
UNDERLAY_NETWORK = ("172.30.0.0/16", f"{UNDERLAY[1].removesuffix('1')}/{UNDERLAY_PREFIX[1]}")

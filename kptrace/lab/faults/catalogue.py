"""The faults that can be put into a lab: one table.

A fault's name is the cause id that a trace should come to, unless it says which. Each shows on one
Service from the pod ``client`` on node-a.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kptrace.lab.address_plan import (
    EVERY_NETWORK,
    EVERY_PROXY,
    PROXIES,
    Network,
    Plan,
    Proxy,
)
from kptrace.lab.faults.actions import (
    ClosedPort,
    Fdb,
    FirstRule,
    ForwardPolicy,
    Route,
    ServerWeight,
    ServiceAddress,
    StaleProxyView,
    StrictReversePath,
    Sysctl,
    TunnelDown,
    TunnelPortBlocked,
)
from kptrace.lab.faults.policy_actions import DenyPolicy
from kptrace.lab.load_rules import ProxyView
from kptrace.lab.network_policy import CLIENT_QUARANTINE, REMOTE_CLOSED
from kptrace.lab.workloads import HTTP
from kptrace.model import Value

REMOTE = "shop/remote"
DEAD_POD = "10.244.2.99"
DEAD_NODE = "172.30.0.99"
TUNNELLED: tuple[Network, ...] = ("vxlan", "calico-vxlan", "cilium-vxlan")
CILIUM: tuple[Network, ...] = ("cilium-vxlan", "cilium-direct")
BRIDGED: tuple[Network, ...] = ("vxlan", "host-gw", "flannel-ipip", "bridge")
IPIP: tuple[Network, ...] = ("flannel-ipip", "calico-ipip")
CALICO: tuple[Network, ...] = (
    "calico-ipip",
    "calico-crosssubnet",
    "calico-vxlan",
    "calico-direct",
)
IPVS: tuple[Proxy, ...] = ("ipvs",)


class Fault(Value):
    """node: whose state is changed; object: what of it, as a finding would name it.

    cause: the cause id that a trace should come to; empty: the name
    touches: the thing that no other fault may have touched
    proxies, networks: of the labs that can have it
    emptied: the Service whose EndpointSlices lose their endpoints
    """

    name: str
    words: str
    node: str
    object: str
    touches: str
    damage: Any
    service: str = REMOTE
    networks: tuple[Network, ...] = EVERY_NETWORK
    proxies: tuple[Proxy, ...] = EVERY_PROXY
    emptied: str = ""
    cause: str = ""

    def possible(self, plan: Plan) -> bool:
        return plan.network in self.networks and plan.proxy in self.proxies

    @property
    def target(self) -> str:
        return f"svc/{self.service.partition('/')[2]}"

    @property
    def namespace(self) -> str:
        return self.service.partition("/")[0]


def _without_service(view: ProxyView) -> ProxyView:
    kept = tuple(service for service in view.services if service.key != REMOTE)
    return msgspec.structs.replace(view, services=kept)


def _with_dead_endpoint(view: ProxyView) -> ProxyView:
    stale = tuple(
        msgspec.structs.replace(endpoint, address=DEAD_POD) for endpoint in view.endpoints[REMOTE]
    )
    return msgspec.structs.replace(view, endpoints={**view.endpoints, REMOTE: stale})


def _without_endpoints(view: ProxyView) -> ProxyView:
    return msgspec.structs.replace(view, endpoints={**view.endpoints, REMOTE: ()})


FAULTS = (
    Fault(
        name="proxy-rules-missing",
        words="kube-proxy on node-a has no rules for it",
        node="node-a",
        object=REMOTE,
        touches=f"the rules of {REMOTE}",
        damage=StaleProxyView(believe=_without_service),
    ),
    Fault(
        name="stale-dnat",
        words="rules on node-a send it to a pod that is gone",
        node="node-a",
        object=f"{REMOTE} -> {DEAD_POD}:{HTTP.port}",
        touches=f"the rules of {REMOTE}",
        damage=StaleProxyView(believe=_with_dead_endpoint),
    ),
    Fault(
        name="no-endpoints",
        words="no pod is behind the Service any more",
        node="node-a",
        object=REMOTE,
        touches=f"the rules of {REMOTE}",
        damage=StaleProxyView(believe=_without_endpoints, everywhere=True),
        emptied=REMOTE,
    ),
    Fault(
        name="forward-policy-drop",
        words="FORWARD on node-a drops and nobody accepts pods",
        node="node-a",
        object="filter FORWARD policy",
        touches="filter FORWARD of node-a",
        damage=ForwardPolicy(policy="DROP"),
        networks=(*BRIDGED, *CILIUM),
        # under IPVS only answers are forwarded here, and kube-proxy accepts those
        proxies=(*PROXIES, "cilium"),
    ),
    Fault(
        name="bridge-nf-off",
        words="bridged packets on node-a see no rules",
        node="node-a",
        object="net.bridge.bridge-nf-call-iptables",
        touches="net.bridge.bridge-nf-call-iptables of node-a",
        damage=Sysctl(name="net.bridge.bridge-nf-call-iptables", value="0"),
        service="shop/near",
        networks=BRIDGED,
    ),
    Fault(
        name="tunnel-port-blocked",
        words="a firewall on node-b drops VXLAN packets",
        node="node-b",
        object="filter INPUT, the tunnel's UDP port",
        touches="filter INPUT of node-b",
        damage=TunnelPortBlocked(),
        networks=TUNNELLED,
    ),
    Fault(
        name="ip-forward-off",
        words="node-a does not forward IPv4",
        node="node-a",
        object="net.ipv4.ip_forward",
        touches="net.ipv4.ip_forward of node-a",
        damage=Sysctl(name="net.ipv4.ip_forward", value="0"),
    ),
    Fault(
        name="fdb-stale",
        words="node-a tunnels to an address that is gone",
        node="node-a",
        object="FDB entry of node-b",
        touches="the FDB entry of node-b on node-a",
        damage=Fdb(to="node-b", dst=DEAD_NODE),
        networks=TUNNELLED,
    ),
    Fault(
        name="fdb-missing",
        words="node-a does not know where the tunnel ends",
        node="node-a",
        object="FDB entry of node-b",
        touches="the FDB entry of node-b on node-a",
        damage=Fdb(to="node-b"),
        networks=TUNNELLED,
    ),
    Fault(
        name="pod-route-missing",
        words="node-a has no route to the pods of node-b",
        node="node-a",
        object="route 10.244.2.0/24",
        touches="the route to node-b's pods on node-a",
        damage=Route(to="node-b"),
    ),
    Fault(
        name="no-listener",
        words="the pod runs, but nothing listens on its port",
        node="node-b",
        object=f"shop/remote-1 port {HTTP.port}",
        touches="the port of shop/remote-1",
        damage=ClosedPort(pod="shop/remote-1", listener=HTTP),
    ),
    Fault(
        name="ipvs-weight-zero",
        words="IPVS gives its servers no new connections",
        node="node-a",
        object="IPVS 10.96.1.2:80",
        touches=f"the rules of {REMOTE}",
        damage=ServerWeight(service="10.96.1.2:80", weight=0),
        proxies=IPVS,
    ),
    Fault(
        name="ipvs-no-server",
        words="IPVS on node-a has no server for it",
        node="node-a",
        object="IPVS 10.96.1.2:80",
        touches=f"the rules of {REMOTE}",
        damage=StaleProxyView(believe=_without_endpoints),
        proxies=IPVS,
    ),
    Fault(
        name="ipvs-address-missing",
        words="its address is not on kube-ipvs0 of node-a",
        node="node-a",
        object="kube-ipvs0 10.96.1.2",
        touches=f"the rules of {REMOTE}",
        damage=ServiceAddress(address="10.96.1.2"),
        proxies=IPVS,
    ),
    Fault(
        name="ipip-blocked",
        words="a firewall on node-b drops IP in IP packets",
        node="node-b",
        object="filter INPUT -p ipencap -j DROP",
        touches="filter INPUT of node-b",
        damage=FirstRule(chain="INPUT", rule=("-p", "ipencap", "-j", "DROP")),
        networks=IPIP,
        cause="tunnel-port-blocked",
    ),
    Fault(
        name="tunnel-down",
        words="the tunnel device of node-b is down",
        node="node-b",
        object="the tunnel device",
        touches="the tunnel device of node-b",
        damage=TunnelDown(),
        networks=IPIP,
        cause="link-down",
    ),
    Fault(
        name="policy-deny-ingress",
        words="a NetworkPolicy on its pod admits nobody",
        node="node-b",
        object="NetworkPolicy shop/remote-closed",
        touches="the policies of shop/remote-1",
        damage=DenyPolicy(policy=REMOTE_CLOSED),
        networks=CALICO,
        cause="policy-drop",
    ),
    Fault(
        name="policy-deny-egress",
        words="a NetworkPolicy keeps the client from it",
        node="node-a",
        object="NetworkPolicy shop/client-quarantine",
        touches="the policies of shop/client",
        damage=DenyPolicy(policy=CLIENT_QUARANTINE),
        networks=CALICO,
        cause="policy-drop",
    ),
    Fault(
        name="rp-filter",
        words="node-b expects the client's packets elsewhere",
        node="node-b",
        object="rp_filter",
        touches="the way from node-b to shop/client",
        damage=StrictReversePath(key="shop/client"),
        # there the client comes as its node
        networks=tuple(one for one in EVERY_NETWORK if one != "bridge"),
    ),
)

# ruff: noqa: E501
"""A small cluster, made by hand: two nodes with Flannel's VXLAN, three pods, kube-proxy's rules.

client (10.244.1.10) and near (10.244.1.31) are on node-a, far (10.244.2.21) on node-b. The Service
10.96.0.50:80 has near and far behind it, 10.96.0.51:80 the client itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import pytest

from kptrace.model import CauseId, Endpoint, Flow, Netns, Outcome, Packet, Prediction
from kptrace.model.addresses import network
from kptrace.model.family import Family
from kptrace.rules.load import load_ruleset
from kptrace.simulate.predict import predict
from kptrace.simulate.snapshot.network import (
    FdbEntry,
    InterfaceAddress,
    Link,
    Neighbour,
    Nexthop,
    Route,
    Vxlan,
)
from kptrace.simulate.snapshot.snapshot import DEFAULT_RULES, Snapshot
from kptrace.simulate.topology import Topology

CLIENT = Netns(node="node-a", pod="shop/client")
NEAR = Netns(node="node-a", pod="shop/near")
FAR = Netns(node="node-b", pod="shop/far")
PODS = {CLIENT: ("10.244.1.10", 10), NEAR: ("10.244.1.31", 11), FAR: ("10.244.2.21", 10)}
ENDPOINTS = tuple(
    Endpoint(address=PODS[place][0], port=8080, node=place.node, pod=place.pod)
    for place in (NEAR, FAR, CLIENT)
)
SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv6.conf.all.forwarding": "1",
    "net.bridge.bridge-nf-call-iptables": "1",
    "net.bridge.bridge-nf-call-ip6tables": "1",
    "net.ipv4.conf.all.rp_filter": "0",
}

RULES = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-SERVICES - [0:0]
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-SERVICES -d 10.96.0.52/32 -p tcp -m comment --comment "shop/none has no endpoints" -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable
-A KUBE-SERVICES -d 10.96.0.53/32 -p tcp -m comment --comment "shop/away has no local endpoints" -m tcp --dport 80 -j DROP
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-BOTH - [0:0]
:KUBE-SVC-SELF - [0:0]
:KUBE-SEP-NEAR - [0:0]
:KUBE-SEP-FAR - [0:0]
:KUBE-SEP-SELF - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
-A KUBE-SERVICES -d 10.96.0.50/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-BOTH
-A KUBE-SERVICES -d 10.96.0.51/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-SELF
-A KUBE-SERVICES -p tcp -m addrtype --dst-type LOCAL -m tcp --dport 30080 -j KUBE-MARK-MASQ
-A KUBE-SERVICES -p tcp -m addrtype --dst-type LOCAL -m tcp --dport 30080 -j KUBE-SVC-BOTH
-A KUBE-SVC-BOTH ! -s 10.244.0.0/16 -d 10.96.0.50/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-BOTH -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-NEAR
-A KUBE-SVC-BOTH -j KUBE-SEP-FAR
-A KUBE-SVC-SELF -j KUBE-SEP-SELF
-A KUBE-SEP-NEAR -s 10.244.1.31/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-NEAR -p tcp -m tcp -j DNAT --to-destination 10.244.1.31:8080
-A KUBE-SEP-FAR -s 10.244.2.21/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-FAR -p tcp -m tcp -j DNAT --to-destination 10.244.2.21:8080
-A KUBE-SEP-SELF -s 10.244.1.10/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-SELF -p tcp -m tcp -j DNAT --to-destination 10.244.1.10:8080
COMMIT
"""


def route(destination: str, interface: str, gateway: str = "", **fields: object) -> Route:
    text = f"{destination} {'via ' + gateway + ' ' if gateway else ''}dev {interface}"
    hop = Nexthop(interface=interface, gateway=gateway)
    return Route(destination=network(destination), nexthops=(hop,), text=text, **fields)  # type: ignore[arg-type]


def local(text: str, interface: str) -> Route:
    return route(f"{text}/32", interface, type="local", table="local", source=text, scope="host")


def node(number: int) -> Snapshot:
    other = 3 - number
    name = "node-a" if number == 1 else "node-b"
    pods = [
        Link(
            index=index,
            name=f"veth{index}",
            kind="veth",
            mac=f"fe:00:00:00:0{number}:{index}",
            master="cni0",
            peer=2,
            hairpin=True,
        )
        for place, (_, index) in PODS.items()
        if place.node == name
    ]
    own = {"eth0": f"172.30.0.1{number}", "cni0": f"10.244.{number}.1"}
    vtep = f"10.244.{number}.0"
    return Snapshot(
        netns=Netns(node=name),
        links=(
            Link(index=1, name="lo", loopback=True, mtu=65536),
            Link(index=2, name="eth0", kind="veth", mac=f"0e:00:00:00:00:0{number}", peer=90),
            Link(index=3, name="cni0", kind="bridge", mac=f"0a:00:00:00:00:0{number}", mtu=1450),
            Link(
                index=4,
                name="flannel.1",
                kind="vxlan",
                mac=f"02:00:00:00:00:0{number}",
                mtu=1450,
                vxlan=Vxlan(vni=1, port=8472, local=own["eth0"], learning=False),
            ),
            *pods,
        ),
        addresses=(
            InterfaceAddress(interface="lo", address="127.0.0.1", length=8, scope="host"),
            InterfaceAddress(interface="eth0", address=own["eth0"], length=24),
            InterfaceAddress(interface="cni0", address=own["cni0"], length=24),
            InterfaceAddress(interface="flannel.1", address=vtep, length=32),
        ),
        routes=(
            route("0.0.0.0/0", "eth0", "172.30.0.1"),
            route("172.30.0.0/24", "eth0", source=own["eth0"], scope="link"),
            route(f"10.244.{number}.0/24", "cni0", source=own["cni0"], scope="link"),
            route(f"10.244.{other}.0/24", "flannel.1", f"10.244.{other}.0", onlink=True),
            route("127.0.0.0/8", "lo", type="local", table="local", source="127.0.0.1"),
            local(own["eth0"], "eth0"),
            local(own["cni0"], "cni0"),
            local(vtep, "flannel.1"),
        ),
        policy=DEFAULT_RULES[Family.IPV4] + DEFAULT_RULES[Family.IPV6],
        neighbours=(
            Neighbour(
                interface="flannel.1",
                address=f"10.244.{other}.0",
                mac=f"02:00:00:00:00:0{other}",
                states=("PERMANENT",),
            ),
        ),
        fdb=(
            FdbEntry(
                interface="flannel.1",
                mac=f"02:00:00:00:00:0{other}",
                destination=f"172.30.0.1{other}",
                permanent=True,
            ),
        ),
        sysctls=SYSCTLS,
        ruleset=load_ruleset({"iptables-save.txt": RULES, "nft-ruleset.json": ""}),
    )


def pod(place: Netns) -> Snapshot:
    text, index = PODS[place]
    number = 1 if place.node == "node-a" else 2
    return Snapshot(
        netns=place,
        links=(
            Link(index=1, name="lo", loopback=True, mtu=65536),
            Link(
                index=2,
                name="eth0",
                kind="veth",
                mac=f"06:00:00:00:0{number}:{index}",
                mtu=1450,
                peer=index,
            ),
        ),
        addresses=(InterfaceAddress(interface="eth0", address=text, length=24),),
        routes=(
            route("0.0.0.0/0", "eth0", f"10.244.{number}.1"),
            route(f"10.244.{number}.0/24", "eth0", source=text, scope="link"),
            local(text, "eth0"),
        ),
        policy=DEFAULT_RULES[Family.IPV4] + DEFAULT_RULES[Family.IPV6],
        sysctls={},
        ruleset=load_ruleset({}),
    )


class Cluster:
    """The small cluster, and one question to it. Each change makes a new snapshot."""

    def __init__(self) -> None:
        self.a, self.b = Netns(node="node-a"), Netns(node="node-b")
        self.client, self.near, self.far = CLIENT, NEAR, FAR
        self.snapshots: dict[Netns, Snapshot] = {self.a: node(1), self.b: node(2)}
        self.snapshots |= {place: pod(place) for place in PODS}
        self.endpoints = ENDPOINTS
        self.ingress: tuple[Netns, str] | None = None

    def change(self, place: Netns, **fields: object) -> None:
        self.snapshots[place] = msgspec.structs.replace(self.snapshots[place], **fields)

    def rules(self, place: Netns, files: Mapping[str, str]) -> None:
        self.change(place, ruleset=load_ruleset(files))

    def edit(self, place: Netns, old: str, new: str) -> None:
        """Change kube-proxy's rules on a node."""
        assert old in RULES
        self.rules(place, {"iptables-save.txt": RULES.replace(old, new)})

    def sysctl(self, place: Netns, name: str, value: str) -> None:
        self.change(place, sysctls={**(self.snapshots[place].sysctls or {}), name: value})

    def link(self, place: Netns, name: str, **fields: object) -> None:
        links = tuple(
            msgspec.structs.replace(one, **fields) if one.name == name else one
            for one in self.snapshots[place].links
        )
        self.change(place, links=links)

    def drop_routes(self, place: Netns, start: str) -> None:
        kept = tuple(one for one in self.snapshots[place].routes if not one.text.startswith(start))
        assert len(kept) < len(self.snapshots[place].routes)
        self.change(place, routes=kept)

    @property
    def world(self) -> Topology:
        return Topology(snapshots=self.snapshots, endpoints=self.endpoints)

    def ask(
        self,
        dst: str,
        port: int = 80,
        source: Netns | None = CLIENT,
        src: str = "",
        protocol: str = "tcp",
    ) -> Prediction:
        flow = Flow(protocol=protocol, src=src, dst=dst, sport=40000, dport=port)
        return predict(Packet(flow=flow), source, self.world, self.ingress)

    def only(self, dst: str, port: int = 80, **fields: object) -> tuple[Outcome, CauseId | None]:
        """Outcome and cause, where every branch has the same."""
        ends = {(b.outcome, b.cause) for b in self.ask(dst, port, **fields).branches}  # type: ignore[arg-type]
        assert len(ends) == 1, ends
        return ends.pop()


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def make_route() -> Callable[..., Route]:
    return route

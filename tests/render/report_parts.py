"""What sample reports are made of: packets, rules, hops, after what real kernels told."""

from __future__ import annotations

from kptrace.model import (
    Branch,
    ConntrackEntry,
    DnsAnswer,
    Endpoint,
    EvidenceSource,
    Flow,
    Hop,
    HopAction,
    Netns,
    Outcome,
    Packet,
    ProbeResult,
    Resolution,
    RuleRef,
    Service,
    ServicePort,
    Source,
    Target,
    Trace,
    Tunnel,
)

CLIENT = Netns(node="node-a", pod="shop/client")
COOKIE = 0x5EED0001


def rule(table: str, chain: str, number: int, text: str, words: str = "") -> RuleRef:
    """As iptables-save has it, or nft where the text begins with no dash."""
    return RuleRef(
        backend="nft",
        family="ip",
        table=table,
        chain=chain,
        number=number,
        text=f"-A {chain} {text}" if text.startswith("-") else text,
        description=words,
    )


PREROUTING = rule(
    "nat",
    "PREROUTING",
    1,
    '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
    "to the Services",
)
REMOTE_VIA = (
    PREROUTING,
    rule(
        "nat",
        "KUBE-SERVICES",
        7,
        '-d 10.96.41.7/32 -p tcp -m comment --comment "shop/remote:http cluster IP" '
        "-m tcp --dport 80 -j KUBE-SVC-XIOM5B2ATQ3LLEZ4",
        "shop/remote:http cluster IP",
    ),
    rule(
        "nat",
        "KUBE-SVC-XIOM5B2ATQ3LLEZ4",
        2,
        '-m comment --comment "shop/remote:http -> 10.244.2.21:8080" -j KUBE-SEP-M7Q2ZL3WAUDYV6GF',
        "all that are left: backend 10.244.2.21:8080",
    ),
)
REMOTE_DNAT = rule(
    "nat",
    "KUBE-SEP-M7Q2ZL3WAUDYV6GF",
    2,
    '-p tcp -m comment --comment "shop/remote:http" -m tcp -j DNAT '
    "--to-destination 10.244.2.21:8080",
    "sends it to 10.244.2.21:8080",
)
FORWARD_VIA = (
    rule("filter", "FORWARD", 2, '-m comment --comment "kubernetes forwarding rules" -j X'),
    rule("filter", "FORWARD", 5, "-j FLANNEL-FWD", "to Flannel's forwarding rules"),
    rule("filter", "FLANNEL-FWD", 1, "-s 10.244.0.0/16 -j ACCEPT", "accepts it"),
)
BLOCKED = rule("filter", "INPUT", 3, "-p udp -m udp --dport 8472 -j DROP", "drops it")


# --- packets and hops -------------------------------------------------------------------------


def syn(src: str, dst: str, sport: int = 41515, dport: int = 80, **more: object) -> Packet:
    protocol = more.pop("protocol", "tcp")
    flags = more.pop("flags", "S" if protocol == "tcp" else "")
    flow = Flow(protocol=protocol, src=src, dst=dst, sport=sport, dport=dport)
    return Packet(flow=flow, flags=flags, length=60, seq=COOKIE if flags else None, **more)


def vxlan(inner: Packet, src: str = "172.30.0.11", dst: str = "172.30.0.12") -> Packet:
    outer = Flow(protocol="udp", src=src, dst=dst, sport=53211, dport=8472)
    return Packet(flow=outer, length=110, tunnel=Tunnel(kind="vxlan", vni=1), inner=inner)


def hop(where: str, interface: str, action: HopAction, packet: Packet, **more: object) -> Hop:
    """where: ``node-a`` or ``node-a shop/client``; interface: ``eth0`` or ``eth0 in``."""
    node, _, pod = where.partition(" ")
    name, _, direction = interface.partition(" ")
    fields = {"node": node, "netns": pod or "host", "interface": name, "direction": direction}
    return Hop(action=action, packet=packet, **fields, **more)


def changed(old: Packet, new: Packet) -> tuple[tuple[str, str, str], ...]:
    a, b = old.innermost.flow, new.innermost.flow
    return tuple(
        (name, str(getattr(a, name)), str(getattr(b, name)))
        for name in ("src", "sport", "dst", "dport")
        if getattr(a, name) != getattr(b, name)
    )


SENT = syn("10.244.1.10", "10.96.41.7")
SENT_ON = syn("10.244.1.10", "10.244.2.21", dport=8080)
CARRIED = vxlan(SENT_ON)


def over_the_tunnel() -> list[Hop]:
    """From the client on node-a to the uplink of node-b."""
    return [
        hop("node-a shop/client", "eth0 out", "sent", SENT, offset_us=0.0),
        hop("node-a", "vethc1a2b3c4 in", "seen", SENT, offset_us=12.0),
        hop(
            "node-a",
            "cni0 in",
            "dnat",
            SENT_ON,
            rule=REMOTE_DNAT,
            preceding_rules=REMOTE_VIA,
            description="10.96.41.7:80 => 10.244.2.21:8080",
            rewrites=changed(SENT, SENT_ON),
        ),
        hop("node-a", "cni0 in", "seen", SENT_ON, offset_us=12.0),
        hop(
            "node-a",
            "flannel.1",
            "route",
            SENT_ON,
            preceding_rules=FORWARD_VIA,
            description="10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink",
            observed=False,
        ),
        hop(
            "node-a",
            "flannel.1 out",
            "encap",
            CARRIED,
            offset_us=29.0,
            description="VXLAN 1, 172.30.0.11 > 172.30.0.12:8472",
        ),
        hop("node-a", "eth0 out", "seen", CARRIED, offset_us=36.0),
        hop("node-b", "eth0 in", "seen", CARRIED, offset_us=58.0),
    ]


def to_the_pod() -> list[Hop]:
    return [
        hop(
            "node-b",
            "flannel.1 in",
            "decap",
            SENT_ON,
            offset_us=58.0,
            description="VXLAN 1 taken off",
        ),
        hop(
            "node-b",
            "cni0",
            "route",
            SENT_ON,
            preceding_rules=FORWARD_VIA[1:],
            description="10.244.2.0/24 dev cni0 proto kernel scope link src 10.244.2.1",
            observed=False,
        ),
        hop("node-b", "cni0 out", "seen", SENT_ON, offset_us=70.0),
        hop("node-b", "veth77d0e1f2 out", "seen", SENT_ON, offset_us=74.0),
        hop("node-b shop/remote-1", "eth0 in", "delivered", SENT_ON, offset_us=84.0),
    ]


def answers(forward: list[Hop], words: str = "SYN-ACK", flags: str = "SA") -> list[Hop]:
    """The same way back, translated back where the DNAT was."""
    found: list[Hop] = []
    before: Packet | None = None
    crossings = [h for h in forward if h.observed and h.action not in ("dnat", "snat")]
    for step, one in enumerate(reversed(crossings)):
        flow = one.packet.innermost.flow.reverse
        packet = Packet(flow=flow, flags=flags, length=60, ack=COOKIE + 1)
        more = changed(before, packet) if before else ()
        turned = {"in": "out", "out": "in"}[one.direction]
        where = f"{one.node} {one.netns}" if one.netns != "host" else one.node
        at = f"{one.interface} {turned}"
        offset = 120.0 + 9 * step
        found.append(
            hop(where, at, "reply", packet, description=words, rewrites=more, offset_us=offset)
        )
        before = packet
    return found


# --- the rest of a report ---------------------------------------------------------------------


def service(name: str, address: str, port: int = 80, protocol: str = "tcp") -> Service:
    end = ServicePort(name="http", protocol=protocol, port=port, target_port="http")
    return Service(
        namespace="shop", name=name, type="ClusterIP", cluster_ips=(address,), ports=(end,)
    )


def endpoint(address: str, node: str, pod: str, port: int = 8080) -> Endpoint:
    return Endpoint(address=address, port=port, node=node, pod=f"shop/{pod}", port_name="http")


def resolution(name: str, address: str, *ends: Endpoint, **more: object) -> Resolution:
    port, protocol = more.pop("port", 80), more.pop("protocol", "tcp")
    made = service(name, address, port, protocol)
    answer = DnsAnswer(
        name=f"{name}.shop.svc.cluster.local",
        type="AAAA" if ":" in address else "A",
        server="10.96.0.10",
        status="NOERROR",
        records=(("AAAA" if ":" in address else "A", address),),
        elapsed_us=812,
    )
    return Resolution(
        address=address,
        port=port,
        protocol=protocol,
        service=made,
        service_port=made.ports[0],
        endpoints=ends,
        search=("shop.svc.cluster.local", "svc.cluster.local", "cluster.local"),
        ndots=5,
        dns=more.pop("dns", (answer,)),
    )


def layers(*nodes: str, **missing: str) -> tuple[EvidenceSource, ...]:
    return tuple(
        EvidenceSource(name=name, node=node, reports=8, unavailable=missing.get(name, ""))
        for node in nodes
        for name in ("capture", "rules", "drops", "conntrack")
    )


BOTH = layers("node-a", "node-b")
TRACKED = ConntrackEntry(
    netns=Netns(node="node-a"),
    original=SENT.flow,
    reply=SENT_ON.flow.reverse,
    status=("seen-reply", "confirmed", "dst-nat"),
    state="ESTABLISHED",
)
CONNECTED = ProbeResult(
    probe_id=COOKIE,
    flow=SENT.flow,
    result="connected",
    sent_ns=1_790_000_000_000_000_000,
    elapsed_us=410,
)


def branch(weight: float, outcome: Outcome, end: Endpoint | None, words: str = "") -> Branch:
    return Branch(weight=weight, steps=(), outcome=outcome, backend=end, description=words)


def trace(name: str, outcome: Outcome, **more: object) -> Trace:
    return Trace(
        target=more.pop(
            "target",
            Target(kind="service", text=f"svc/{name}", name=name, namespace="shop"),
        ),
        source=more.pop("source", Source(kind="pod", netns=CLIENT, address="10.244.1.10")),
        outcome=outcome,
        **more,
    )


REMOTE_1 = endpoint("10.244.2.21", "node-b", "remote-1")
REMOTE = resolution("remote", "10.96.41.7", REMOTE_1)

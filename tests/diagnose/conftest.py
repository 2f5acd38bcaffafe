"""A small cluster and a probe on its way through it, for the families of causes.

Two nodes with a bridge and a VXLAN device each; pod shop/client on a asks Service shop/web, whose
one backend is shop/web-1 on b. A test says how far the probe came and what the kernel told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pytest

from kptrace.diagnose.probe_evidence import ProbeEvidence, probe_evidence
from kptrace.kube.objects.cluster_state import ClusterState
from kptrace.model import (
    Branch,
    CapturedPacket,
    ConntrackEntry,
    DropEvent,
    Endpoint,
    Flow,
    Netns,
    Node,
    Outcome,
    Packet,
    Pod,
    Prediction,
    Probe,
    ProbeResult,
    Resolution,
    RuleTraceEvent,
    Service,
    ServicePort,
    Source,
    Target,
    TraceRequest,
    Tunnel,
)
from kptrace.protocol import Reply
from kptrace.protocol.recording import Recording
from kptrace.simulate.snapshot.snapshot import Snapshot, read_snapshot

COOKIE = 0x4000_0000
A, B = Netns(node="a"), Netns(node="b")
CLIENT, BACKEND = Netns(node="a", pod="shop/client"), Netns(node="b", pod="shop/web-1")
VIP = Flow(protocol="tcp", src="10.244.1.10", sport=40000, dst="10.96.1.1", dport=80)
DNATED = Flow(protocol="tcp", src="10.244.1.10", sport=40000, dst="10.244.2.20", dport=8080)
CARRIER = Flow(protocol="udp", src="172.30.0.11", sport=5555, dst="172.30.0.12", dport=8472)

# (place, interface, direction, 5-tuple, carried): the way as it is when nothing is wrong
WAY = (
    (CLIENT, "eth0", "out", VIP, False),
    (A, "veth1", "in", VIP, False),
    (A, "cni0", "in", DNATED, False),
    (A, "flannel.1", "out", DNATED, False),
    (A, "eth0", "out", DNATED, True),
    (B, "eth0", "in", DNATED, True),
    (B, "flannel.1", "in", DNATED, False),
    (B, "cni0", "out", DNATED, False),
    (B, "veth1", "out", DNATED, False),
    (BACKEND, "eth0", "in", DNATED, False),
)

LINKS = """[
 {"ifindex": 2, "ifname": "eth0", "flags": ["UP"], "mtu": 1500, "operstate": "UP"},
 {"ifindex": 3, "ifname": "cni0", "flags": ["UP"], "mtu": 1450, "operstate": "UP",
  "linkinfo": {"info_kind": "bridge"}},
 {"ifindex": 4, "ifname": "flannel.1", "flags": ["UP"], "mtu": 1450, "operstate": "UNKNOWN",
  "linkinfo": {"info_kind": "vxlan", "info_data": {"id": 1, "port": 8472, "learning": false}}},
 {"ifindex": 5, "ifname": "veth1", "flags": ["UP"], "mtu": 1450, "operstate": "UP",
  "master": "cni0", "linkinfo": {"info_kind": "veth"}}
]"""
POD_LINKS = '[{"ifindex": 2, "ifname": "eth0", "flags": ["UP"], "mtu": 1450}]'

FILES: dict[Netns, dict[str, str]] = {
    CLIENT: {
        "ip-link.json": POD_LINKS,
        "ip-addr.json": """[{"ifindex": 2, "ifname": "eth0", "addr_info": [
            {"family": "inet", "local": "10.244.1.10", "prefixlen": 24, "scope": "global"}]}]""",
    },
    BACKEND: {
        "ip-link.json": POD_LINKS,
        "ip-addr.json": """[{"ifindex": 2, "ifname": "eth0", "addr_info": [
            {"family": "inet", "local": "10.244.2.20", "prefixlen": 24, "scope": "global"}]}]""",
    },
    A: {
        "ip-link.json": LINKS,
        "ip-addr.json": """[{"ifindex": 2, "ifname": "eth0", "addr_info": [
            {"family": "inet", "local": "172.30.0.11", "prefixlen": 24, "scope": "global"}]}]""",
        "ip-route.json": """[{"dst": "default", "gateway": "172.30.0.1", "dev": "eth0"},
            {"dst": "10.244.2.0/24", "gateway": "10.244.2.0", "dev": "flannel.1",
             "flags": ["onlink"]}]""",
        "bridge-fdb.json": """[{"mac": "02:00:00:00:00:02", "ifname": "flannel.1",
            "dst": "172.30.0.12", "flags": ["self"], "state": "permanent"}]""",
        "sysctl.txt": "net.ipv4.ip_forward = 1\nnet.ipv4.conf.all.forwarding = 1\n"
        "net.ipv4.conf.cni0.forwarding = 1\nnet.bridge.bridge-nf-call-iptables = 1\n",
    },
    B: {
        "ip-link.json": LINKS,
        "ip-addr.json": """[{"ifindex": 2, "ifname": "eth0", "addr_info": [
            {"family": "inet", "local": "172.30.0.12", "prefixlen": 24, "scope": "global"}]}]""",
        "sysctl.txt": "net.ipv4.ip_forward = 1\n",
    },
}

ENDPOINT = Endpoint(address="10.244.2.20", port=8080, port_name="http", node="b", pod="shop/web-1")


def sighting(
    index: int,
    place: Netns,
    interface: str,
    direction: str,
    packet: Packet,
    dst_mac: str = "02:00:00:00:00:02",
) -> CapturedPacket:
    return CapturedPacket(
        netns=place,
        interface=interface,
        ifindex=2,
        direction=direction,  # type: ignore[arg-type]
        packet=packet,
        time_ns=1_000_000 + index * 10_000,
        probe_id=COOKIE,
        dst_mac=dst_mac,
    )


def syn(flow: Flow, carried: bool = False) -> Packet:
    inner = Packet(flow=flow, flags="S", seq=COOKIE, ip_id=1)
    if not carried:
        return inner
    return Packet(flow=CARRIER, ip_id=2, tunnel=Tunnel(kind="vxlan", vni=1), inner=inner)


class Builder:
    """``way``: how many of WAY's taps saw the probe; the rest is what the kernel told besides."""

    def __call__(
        self,
        way: int | Sequence[tuple[Netns, str, str, Flow, bool]],
        *,
        result: str = "timeout",
        told: Iterable[Reply] = (),
        files: Mapping[Netns, Mapping[str, str]] | None = None,
        endpoints: tuple[Endpoint, ...] = (ENDPOINT,),
        branch: Branch | None = None,
        entry: Flow | None = DNATED,
    ) -> ProbeEvidence:
        taps = WAY[:way] if isinstance(way, int) else way
        replies: list[Reply] = [
            sighting(n, place, interface, direction, syn(flow, carried))
            for n, (place, interface, direction, flow, carried) in enumerate(taps)
        ]
        replies += told
        if entry is not None:
            replies.append(
                ConntrackEntry(netns=A, original=VIP, reply=entry.reverse, state="SYN_SENT")
            )
        replies.append(
            ProbeResult(probe_id=COOKIE, flow=VIP, result=result, sent_ns=1_000_000, elapsed_us=400)  # type: ignore[arg-type]
        )
        run = Recording(
            request=TraceRequest(
                target=Target(kind="service", text="svc/web", name="web", namespace="shop")
            ),
            source=Source(kind="pod", netns=CLIENT),
            resolution=Resolution(
                address=VIP.dst,
                port=80,
                protocol="tcp",
                service=service(),
                service_port=service().ports[0],
                endpoints=endpoints,
            ),
            api={},
            probes=(Probe(probe_id=COOKIE, flow=VIP),),
            replies=tuple(replies),
        )
        branches = (branch,) if branch else ()
        return probe_evidence(
            run, documents(endpoints), self.snapshots(files or {}), Prediction(branches=branches)
        )[0]

    def snapshots(self, more: Mapping[Netns, Mapping[str, str]]) -> dict[Netns, Snapshot]:
        return {
            place: read_snapshot(place, {**files, **more.get(place, {})})
            for place, files in FILES.items()
        }

    def drop(self, node: str, reason: str, packet: Packet, interface: str = "eth0") -> DropEvent:
        return DropEvent(
            node=node,
            reason=reason,
            location="somewhere+0x1/0x2",
            time_ns=1_500_000,
            netns=Netns(node=node),
            interface=interface,
            packet=packet,
        )

    def hits(
        self, place: Netns, packet: Packet, *steps: tuple[str, str, int, str], backend: str = "nft"
    ) -> list[RuleTraceEvent]:
        """steps: (table, chain, number, verdict); number 0 is the chain's policy."""
        return [
            RuleTraceEvent(
                netns=place,
                backend=backend,  # type: ignore[arg-type]
                family="ip",
                table=table,
                chain=chain,
                number=number,
                kind="rule" if number else "policy",
                sequence=n,
                time_ns=1_100_000 + n,
                verdict=verdict if backend == "nft" else "",
                trace_id=7,
                packet=packet if n == 0 or backend == "legacy" else None,
            )
            for n, (table, chain, number, verdict) in enumerate(steps)
        ]

    def answer(
        self, place: Netns, interface: str, direction: str, flow: Flow, flags: str = "SA"
    ) -> CapturedPacket:
        packet = Packet(flow=flow, flags=flags, seq=5, ack=COOKIE + 1, ip_id=3)
        return sighting(90, place, interface, direction, packet)

    def icmp(self, place: Netns, interface: str, direction: str, src: str) -> CapturedPacket:
        flow = Flow(protocol="icmp", src=src, dst="10.244.1.10")
        packet = Packet(flow=flow, icmp=(3, 3), quoted=syn(VIP))
        return sighting(95, place, interface, direction, packet)

    def branch(self, cause: str, outcome: Outcome = Outcome.DROPPED, blame: str = "") -> Branch:
        return Branch(
            weight=1.0, steps=(), outcome=outcome, cause=cause, object=blame, description="so"
        )


def service() -> Service:
    port = ServicePort(name="http", protocol="tcp", port=80, target_port="8080")
    return Service(
        namespace="shop", name="web", type="ClusterIP", cluster_ips=("10.96.1.1",), ports=(port,)
    )


def documents(endpoints: tuple[Endpoint, ...]) -> ClusterState:
    return ClusterState(
        services=(service(),),
        endpoints={"shop/web": endpoints},
        pods=(
            Pod(namespace="shop", name="client", node="a", ips=("10.244.1.10",), ready=True),
            Pod(namespace="shop", name="web-1", node="b", ips=("10.244.2.20",), ready=True),
        ),
        nodes=(
            Node(name="a", addresses=("172.30.0.11",), pod_cidrs=("10.244.1.0/24",)),
            Node(name="b", addresses=("172.30.0.12",), pod_cidrs=("10.244.2.0/24",)),
        ),
    )


@pytest.fixture
def probe() -> Builder:
    return Builder()


@pytest.fixture
def way() -> tuple[tuple[Netns, str, str, Flow, bool], ...]:
    return WAY

"""What each family of causes concludes from the kernel's reports.

The reports are those that failures.md and real runs show for the fault; that the kernel really
sends them is the kernel tier's to prove.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kptrace.diagnose.checks import (
    backend,
    bridge,
    filter_rules,
    forwarding,
    neighbour,
    service_proxy,
    tunnel,
    underlay,
    xdp,
)
from kptrace.model import (
    Branch,
    Endpoint,
    EvidenceSource,
    Flow,
    Netns,
    Outcome,
    Packet,
    SimulatedStep,
    Tunnel,
)

A, B = Netns(node="a"), Netns(node="b")
CLIENT, BACKEND = Netns(node="a", pod="shop/client"), Netns(node="b", pod="shop/web-1")
VIP = Flow(protocol="tcp", src="10.244.1.10", sport=40000, dst="10.96.1.1", dport=80)
DNATED = Flow(protocol="tcp", src="10.244.1.10", sport=40000, dst="10.244.2.20", dport=8080)
CARRIER = Flow(protocol="udp", src="172.30.0.11", sport=5555, dst="172.30.0.12", dport=8472)
SYN = Packet(flow=DNATED, flags="S", seq=0x4000_0000)

FILTER = """*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -p tcp -j ACCEPT
-A INPUT -p udp -m udp --dport 8472 -j DROP
-A FORWARD -j KUBE-SERVICES
-A FORWARD -d 10.9.9.9/32 -j DROP
-A KUBE-SERVICES -m comment --comment "shop/web has no endpoints" -j REJECT --reject-with tcp-reset
-A KUBE-SERVICES -m comment --comment "shop/web has no local endpoints" -j DROP
COMMIT
"""
NAT = """*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SEP-X - [0:0]
-A PREROUTING -j KUBE-SEP-X
-A KUBE-SEP-X -p tcp -j DNAT --to-destination 10.244.2.99:8080
COMMIT
"""


def rules(place: Netns, text: str, backend: str = "nft") -> dict[Netns, dict[str, str]]:
    return {place: {f"iptables-{backend}-save.txt": text}}


def only(found: Any) -> Any:
    findings = tuple(found)
    assert len(findings) == 1, findings
    assert findings[0].evidence
    assert findings[0].remedy
    return findings[0]


# --- filtering --------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["nft", "legacy"])
def test_a_dropping_policy(probe: Any, source: str) -> None:
    hits = probe.hits(
        A, SYN, ("filter", "FORWARD", 1, "jump"), ("filter", "FORWARD", 0, "drop"), backend=source
    )
    case = probe(3, told=hits, files=rules(A, FILTER, source), entry=None)
    found = only(filter_rules.diagnose(case))
    assert (found.cause, found.node) == ("forward-policy-drop", "a")
    assert found.object == "filter FORWARD policy"


@pytest.mark.parametrize("source", ["nft", "legacy"])
def test_a_dropping_rule(probe: Any, source: str) -> None:
    hits = probe.hits(
        A, SYN, ("filter", "FORWARD", 1, "jump"), ("filter", "FORWARD", 2, "drop"), backend=source
    )
    found = only(filter_rules.diagnose(probe(3, told=hits, files=rules(A, FILTER, source))))
    assert (found.cause, found.object) == ("rule-drop", "filter FORWARD 2")
    assert "-d 10.9.9.9/32 -j DROP" in found.summary


def test_the_tunnel_is_blocked_where_the_carrier_met_the_rule(probe: Any) -> None:
    outer = Packet(flow=CARRIER)
    hits = probe.hits(B, outer, ("filter", "INPUT", 2, "drop"))
    found = only(filter_rules.diagnose(probe(6, told=hits, files=rules(B, FILTER))))
    assert (found.cause, found.node) == ("tunnel-port-blocked", "b")
    assert found.object == "filter INPUT 2"
    assert any("8472" in line for line in (*found.remedy, *found.evidence))


def test_another_tunnel_packet_is_not_the_carrier(probe: Any) -> None:
    other = Packet(flow=Flow(protocol="udp", src="1.1.1.1", sport=1, dst="2.2.2.2", dport=8472))
    hits = probe.hits(B, other, ("filter", "INPUT", 2, "drop"))
    assert not tuple(filter_rules.diagnose(probe(6, told=hits, files=rules(B, FILTER))))


def test_without_a_rule_trace_the_drop_report_says_less(probe: Any) -> None:
    drop = probe.drop("a", "NETFILTER_DROP", SYN, "cni0")
    found = only(filter_rules.diagnose(probe(3, told=[drop])))
    assert (found.cause, found.node) == ("rule-drop", "a")
    assert any("no rule trace" in line for line in found.evidence)


def test_a_later_packet_of_the_connection_is_not_the_probe(probe: Any) -> None:
    ack = Packet(flow=DNATED, flags="A", seq=0x4000_0001)
    hits = probe.hits(A, ack, ("filter", "FORWARD", 2, "drop"))
    assert not tuple(filter_rules.diagnose(probe(10, told=hits, files=rules(A, FILTER))))


# --- the proxy's rules ------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["nft", "legacy"])
def test_nobody_behind_the_service(probe: Any, source: str) -> None:
    vip = Packet(flow=VIP, flags="S")
    hits = probe.hits(
        A,
        vip,
        ("filter", "FORWARD", 1, "jump"),
        ("filter", "KUBE-SERVICES", 1, "drop"),
        backend=source,
    )
    told = [*hits, probe.icmp(CLIENT, "eth0", "in", "10.244.1.1")]
    case = probe(
        2, told=told, files=rules(A, FILTER, source), endpoints=(), result="refused", entry=None
    )
    found = only(service_proxy.diagnose(case))
    assert (found.cause, found.node, found.object) == ("no-endpoints", "a", "Service shop/web")


def test_nobody_local(probe: Any) -> None:
    vip = Packet(flow=VIP, flags="S")
    hits = probe.hits(
        A, vip, ("filter", "FORWARD", 1, "jump"), ("filter", "KUBE-SERVICES", 2, "drop")
    )
    case = probe(2, told=hits, files=rules(A, FILTER), entry=None)
    assert only(service_proxy.diagnose(case)).cause == "no-local-endpoints"


def test_a_backend_that_is_no_endpoint(probe: Any, way: Any) -> None:
    dead = Flow(protocol="tcp", src="10.244.1.10", sport=40000, dst="10.244.2.99", dport=8080)
    taps = (*way[:2], (A, "cni0", "in", dead, False))
    hits = probe.hits(
        A,
        Packet(flow=VIP, flags="S"),
        ("nat", "PREROUTING", 1, "jump"),
        ("nat", "KUBE-SEP-X", 1, "accept"),
    )
    found = only(service_proxy.diagnose(probe(taps, told=hits, files=rules(A, NAT), entry=dead)))
    assert (found.cause, found.node, found.object) == ("stale-dnat", "a", "nat KUBE-SEP-X 1")
    assert "10.244.2.99:8080" in found.summary
    assert any("10.244.2.20:8080" in line for line in found.evidence)


def test_a_terminating_endpoint_is_still_one(probe: Any) -> None:
    going = Endpoint(
        address="10.244.2.20", port=8080, port_name="http", ready=False, terminating=True
    )
    assert not tuple(service_proxy.diagnose(probe(10, endpoints=(going,))))


def test_nothing_translates_it(probe: Any, way: Any) -> None:
    taps = (*way[:2], (A, "cni0", "in", VIP, False), (A, "eth0", "out", VIP, False))
    found = only(service_proxy.diagnose(probe(taps, entry=VIP)))
    assert (found.cause, found.node) == ("proxy-rules-missing", "a")
    assert "10.96.1.1:80" in found.object


def test_untranslated_with_nobody_to_send_to_is_another_matter(probe: Any, way: Any) -> None:
    taps = (*way[:2], (A, "eth0", "out", VIP, False))
    assert not tuple(service_proxy.diagnose(probe(taps, entry=VIP, endpoints=())))


# --- the tunnel -------------------------------------------------------------------------------


def test_no_forwarding_entry(probe: Any) -> None:
    drop = probe.drop("a", "NO_TX_TARGET", SYN, "flannel.1")
    case = probe(4, told=[drop], files={A: {"bridge-fdb.json": "[]"}})
    found = only(tunnel.diagnose(case))
    assert (found.cause, found.node) == ("fdb-missing", "a")
    assert found.object == "FDB entry of flannel.1 for 02:00:00:00:00:02"
    assert "dst 172.30.0.12" in found.remedy[0]


STALE = """[{"mac": "02:00:00:00:00:02", "ifname": "flannel.1", "dst": "172.30.0.99",
 "flags": ["self"], "state": "permanent"}]"""


def test_a_forwarding_entry_to_no_node(probe: Any) -> None:
    case = probe(4, files={A: {"bridge-fdb.json": STALE}})
    found = only(tunnel.diagnose(case))
    assert (found.cause, found.node) == ("fdb-stale", "a")
    assert "172.30.0.99" in found.summary
    assert "02:00:00:00:00:02" in found.object


def test_a_carrier_to_no_node(probe: Any, way: Any) -> None:
    case = probe(4, files={A: {"bridge-fdb.json": STALE}})
    astray = Flow(protocol="udp", src="172.30.0.11", sport=5555, dst="172.30.0.99", dport=8472)
    packet = Packet(flow=astray, tunnel=Tunnel(kind="vxlan", vni=1), inner=SYN)
    wire = msgspec.structs.replace(
        case.journey.forward[-1], interface="eth0", packet=packet, dst_mac=""
    )
    journey = msgspec.structs.replace(case.journey, forward=(*case.journey.forward, wire))
    found = only(tunnel.diagnose(msgspec.structs.replace(case, journey=journey)))
    assert (found.cause, found.node) == ("fdb-stale", "a")


def test_a_carrier_to_the_right_node_is_no_fault_of_the_tunnel(probe: Any) -> None:
    assert not tuple(tunnel.diagnose(probe(5)))


# --- forwarding -------------------------------------------------------------------------------

OFF = "net.ipv4.ip_forward = 0\nnet.ipv4.conf.all.forwarding = 0\nnet.ipv4.conf.cni0.forwarding = 0"
OFF_HERE = "net.ipv4.ip_forward = 1\nnet.ipv4.conf.cni0.forwarding = 0"


@pytest.mark.parametrize(
    ("sysctls", "name"),
    [(OFF, "net.ipv4.ip_forward"), (OFF_HERE, "net.ipv4.conf.cni0.forwarding")],
)
def test_forwarding_is_off(probe: Any, sysctls: str, name: str) -> None:
    drop = probe.drop("a", "IP_INADDRERRORS", SYN, "cni0")
    case = probe(3, told=[drop], files={A: {"sysctl.txt": sysctls}}, entry=None)
    found = only(forwarding.diagnose(case))
    assert (found.cause, found.node, found.object) == ("ip-forward-off", "a", name)


def test_forwarding_off_where_the_packet_went_on_is_not_the_cause(probe: Any) -> None:
    case = probe(4, files={A: {"sysctl.txt": OFF}})
    assert not tuple(forwarding.diagnose(case))


def test_no_route_to_the_other_nodes_pods(probe: Any, way: Any) -> None:
    taps = (*way[:3], (A, "eth0", "out", DNATED, False))
    routes = '[{"dst": "default", "gateway": "172.30.0.1", "dev": "eth0"}]'
    found = only(forwarding.diagnose(probe(taps, files={A: {"ip-route.json": routes}})))
    assert (found.cause, found.node, found.object) == (
        "pod-route-missing",
        "a",
        "route to 10.244.2.0/24",
    )


@pytest.mark.parametrize(
    ("reason", "cause", "family"),
    [("NEIGH_FAILED", "neighbour-failed", neighbour), ("PKT_TOO_BIG", "mtu-exceeded", forwarding)],
)
def test_what_the_kernel_names_itself(probe: Any, reason: str, cause: str, family: Any) -> None:
    drop = probe.drop("b", reason, SYN, "cni0")
    found = only(family.diagnose(probe(7, told=[drop])))
    assert (found.cause, found.node) == (cause, "b")


# --- bridge and backend -----------------------------------------------------------------------


def test_an_answer_that_nobody_translated_back(probe: Any) -> None:
    stray = probe.answer(CLIENT, "eth0", "in", DNATED.reverse)
    off = {A: {"sysctl.txt": "net.bridge.bridge-nf-call-iptables = 0\n"}}
    found = only(bridge.diagnose(probe(10, told=[stray], files=off)))
    assert (found.cause, found.node) == ("bridge-nf-off", "a")
    assert found.object == "net.bridge.bridge-nf-call-iptables"


def test_with_the_sysctl_on_it_is_something_else(probe: Any) -> None:
    stray = probe.answer(CLIENT, "eth0", "in", DNATED.reverse)
    assert not tuple(bridge.diagnose(probe(10, told=[stray])))


def test_the_backend_says_no(probe: Any) -> None:
    reset = probe.answer(BACKEND, "eth0", "out", DNATED.reverse, "RA")
    found = only(backend.diagnose(probe(10, told=[reset], result="refused")))
    assert (found.cause, found.node) == ("no-listener", "b")
    assert found.object == "pod shop/web-1 port 8080/tcp"


def test_a_nodes_refusal_is_not_the_backends(probe: Any) -> None:
    refusal = probe.icmp(A, "cni0", "out", "10.244.1.1")
    assert not tuple(backend.diagnose(probe(3, told=[refusal], result="refused")))


def test_hairpin_by_the_prediction(probe: Any) -> None:
    branch = probe.branch("hairpin-off", Outcome.DROPPED, "bridge port veth1")
    case = probe(2, branch=branch, entry=None)
    found = only(bridge.diagnose(case))
    assert (found.cause, found.object) == ("hairpin-off", "bridge port veth1")


# --- nothing leaves the sender --------------------------------------------------------------------


def test_a_gateway_that_does_not_answer(probe: Any) -> None:
    """Calico's with proxy_arp off, or neighbour discovery that a rule drops."""
    files = {
        CLIENT: {
            "ip-route.json": '[{"dst": "default", "gateway": "169.254.1.1", "dev": "eth0"}]',
            "ip-neigh.json": '[{"dst": "169.254.1.1", "dev": "eth0", "state": ["FAILED"]}]',
        }
    }
    quoted = Packet(flow=VIP, flags="S", seq=0x4000_0000)
    flow = Flow(protocol="icmp", src="10.244.1.10", dst="10.244.1.10")
    error = msgspec.structs.replace(
        probe.icmp(CLIENT, "lo", "in", "10.244.1.10"),
        packet=Packet(flow=flow, icmp=(3, 1), quoted=quoted),
    )
    case = probe(0, told=[error], files=files, entry=None, result="unreachable")
    found = only(neighbour.diagnose(case))
    assert (found.cause, found.node) == ("neighbour-failed", "a")
    assert found.object == "neighbour 169.254.1.1 dev eth0 of pod shop/client"
    assert "ICMP host unreachable" in found.evidence[0]
    assert "FAILED before the probe" in found.evidence[1]


def test_a_router_s_own_error_is_not_the_sender_s(probe: Any) -> None:
    error = probe.icmp(CLIENT, "eth0", "in", "10.244.1.1")
    case = probe(0, told=[error], entry=None, result="unreachable")
    assert not tuple(neighbour.diagnose(case))


# --- before any tap ---------------------------------------------------------------------------


WITH_XDP = """[{"ifindex": 2, "ifname": "eth0", "flags": ["UP"], "mtu": 1500, "xdp": {"mode": 1,
 "prog": {"id": 23222, "name": "firewall", "tag": "b11459a0e11ca14c", "jited": 1}}}]"""


def test_the_kernel_names_a_function_of_xdp(probe: Any) -> None:
    drop = msgspec.structs.replace(
        probe.drop("b", "NOT_SPECIFIED", SYN), location="veth_xdp_rcv_skb+0x27d/0x590"
    )
    case = probe(5, told=[drop], files={B: {"ip-link.json": WITH_XDP}})
    found = only(xdp.diagnose(case))
    assert (found.cause, found.node) == ("xdp-drop", "b")
    assert "the XDP program firewall on eth0 of b" in found.summary


def _never_came() -> Branch:
    packet = Packet(flow=VIP, flags="S")
    steps = tuple(
        SimulatedStep(netns=place, action="seen", interface="eth0", direction=way, packet=packet)
        for place, way in ((A, "out"), (B, "in"))
    )
    backend = Endpoint(address="10.244.2.20", port=8080)
    return Branch(weight=1.0, steps=steps, outcome=Outcome.DELIVERED, backend=backend)


def _layers(*broken: str) -> tuple[EvidenceSource, ...]:
    return tuple(
        EvidenceSource(name=name, node=node, unavailable="no right" if name in broken else "")
        for node in ("a", "b")
        for name in ("capture", "drops")
    )


def test_lost_between_two_taps_that_were_there(probe: Any) -> None:
    case = probe(5, branch=_never_came())
    found = only(underlay.diagnose(case, _layers()))
    assert (found.cause, found.object) == ("lost-between-nodes", "between a and b")
    assert "neither kernel reported" in found.evidence[-1]
    found = only(underlay.diagnose(case, _layers("drops")))
    assert "never seen on eth0 of b" in found.evidence[-1]


def test_without_a_tap_nothing_is_known_of_the_wire(probe: Any) -> None:
    case = probe(5, branch=_never_came())
    assert not tuple(underlay.diagnose(case, _layers("capture")))
    assert not tuple(underlay.diagnose(case, ()))


def test_a_program_at_the_far_end_may_have_dropped_it(probe: Any) -> None:
    case = probe(5, branch=_never_came(), files={B: {"ip-link.json": WITH_XDP}})
    found = only(underlay.diagnose(case, _layers()))
    assert (found.cause, found.node) == ("lost-unexplained", "b")
    assert "by its XDP program firewall, or on the wire" in found.summary

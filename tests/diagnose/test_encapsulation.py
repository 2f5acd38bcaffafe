"""What carries the probe: the first clause names the packet, the others who chose the remote node
and what fits. The numbers are by hand: IPv4 20, IPv6 40, UDP 8, VXLAN and Geneve 8, Ethernet 14.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from kptrace.diagnose.diagnose import _diagnose_probe
from kptrace.diagnose.encapsulation import CLAUSE, carried
from kptrace.diagnose.hops import forward_hops
from kptrace.model import Branch, Endpoint, Flow, Netns, Outcome, Packet, SimulatedStep, Tunnel

A = Netns(node="a")
FAR = "172.30.0.12"
MAC = "02:00:00:00:00:02"
ROUTE = [{"dst": "10.244.2.0/24", "gateway": "10.244.2.0", "dev": "flannel.1", "flags": ["onlink"]}]
FDB = [{"mac": MAC, "ifname": "flannel.1", "dst": FAR, "flags": ["self"], "state": "permanent"}]


def links(kind: str, name: str, mtu: int = 1450, under: int = 1500, **data: Any) -> str:
    return json.dumps(
        [
            {"ifindex": 2, "ifname": "eth0", "flags": ["UP"], "mtu": under},
            {"ifindex": 3, "ifname": "cni0", "flags": ["UP"], "mtu": mtu},
            {"ifindex": 4, "ifname": name, "flags": ["UP"], "mtu": mtu,
             "linkinfo": {"info_kind": kind, "info_data": data}},
        ]
    )  # fmt: skip


def clauses(probe: Any, files: dict[str, Any], carrier: Packet | None = None) -> list[str]:
    texts = {
        name: text if isinstance(text, str) else json.dumps(text) for name, text in files.items()
    }
    case = probe(5, files={A: texts})
    before, after = case.journey.forward[3], case.journey.forward[4]
    if carrier is not None:
        after = msgspec.structs.replace(after, packet=carrier)
    return carried(case, before, after).split(CLAUSE)


def packet(kind: Any, flow: Flow, length: int = 0, inner: int = 0) -> Packet:
    dnated = Flow(protocol="tcp", src="10.244.1.10", sport=40000, dst="10.244.2.20", dport=8080)
    return Packet(
        flow=flow,
        length=length,
        tunnel=Tunnel(kind=kind, vni=None if kind == "ipip" else 7),
        inner=Packet(flow=dnated, length=inner),
    )


def test_vxlan_by_neighbour_and_fdb(probe: Any) -> None:
    device = links("vxlan", "flannel.1", id=1, port=8472, learning=False)
    told = clauses(probe, {"ip-link.json": device, "ip-route.json": ROUTE, "bridge-fdb.json": FDB})
    assert told == [
        f"VXLAN 1, 172.30.0.11 > {FAR}:8472",
        f"10.244.2.0 is {MAC}, which the FDB has at {FAR}",
        "packets of 1450 bytes fit (eth0 1500 less 50)",
    ]


def test_an_underlay_that_is_too_small(probe: Any) -> None:
    device = links("vxlan", "flannel.1", under=1400, id=1, port=8472, learning=False)
    told = clauses(probe, {"ip-link.json": device, "ip-route.json": ROUTE, "bridge-fdb.json": FDB})
    assert told[-1] == (
        "packets over 1350 bytes do not fit (eth0 1400 less 50), though flannel.1 takes 1450"
    )


def test_a_program_chose_the_node(probe: Any) -> None:
    """Cilium's device has no FDB: the remote stands beside the packet."""
    device = links("vxlan", "flannel.1", id=0, port=8472, external=True, learning=False)
    told = clauses(probe, {"ip-link.json": device, "ip-route.json": [], "bridge-fdb.json": []})
    assert told[1] == f"the program that sent it chose {FAR}"


@pytest.mark.parametrize(
    ("remote", "words"),
    [("any", f"to the route's gateway {FAR}"), (FAR, f"flannel.1 has the one remote {FAR}")],
)
def test_ipip(probe: Any, remote: str, words: str) -> None:
    route = [{"dst": "10.244.2.0/24", "gateway": FAR, "dev": "flannel.1", "flags": ["onlink"]}]
    device = links("ipip", "flannel.1", mtu=1400, local="172.30.0.11", remote=remote)
    carrier = packet("ipip", Flow(protocol="ipip", src="172.30.0.11", dst=FAR))
    told = clauses(probe, {"ip-link.json": device, "ip-route.json": route}, carrier)
    assert told == [
        f"IPIP, 172.30.0.11 > {FAR}",
        words,
        "packets of 1400 bytes fit (eth0 1500 less 20, 80 to spare)",
    ]


def test_options_of_geneve_count(probe: Any) -> None:
    """Antrea and OVN put options behind the header: the packets' own lengths tell how many."""
    flow = Flow(protocol="udp", src="172.30.0.11", sport=1, dst=FAR, dport=6081)
    device = links("geneve", "flannel.1")
    told = clauses(probe, {"ip-link.json": device}, packet("geneve", flow, length=118, inner=60))
    assert told[0] == f"GENEVE 7, 172.30.0.11 > {FAR}:6081"
    assert told[-1] == (
        "packets over 1442 bytes do not fit (eth0 1500 less 58), though flannel.1 takes 1450"
    )
    bare = packet("geneve", Flow(protocol="udp", src="fd00::1", dst="fd00::2", dport=6081))
    assert "less 70" in clauses(probe, {"ip-link.json": device}, bare)[-1]


@pytest.mark.parametrize(("data", "words"), [
    ({"remote": FAR}, f"flannel.1 has the one remote {FAR}"),
    ({"external": True}, f"the program that sent it chose {FAR}"),
])  # fmt: skip
def test_one_remote_or_a_programs_word(probe: Any, data: dict[str, Any], words: str) -> None:
    udp = Flow(protocol="udp", src="172.30.0.11", sport=1, dst=FAR, dport=6081)
    device = links("geneve", "flannel.1", id=7, port=6081, **data)
    told = clauses(probe, {"ip-link.json": device}, packet("geneve", udp))
    assert told[1:] == [words, "packets of 1450 bytes fit (eth0 1500 less 50)"]
    gre = Flow(protocol="gre", src="172.30.0.11", dst=FAR)
    device = links("gre", "flannel.1", mtu=1476, **{"local": "any", **data})
    told = clauses(probe, {"ip-link.json": device}, packet("gre", gre))
    assert told == [
        f"GRE 7, 172.30.0.11 > {FAR}",
        words,
        "packets of 1476 bytes fit (eth0 1500 less 24)",
    ]


def test_without_the_nodes_links_the_packet_alone_speaks(probe: Any) -> None:
    told = clauses(probe, {"ip-link.json": "[]"})
    assert told == [f"VXLAN 1, 172.30.0.11 > {FAR}:8472"]


# --- devices that hide what they carry ------------------------------------------------------------

WG = "wireguard.cali"
HIDDEN = {
    place: {"ip-link.json": links("wireguard", WG, mtu=1440)} for place in (A, Netns(node="b"))
}


def behind(way: Any) -> Any:
    """Calico's WireGuard: the probe is seen on both devices, and on no wire between them."""
    taps = [list(tap) for tap in way if not tap[4]]
    return tuple(tuple(WG if part == "flannel.1" else part for part in tap) for tap in taps)


def test_wireguard_is_named_and_its_inside_is_not_visible(probe: Any, way: Any) -> None:
    case = probe(behind(way), files=HIDDEN)
    told = {(hop.node, hop.interface): hop for hop in forward_hops(case, True)}
    sent, taken = told["a", WG], told["b", WG]
    assert sent.description == (
        "WireGuard: encrypted from here on, the inside is not visible on the wire"
    )
    assert (sent.action, sent.observed) == ("seen", True)
    assert taken.description == "decrypted by WireGuard"


def test_what_is_foretold_on_the_wire_need_not_be_seen(probe: Any) -> None:
    outer = Flow(protocol="udp", src="172.30.0.11", sport=51820, dst=FAR, dport=51820)
    case = probe(4)
    crossing = SimulatedStep(
        netns=A,
        action="seen",
        interface="eth0",
        direction="out",
        packet=Packet(flow=outer, tunnel=Tunnel(kind="wireguard"), inner=Packet(flow=outer)),
    )
    assert case.silent(crossing)
    vxlan = msgspec.structs.replace(crossing.packet, tunnel=Tunnel(kind="vxlan", vni=1))
    assert not case.silent(msgspec.structs.replace(crossing, packet=vxlan))


def test_what_is_lost_behind_wireguard_is_not_called_dropped(probe: Any, way: Any) -> None:
    case = probe(behind(way)[:4], files=HIDDEN)
    outcome, (found,) = _diagnose_probe(case, ())
    assert (outcome, found.cause) == (Outcome.INCONCLUSIVE, "not-observed")
    assert any("wireguard.cali: WireGuard: encrypted" in line for line in found.evidence)


def test_a_peer_that_may_not_carry_it_is_named(probe: Any, way: Any) -> None:
    taps = behind(way)[:4]
    dnated = packet("wireguard", Flow(protocol="udp", src="", dst=FAR)).innermost
    crossing = SimulatedStep(netns=A, action="seen", interface=WG, direction="out", packet=dnated)
    end = SimulatedStep(netns=A, action="rejected", interface=WG, packet=dnated)
    branch = Branch(
        weight=1.0,
        steps=(crossing, end),
        outcome=Outcome.REJECTED,
        cause="wireguard-peer-missing",
        object=f"a: {WG}",
        description=f"no peer of {WG} has 10.244.2.20 among its allowed IPs",
        backend=Endpoint(address="10.244.2.20", port=8080),
    )
    _, (found,) = _diagnose_probe(probe(taps, files=HIDDEN, branch=branch), ())
    assert (found.cause, found.node, found.object) == ("wireguard-peer-missing", "a", WG)
    assert "10.244.2.20 among its allowed IPs" in found.summary

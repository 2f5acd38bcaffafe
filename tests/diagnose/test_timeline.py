"""Sightings in the order of cause; times and orders are derived by hand."""

from __future__ import annotations

from itertools import islice, permutations

import msgspec
import pytest

from kptrace.diagnose.timeline import clock_shifts, timeline
from kptrace.model import CapturedPacket, Flow, Netns, Packet, Probe, Tunnel
from kptrace.rules.model.ruleset import Ruleset
from kptrace.simulate.snapshot.network import InterfaceAddress, Link, Vxlan
from kptrace.simulate.snapshot.snapshot import Snapshot

COOKIE = 0x1000
A, B = Netns(node="a"), Netns(node="b")
CLIENT, SERVER = Netns(node="a", pod="shop/client"), Netns(node="b", pod="shop/server")
OUT = Flow(protocol="tcp", src="10.244.1.10", sport=40000, dst="10.96.0.50", dport=80)
SENT_ON = Flow(protocol="tcp", src="10.244.1.10", sport=40000, dst="10.244.2.20", dport=8080)
CARRIER = Flow(protocol="udp", src="172.30.0.11", sport=555, dst="172.30.0.12", dport=8472)

SNAPSHOTS = {
    place: Snapshot(
        netns=place,
        ruleset=Ruleset(),
        links=(
            Link(index=1, name="eth0", kind="veth"),
            Link(index=2, name="cni0", kind="bridge"),
            Link(index=3, name="flannel.1", kind="vxlan", vxlan=Vxlan(vni=1, port=8472)),
            Link(index=4, name="veth1", kind="veth", master="cni0"),
        ),
    )
    for place in (A, B)
}


def seen(
    place: Netns,
    interface: str,
    direction: str,
    time: int,
    flow: Flow = OUT,
    *,
    flags: str = "S",
    carried: bool = False,
    cookie: int = COOKIE,
    ack: int | None = None,
    ttl: int = 64,
) -> CapturedPacket:
    seq = COOKIE if flags == "S" else 7
    packet = Packet(flow=flow, flags=flags, seq=seq, ack=ack, ip_id=9, ttl=ttl)
    if carried:
        packet = Packet(flow=CARRIER, tunnel=Tunnel(kind="vxlan", vni=1), inner=packet)
    return CapturedPacket(
        netns=place,
        interface=interface,
        ifindex=1,
        direction=direction,  # type: ignore[arg-type]
        packet=packet,
        time_ns=time,
        probe_id=cookie,
    )


ACROSS = (
    seen(CLIENT, "eth0", "out", 100),
    seen(A, "veth1", "in", 110),
    seen(A, "cni0", "in", 110, SENT_ON),  # one stamp for an skb on its way in
    seen(A, "flannel.1", "out", 120, SENT_ON, ttl=63),
    seen(A, "eth0", "out", 130, SENT_ON, carried=True, ttl=63),
    seen(B, "eth0", "in", 150, SENT_ON, carried=True, ttl=63),
    seen(B, "flannel.1", "in", 150, SENT_ON, ttl=63),
    seen(B, "cni0", "out", 160, SENT_ON, ttl=62),
    seen(B, "veth1", "out", 161, SENT_ON, ttl=62),
    seen(SERVER, "eth0", "in", 170, SENT_ON, ttl=62),
)


def names(sightings: tuple[CapturedPacket, ...]) -> list[tuple[str, str, str]]:
    return [(s.netns.node, s.netns.pod, s.interface) for s in sightings]


PROBE = Probe(probe_id=COOKIE, flow=OUT)


def test_equal_stamps_climb_the_devices() -> None:
    for shuffled in islice(permutations(ACROSS), 0, None, 90001):
        found = timeline(PROBE, shuffled, SNAPSHOTS, "a")
        assert names(found.forward) == names(ACROSS)


def test_a_clock_that_is_ahead_or_behind_changes_nothing() -> None:
    for error in (-10_000_000, 10_000_000):
        skewed = [
            msgspec.structs.replace(s, time_ns=s.time_ns + (error if s.netns.node == "b" else 0))
            for s in ACROSS
        ]
        found = timeline(PROBE, skewed[::-1], SNAPSHOTS, "a")
        assert names(found.forward) == names(ACROSS)


def test_the_shift_lies_between_what_both_directions_allow() -> None:
    ask = seen(A, "eth0", "out", 1000)
    asked = seen(B, "eth0", "in", 400)  # b's clock is behind by at least 600
    answer = seen(B, "eth0", "out", 500, OUT.reverse, flags="SA", ack=COOKIE + 1)
    answered = seen(A, "eth0", "in", 1300, OUT.reverse, flags="SA", ack=COOKIE + 1)  # at most 800
    assert clock_shifts((ask, asked, answer, answered), "a") == {"a": 0, "b": 700}


def test_only_the_first_transmission_counts() -> None:
    again = seen(CLIENT, "eth0", "out", 1_000_000_100)
    found = timeline(PROBE, (*ACROSS, again), SNAPSHOTS, "a")
    assert names(found.forward) == names(ACROSS)
    assert found.forward[0].time_ns == 100


@pytest.mark.parametrize(("flags", "ack"), [("SA", COOKIE + 1), ("RA", COOKIE + 1)])
def test_the_answer_acknowledges_the_cookie(flags: str, ack: int) -> None:
    back = seen(SERVER, "eth0", "out", 180, SENT_ON.reverse, flags=flags, ack=ack)
    later = seen(CLIENT, "eth0", "out", 300, OUT, flags="A", ack=8)
    found = timeline(PROBE, (*ACROSS, back, later), SNAPSHOTS, "a")
    assert found.back == (back,)
    assert len(found.forward) == len(ACROSS)


def test_a_datagram_against_the_flow_is_an_answer_even_with_the_cookie() -> None:
    ask = Flow(protocol="udp", src="10.244.1.10", sport=5000, dst="10.96.0.10", dport=53)
    on = Flow(protocol="udp", src="10.244.1.10", sport=5000, dst="10.244.2.3", dport=53)
    sightings = (
        seen(CLIENT, "eth0", "out", 1, ask, flags=""),
        seen(A, "veth1", "in", 2, ask, flags=""),
        seen(A, "cni0", "in", 2, on, flags=""),
        seen(A, "cni0", "out", 8, ask.reverse, flags=""),
        seen(CLIENT, "eth0", "in", 9, ask.reverse, flags=""),
    )
    found = timeline(Probe(probe_id=COOKIE, flow=ask), sightings, SNAPSHOTS, "a")
    assert [s.time_ns for s in found.forward] == [1, 2, 2]
    assert [s.time_ns for s in found.back] == [8, 9]


def test_an_answer_that_is_half_translated_back_is_an_answer() -> None:
    """A node's own datagram to a Service: DNAT in OUTPUT, masquerade in POSTROUTING. Of the echo
    the masquerade is undone at the bridge and the DNAT in INPUT, so cni0 shows it in between.
    """
    sent = Flow(protocol="udp", src="172.30.0.11", sport=5000, dst="10.96.1.5", dport=7)
    on = Flow(protocol="udp", src="10.244.1.1", sport=6001, dst="10.244.1.41", dport=7007)
    half = Flow(protocol="udp", src="10.244.1.41", sport=7007, dst="172.30.0.11", dport=5000)
    sightings = (
        seen(A, "cni0", "out", 1, on, flags=""),
        seen(A, "veth1", "out", 2, on, flags=""),
        seen(A, "veth1", "in", 8, on.reverse, flags=""),
        seen(A, "cni0", "in", 9, half, flags=""),
    )
    found = timeline(Probe(probe_id=COOKIE, flow=sent), sightings, SNAPSHOTS, "a", sent)
    assert [s.time_ns for s in found.forward] == [1, 2]
    assert [s.time_ns for s in found.back] == [8, 9]


PODS = {
    Netns(node="b", pod="shop/server"): ("10.244.2.20", 4),
    Netns(node="b", pod="shop/other"): ("10.244.2.21", 5),
}


def test_the_copies_of_a_flooded_frame_are_not_its_way() -> None:
    ports = (
        Link(index=2, name="cni0", kind="bridge"),
        Link(index=4, name="veth1", kind="veth", master="cni0", peer=2),
        Link(index=5, name="veth2", kind="veth", master="cni0", peer=2),
    )
    snapshots = {B: Snapshot(netns=B, ruleset=Ruleset(), links=ports)}
    for place, (address, peer) in PODS.items():
        snapshots[place] = Snapshot(
            netns=place,
            ruleset=Ruleset(),
            links=(Link(index=2, name="eth0", kind="veth", peer=peer),),
            addresses=(InterfaceAddress(interface="eth0", address=address, length=24),),
        )
    other = Netns(node="b", pod="shop/other")
    copy = msgspec.structs.replace(seen(other, "eth0", "in", 171, SENT_ON), other_host=True)
    way = (
        seen(B, "cni0", "out", 160, SENT_ON),
        seen(B, "veth1", "out", 161, SENT_ON),
        seen(SERVER, "eth0", "in", 170, SENT_ON),
    )
    flooded = (*way, seen(B, "veth2", "out", 162, SENT_ON), copy)
    found = timeline(PROBE, flooded, snapshots, "b")
    assert names(found.forward) == names(way)


def test_a_foreign_mac_on_the_nodes_own_device_stays() -> None:
    astray = msgspec.structs.replace(seen(B, "flannel.1", "in", 150, SENT_ON), other_host=True)
    assert timeline(PROBE, (astray,), SNAPSHOTS, "a").forward == (astray,)


def test_nothing_seen_is_an_empty_journey() -> None:
    found = timeline(PROBE, (), SNAPSHOTS, "a")
    assert found.last is None
    assert found.offset_us("a", 5) is None


def test_offsets_are_on_the_clock_of_the_source() -> None:
    found = timeline(PROBE, ACROSS, SNAPSHOTS, "a")
    assert found.offset_us("b", 1170) == 1.1

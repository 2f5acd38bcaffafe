"""Header decoding against scapy, which builds the bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib.geneve import GENEVE, GeneveOptions
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, TCPerror
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, GRE, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet as Built
from scapy.packet import Raw

from kptrace.model import Flow, Packet, Tunnel
from kptrace.packet.headers import decode, dissect, network_offset

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")  # else scapy asks the network
SYN = IP(src="10.244.1.10", dst="10.96.0.50", id=7, ttl=63) / TCP(
    sport=40000, dport=80, flags="S", seq=0xDEADBEEF
)
SYN6 = IPv6(src="fd00::1", dst="fd00::2", hlim=62) / TCP(
    sport=40000, dport=80, flags="SA", seq=5, ack=6
)
FLOW = Flow(protocol="tcp", src="10.244.1.10", dst="10.96.0.50", sport=40000, dport=80)
FLOW6 = Flow(protocol="tcp", src="fd00::1", dst="fd00::2", sport=40000, dport=80)


def _outer(inner: Built, port: int = 8472) -> Built:
    return (
        IP(src="172.30.0.1", dst="172.30.0.2")
        / UDP(sport=50000, dport=port)
        / VXLAN(vni=1, flags=8)
        / ETHER
        / inner
    )


def _read(built: Built) -> Packet:
    packet = decode(bytes(built))
    assert packet is not None
    return packet


def test_a_syn() -> None:
    expected = Packet(flow=FLOW, ttl=63, ip_id=7, length=40, flags="S", seq=0xDEADBEEF, ack=0)
    assert _read(SYN) == expected


def test_ipv6_has_no_id() -> None:
    expected = Packet(flow=FLOW6, ttl=62, length=60, flags="SA", seq=5, ack=6)
    assert _read(SYN6) == expected


@pytest.mark.parametrize("flags", ["F", "S", "R", "A", "SA", "RA", "FA", "PA", "FPA"])
def test_flags_read_as_letters_in_one_order(flags: str) -> None:
    packet = _read(IP() / TCP(flags=flags))
    assert sorted(packet.flags) == sorted(flags)
    assert [c for c in "FSRPAU" if c in packet.flags] == list(packet.flags)


def test_a_datagram_and_its_payload() -> None:
    seen = dissect(bytes(IP(src="1.2.3.4", dst="5.6.7.8") / UDP(sport=1, dport=2) / Raw(b"hello")))
    assert seen is not None
    assert seen.payload == b"hello"
    assert seen.packet.flow == Flow(protocol="udp", src="1.2.3.4", dst="5.6.7.8", sport=1, dport=2)


def test_padding_behind_the_packet_is_not_payload() -> None:
    datagram = bytes(IP(src="1.2.3.4", dst="5.6.7.8") / UDP(sport=1, dport=2) / Raw(b"hello"))
    seen = dissect(datagram + bytes(20))
    assert seen is not None
    assert seen.payload == b"hello"


@pytest.mark.parametrize("port", [4789, 8472])
def test_vxlan(port: int) -> None:
    packet = _read(_outer(SYN, port))
    assert packet.tunnel == Tunnel(kind="vxlan", vni=1)
    assert packet.flow.dst == "172.30.0.2"
    assert packet.innermost == _read(SYN)


def test_vxlan_with_ipv6_inside() -> None:
    assert _read(_outer(SYN6)).innermost == _read(SYN6)


def test_vxlan_with_a_vlan_inside() -> None:
    tagged = _outer(Raw(b""))
    tagged[Ether].payload = Dot1Q(vlan=5) / SYN
    tagged[Ether].type = 0x8100
    assert _read(tagged).innermost.flow == FLOW


def test_vxlan_that_carries_arp_is_a_plain_datagram() -> None:
    packet = _read(_outer(ARP()))
    assert packet.tunnel is None
    assert packet.inner is None


@pytest.mark.parametrize("options", [0, 1, 21])
@pytest.mark.parametrize("outer", [IP(src="172.30.0.1", dst="172.30.0.2"), IPv6(src="fd00::1")])
@pytest.mark.parametrize("inner", [SYN, SYN6])
def test_geneve_as_scapy_builds_it(options: int, outer: Built, inner: Built) -> None:
    """OVN and Antrea put metadata into options; Cilium none. Up to 63 words of four bytes."""
    metadata = [GeneveOptions(classid=0x0102, type=0x80, data=bytes(8))] * options
    geneve = GENEVE(vni=0xABCDEF, options=metadata)
    packet = _read(outer / UDP(sport=4000, dport=6081) / geneve / ETHER / inner)
    assert packet.tunnel == Tunnel(kind="geneve", vni=0xABCDEF)
    assert (packet.flow.protocol, packet.flow.dport) == ("udp", 6081)
    assert packet.innermost == _read(inner)


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_a_cut_geneve_packet_is_read_as_far_as_it_goes(cut: int) -> None:
    whole = bytes(IP() / UDP(dport=6081) / GENEVE(vni=5) / ETHER / SYN)
    packet = decode(whole[: 28 + cut])
    assert packet is not None
    assert packet.flow.dport == 6081


def test_geneve_that_carries_something_else_is_a_plain_datagram() -> None:
    """BFD and OAM of OVN: no Ethernet frame inside."""
    packet = _read(IP() / UDP(dport=6081) / GENEVE(vni=5, proto=0x88B5) / Raw(bytes(40)))
    assert packet.tunnel is None


def test_geneve_with_options() -> None:
    # RFC 8926: version and option length (in 4 bytes), flags, ethertype, VNI, options
    geneve = b"\x02\x00\x65\x58" + (77).to_bytes(3, "big") + b"\x00" + bytes(8)
    built = IP() / UDP(dport=6081) / Raw(geneve + bytes(ETHER / SYN))
    packet = _read(built)
    assert packet.tunnel == Tunnel(kind="geneve", vni=77)
    assert packet.innermost.flow == FLOW


@pytest.mark.parametrize("inner", [SYN, SYN6])
@pytest.mark.parametrize("outer", [IP(src="172.30.0.1", proto=47), IPv6(src="fd00::1", nh=47)])
@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({}, None),
        ({"key_present": 1, "key": 0x01020304}, 0x01020304),
        ({"chksum_present": 1, "key_present": 1, "key": 9}, 9),
        ({"seqnum_present": 1}, None),
    ],
)
def test_gre(outer: Built, inner: Built, fields: dict[str, int], key: int | None) -> None:
    for built in (GRE(**fields) / inner, GRE(proto=0x6558, **fields) / ETHER / inner):
        packet = _read(outer / built)
        assert packet.tunnel == Tunnel(kind="gre", vni=key)
        assert packet.flow.protocol == "gre"
        assert packet.innermost == _read(inner)


def test_gre_of_another_version_is_not_read() -> None:
    """Version 1 is PPTP's, with other fields."""
    assert _read(IP(proto=47) / GRE(version=1) / SYN).tunnel is None


@pytest.mark.parametrize("cut", range(13))
def test_a_cut_gre_packet_is_a_gre_packet(cut: int) -> None:
    whole = bytes(IP(proto=47) / GRE(key_present=1, chksum_present=1) / SYN)
    packet = decode(whole[: 20 + cut])
    assert packet is not None
    assert (packet.flow.protocol, packet.tunnel) == ("gre", None)


def test_ip_in_ip() -> None:
    packet = _read(IP(src="172.30.0.1", dst="172.30.0.2") / SYN)
    assert packet.tunnel == Tunnel(kind="ipip")
    assert (packet.flow.protocol, packet.innermost) == ("ipip", _read(SYN))
    assert _read(IP(src="172.30.0.1", dst="172.30.0.2") / SYN6).innermost == _read(SYN6)


def test_an_icmp_error_quotes_its_packet() -> None:
    error = IP(src="172.30.0.2", dst="10.244.1.10") / ICMP(type=3, code=4) / SYN
    packet = _read(error)
    assert packet.icmp == (3, 4)
    assert packet.flow == Flow(protocol="icmp", src="172.30.0.2", dst="10.244.1.10")
    assert packet.quoted == _read(SYN)
    assert packet.innermost is packet, "a quote is no encapsulation"


def test_a_quote_of_eight_bytes_has_ports_and_sequence() -> None:
    quote = bytes(IPerror(bytes(SYN))[IPerror])[:28]
    packet = _read(IP() / ICMP(type=11, code=0) / Raw(quote))
    assert packet.quoted is not None
    assert packet.quoted.flow == FLOW
    assert (packet.quoted.seq, packet.quoted.ack) == (0xDEADBEEF, None)
    assert TCPerror  # scapy's own word for it


def test_icmpv6_quotes_too() -> None:
    packet = _read(IPv6(src="fd00::9", dst="fd00::1") / ICMPv6DestUnreach(code=4) / SYN6)
    assert (packet.icmp, packet.flow.protocol) == ((1, 4), "icmpv6")
    assert packet.quoted == _read(SYN6)


def test_the_core_is_where_a_cookie_would_be() -> None:
    error = IP() / ICMP(type=3, code=4) / _outer(SYN)
    seen = dissect(bytes(error))
    assert seen is not None
    assert seen.core == _read(SYN)
    inside = dissect(bytes(_outer(IP() / ICMP(type=3, code=1) / SYN)))
    assert inside is not None
    assert inside.core == _read(SYN)


def test_a_later_fragment_has_no_ports() -> None:
    packet = _read(IP(frag=100, proto=17) / Raw(b"\x12\x34" * 20))
    assert packet.flow.sport == packet.flow.dport == 0
    later = IPv6() / IPv6ExtHdrFragment(offset=100, nh=17) / Raw(b"\x12\x34" * 20)
    assert _read(later).flow.sport == 0


def test_ipv6_extension_headers_are_skipped() -> None:
    built = IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt()
    assert _read(built / SYN6[TCP]).flow == FLOW6
    first = IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrFragment(offset=0, m=1) / SYN6[TCP]
    assert _read(first).flow == FLOW6


def test_ip_options_are_skipped() -> None:
    assert (
        _read(IP(src="10.244.1.10", dst="10.96.0.50", options=b"\x01" * 8) / SYN[TCP]).flow == FLOW
    )


def test_an_unknown_protocol_is_its_number() -> None:
    assert _read(IP(proto=89) / Raw(b"x")).flow.protocol == "89"


def test_where_the_network_header_of_a_frame_starts() -> None:
    assert network_offset(bytes(ETHER / SYN)) == 14
    assert network_offset(bytes(ETHER / Dot1Q() / Dot1Q() / SYN6)) == 22
    assert network_offset(bytes(ETHER / ARP())) == 0
    assert network_offset(b"") == 0


@given(st.binary(max_size=200))
def test_random_bytes_never_raise(data: bytes) -> None:
    decode(data)


@given(
    st.sampled_from([SYN, SYN6, _outer(SYN), _outer(SYN6), IP() / ICMP(type=3) / _outer(SYN)]),
    st.data(),
)
def test_cut_or_damaged_packets_never_raise(built: Built, data: st.DataObject) -> None:
    whole = bytearray(bytes(built))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    decode(bytes(whole[: data.draw(st.integers(0, len(whole)))]))


def test_tunnels_in_tunnels_end() -> None:
    packet = SYN
    for _ in range(30):
        packet = IP() / packet
    assert _read(packet).innermost.flow.protocol == "ipip"

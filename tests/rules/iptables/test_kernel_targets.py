"""The bytes of iptables' targets, laid out as the kernel's structures, as options of a save."""

from __future__ import annotations

from ipaddress import ip_address
from struct import pack

import pytest

from kptrace.rules.byte_reader import ByteReader
from kptrace.rules.iptables.kernel_targets import target_args
from kptrace.rules.iptables.options import Unknown

MAP_IPS, PORTS, RANDOM, RANDOM_FULLY = 1, 2, 4, 16


def args(name: str, revision: int, data: bytes, family: str = "ip") -> str:
    return " ".join(target_args(name, revision, ByteReader(data, family), lambda number: "web"))


def nat_range(flags: int, low: str, high: str, ports: tuple[int, int] = (0, 0)) -> bytes:
    """struct nf_nat_range2: flags, min_addr, max_addr, min_proto, max_proto, base_proto."""
    ends = b"".join(ip_address(end).packed.ljust(16, b"\0") for end in (low, high))
    return pack("=I", flags) + ends + pack("!HHH", *ports, 0)


def old_range(flags: int, ports: tuple[int, int] = (0, 0)) -> bytes:
    """struct nf_nat_ipv4_multi_range_compat: rangesize, flags, min_ip, max_ip, min, max."""
    return pack("=II", 1, flags) + bytes(8) + pack("!HH", *ports)


TARGETS = [
    (
        "DNAT",
        2,
        nat_range(MAP_IPS | PORTS, "10.244.0.5", "10.244.0.5", (8080, 8080)),
        "DNAT --to-destination 10.244.0.5:8080",
    ),
    (
        "SNAT",
        2,
        nat_range(MAP_IPS | RANDOM, "10.0.0.1", "10.0.0.5"),
        "SNAT --to-source 10.0.0.1-10.0.0.5 --random",
    ),
    ("MASQUERADE", 0, old_range(RANDOM_FULLY), "MASQUERADE --random-fully"),
    ("REDIRECT", 0, old_range(PORTS, (6, 8)), "REDIRECT --to-ports 6-8"),
    ("REJECT", 0, pack("=I", 3), "REJECT --reject-with icmp-port-unreachable"),
    ("MARK", 2, pack("=II", 0x4000, 0x4000), "MARK --set-xmark 0x4000/0x4000"),
    ("TCPMSS", 0, pack("=H", 0xFFFF), "TCPMSS --clamp-mss-to-pmtu"),
    ("CT", 1, pack("=HH", 2, 0), "NOTRACK"),
    ("NFQUEUE", 1, pack("=HH", 3, 2), "NFQUEUE --queue-balance 3:4"),
    ("TTL", 0, pack("BB", 0, 5), "TTL --ttl-set 5"),
]


@pytest.mark.parametrize(("name", "revision", "data", "expected"), TARGETS)
def test_target(name: str, revision: int, data: bytes, expected: str) -> None:
    assert args(name, revision, data) == expected


def test_an_ipv6_address_with_a_port_is_in_brackets() -> None:
    data = nat_range(MAP_IPS | PORTS, "fd00::1", "fd00::1", (80, 80))
    assert args("DNAT", 2, data, "ip6") == "DNAT --to-destination [fd00::1]:80"


def test_an_unknown_target_or_value() -> None:
    for name, revision, data in (("FANCY", 0, b""), ("MARK", 9, bytes(8)), ("REJECT", 0, bytes(4))):
        if name == "REJECT":
            data = pack("=I", 99)
        with pytest.raises(Unknown):
            args(name, revision, data)

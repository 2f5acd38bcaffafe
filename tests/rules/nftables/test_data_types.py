"""Bytes of each data type as nft prints them."""

from __future__ import annotations

import sys

import pytest

from kptrace.rules.nftables.data_types import (
    UnformattableValueError,
    element_flags,
    format_prefix,
    format_value,
    part_lengths,
    type_names,
)

ORDER = sys.byteorder


def host(number: int, size: int = 4) -> bytes:
    return number.to_bytes(size, ORDER)  # type: ignore[arg-type]


VALUES = [
    (bytes((10, 96, 0, 1)), "ipv4_addr", "10.96.0.1"),
    (bytes(15) + b"\1", "ipv6_addr", "::1"),
    (b"\x06", "inet_proto", "tcp"),
    (b"\xc8", "inet_proto", 200),
    (b"\x01\xbb", "inet_service", 443),
    (b"eth0".ljust(16, b"\0"), "ifname", "eth0"),
    (b"cali", "ifname", "cali*"),
    (host(0x4000), "mark", 0x4000),
    (host(2 | 4), "ct_state", ["established", "related"]),
    (host(8), "ct_state", "new"),
    (b"\x02", "tcp_flag", "syn"),
    (host(7), "iface_index", "eth0"),
    (host(9), "iface_index", "9"),
    (b"\x08", "icmp_type", "echo-request"),
    (host(2), "fib_addrtype", "local"),
    (bytes.fromhex("aabbccddeeff"), "ether_addr", "aa:bb:cc:dd:ee:ff"),
    (host(0x10002), "classid", "1:2"),
    (host(5000), "time", 5),
]


@pytest.mark.parametrize(("raw", "kind", "expected"), VALUES)
def test_value(raw: bytes, kind: str, expected: object) -> None:
    assert format_value(raw, kind, {7: "eth0"}) == expected


def test_a_type_without_a_form() -> None:
    with pytest.raises(UnformattableValueError):
        format_value(bytes(16), "ct_label", {})
    with pytest.raises(UnformattableValueError):
        format_value(bytes(3), "ipv4_addr", {})


def test_prefixes() -> None:
    net = bytes((10, 0, 0, 0))
    assert format_prefix(net, bytes((255, 0, 0, 0)), "ipv4_addr") == {
        "prefix": {"addr": "10.0.0.0", "len": 8}
    }
    assert format_prefix(net, bytes((255, 0, 255, 0)), "ipv4_addr") is None
    assert format_prefix(net, bytes((255, 0, 0, 0)), "mark") is None


def test_several_flags_as_an_element() -> None:
    assert element_flags(b"\x12", "tcp_flag", False) == {"|": ["syn", "ack"]}


def test_types_of_a_concatenation() -> None:
    """6 bits for each part: ipv4_addr is 7, inet_proto 12, inet_service 13."""
    assert type_names(7 << 12 | 12 << 6 | 13) == ("ipv4_addr", "inet_proto", "inet_service")
    assert type_names(63) == ()
    assert part_lengths(("ipv4_addr", "inet_proto"), 8) == [4, 1]
    assert part_lengths(("unknown",), 6) == [6]

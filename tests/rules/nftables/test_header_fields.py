"""Where the fields of headers are."""

from __future__ import annotations

import pytest

from kptrace.rules.nftables.header_fields import find, starting

# offset and length in bits: RFC 791, 8200, 9293, 768
FIELDS = [
    ("ip", 72, 8, "protocol"),
    ("ip", 96, 32, "saddr"),
    ("ip", 128, 32, "daddr"),
    ("ip6", 64, 128, "saddr"),
    ("ip6", 48, 8, "nexthdr"),
    ("tcp", 0, 16, "sport"),
    ("tcp", 16, 16, "dport"),
    ("tcp", 104, 8, "flags"),
    ("udp", 16, 16, "dport"),
    ("icmp", 0, 8, "type"),
]


@pytest.mark.parametrize(("header", "offset", "length", "name"), FIELDS)
def test_field(header: str, offset: int, length: int, name: str) -> None:
    field = find(header, offset, length)
    assert field is not None
    assert field.name == name


def test_a_place_without_a_field() -> None:
    assert find("ip", 1, 3) is None
    assert find("fancy", 0, 8) is None
    first = starting("tcp", 16)
    assert first is not None
    assert first.name == "dport"

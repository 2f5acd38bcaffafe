"""What an element holds."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kptrace.rules.model.expressions import (
    Concat,
    Const,
    Expr,
    Field,
    InterfaceWildcard,
    Masked,
    Prefix,
    Range,
)
from kptrace.rules.model.sets import Element, SetElements, pattern_matches

HOLDS: list[tuple[Expr, str | int, bool]] = [
    (Const(value="tcp"), "tcp", True),
    (Const(value=80), 80, True),
    (Const(value=80), "80", False),
    (Prefix(address="10.0.0.0", length=8), "10.255.255.255", True),
    (Prefix(address="10.0.0.0", length=8), "11.0.0.0", False),
    (Prefix(address="0.0.0.0", length=0), "1.2.3.4", True),
    (Prefix(address="0.0.0.0", length=0), "fd00::1", False),
    (Prefix(address="fd00::", length=48), "fd00:0:0:1::1", True),
    (Prefix(address="10.0.0.0", length=8), "eth0", False),
    (Prefix(address="10.0.0.0", length=8), 10, False),
    (Masked(address="10.0.0.0", mask="255.0.255.0"), "10.7.0.9", True),
    (Masked(address="10.0.0.0", mask="255.0.255.0"), "10.7.1.9", False),
    (Range(low="10.0.0.5", high="10.0.0.9"), "10.0.0.9", True),
    (Range(low="10.0.0.5", high="10.0.0.9"), "10.0.0.10", False),
    (Range(low=1000, high=2000), 1000, True),
    (Range(low=1000, high=2000), 2001, False),
    (InterfaceWildcard(start="cali"), "cali12", True),
    (InterfaceWildcard(start="cali"), "eth0", False),
    (Field(key="ip saddr"), "10.0.0.1", False),
]


@pytest.mark.parametrize(("pattern", "value", "inside"), HOLDS)
def test_holds(pattern: Expr, value: str | int, inside: bool) -> None:
    assert pattern_matches(pattern, value) is inside


@given(st.ip_addresses(v=4), st.integers(min_value=0, max_value=32), st.ip_addresses(v=4))
def test_prefixes_as_the_standard_library_sees_them(
    base: ipaddress.IPv4Address, length: int, address: ipaddress.IPv4Address
) -> None:
    network = ipaddress.ip_network(f"{base}/{length}", strict=False)
    prefix = Prefix(address=str(network.network_address), length=length)
    assert pattern_matches(prefix, str(address)) is (address in network)


def test_the_longest_prefix_decides() -> None:
    wide = Element(key=Prefix(address="10.0.0.0", length=8), data=Const(value=1))
    narrow = Element(key=Prefix(address="10.1.0.0", length=16), data=Const(value=2))
    single = Element(key=Const(value="10.1.1.1"), data=Const(value=3))
    members = SetElements([wide, narrow, single])
    assert members.lookup(("10.9.0.1",)) == wide
    assert members.lookup(("10.1.0.1",)) == narrow
    assert members.lookup(("10.1.1.1",)) == single


def test_concatenations_hold_part_by_part() -> None:
    pair = Element(key=Concat(parts=(Prefix(address="10.0.0.0", length=8), Range(low=80, high=90))))
    members = SetElements([pair])
    assert members.lookup(("10.0.0.1", 85)) == pair
    assert members.lookup(("10.0.0.1", 91)) is None
    assert members.lookup(("10.0.0.1",)) is None


def test_a_catch_all_is_the_last_resort() -> None:
    element, rest = Element(key=Const(value=1)), Element(key=InterfaceWildcard(start=""))
    members = SetElements([rest, element])
    assert members.lookup((1,)) == element
    assert members.lookup((2,)) == rest

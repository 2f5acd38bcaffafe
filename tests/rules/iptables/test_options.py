"""How the arguments of iptables' options are read."""

from __future__ import annotations

import pytest

from kptrace.rules.iptables.options import (
    Option,
    Unknown,
    address,
    number,
    numbers,
    protocol,
    quoted,
)
from kptrace.rules.model.expressions import Const, Masked, Prefix, Range


def test_addresses() -> None:
    assert address("10.0.0.1") == address("10.0.0.1/32") == Const(value="10.0.0.1")
    assert address("fd00::1/128") == Const(value="fd00::1")
    assert address("10.0.0.0/8") == Prefix(address="10.0.0.0", length=8)
    assert address("10.0.0.0/255.0.255.0") == Masked(address="10.0.0.0", mask="255.0.255.0")


@pytest.mark.parametrize(
    "text", ["x.x.3.6", "10.x.x.3/32", "10.0.0.0/64", "web", "", "10.0.0.0/a.b"]
)
def test_what_is_no_address(text: str) -> None:
    """An address that was made unreadable by hand must not count as another one."""
    with pytest.raises(ValueError):
        address(text)


def test_numbers() -> None:
    assert (number("10"), number("0x10"), number("010")) == (10, 16, 8)
    assert numbers("80") == Const(value=80)
    assert numbers("1000:") == Range(low=1000, high=65535)
    assert numbers("domain:http") == Range(low=53, high=80)


def test_protocols() -> None:
    assert (protocol("6"), protocol("ipv6-icmp"), protocol("IPENCAP"), protocol("200")) == (
        "tcp",
        "icmpv6",
        "ipip",
        "200",
    )


def test_the_text_of_an_option() -> None:
    option = Option(name="--comment", args=("a b",), negated=True)
    assert option.text == '! --comment "a b"'
    assert quoted('"') == r'"\""'
    with pytest.raises(Unknown):
        _ = Option(name="--x", args=("1", "2")).arg

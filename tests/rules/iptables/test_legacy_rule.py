"""A rule of a legacy table: the fixed part of its entry, laid out as struct ipt_ip."""

from __future__ import annotations

from ipaddress import ip_network
from struct import pack

import pytest

from kptrace.rules.byte_reader import encode_hex
from kptrace.rules.iptables.legacy_rule import read

ACCEPT = {"immediate": {"dreg": 0, "data": {"code": 1}}}


def entry(
    source: str = "0.0.0.0/0",
    destination: str = "0.0.0.0/0",
    interface: str = "",
    protocol: int = 0,
    flags: int = 0,
    inverted: int = 0,
) -> str:
    """struct ipt_ip: addresses, masks, interfaces, their masks, proto, flags, invflags."""
    nets = ip_network(source), ip_network(destination)
    whole = not interface.endswith("+")
    name = interface.removesuffix("+").encode() + (b"\0" if interface and whole else b"")
    addresses = b"".join(net.network_address.packed for net in nets)
    masks = b"".join(net.netmask.packed for net in nets)
    interfaces = name.ljust(16, b"\0") + bytes(16)
    covered = (b"\xff" * len(name)).ljust(16, b"\0") + bytes(16)
    data = addresses + masks + interfaces + covered
    return encode_hex(data + pack("=HBB", protocol, flags, inverted))


def text(ip: str, *expressions: object) -> str:
    tree = {"ip": ip, "expressions": list(expressions)}
    return read(tree, "ip", lambda number: "web").text()


def test_the_options_of_every_rule() -> None:
    assert text(entry(), ACCEPT) == "-j ACCEPT"
    assert text(entry("10.0.0.0/8", "10.96.0.1/32", protocol=6), ACCEPT) == (
        "-s 10.0.0.0/8 -d 10.96.0.1/32 -p tcp -j ACCEPT"
    )
    assert text(entry(interface="eth0"), ACCEPT) == "-i eth0 -j ACCEPT"
    assert text(entry(interface="cali+"), ACCEPT) == "-i cali+ -j ACCEPT"


def test_negations() -> None:
    """IPT_INV_SRCIP, IPT_INV_VIA_IN, IPT_INV_PROTO"""
    assert text(entry("10.0.0.0/8", inverted=8), ACCEPT) == "! -s 10.0.0.0/8 -j ACCEPT"
    assert text(entry(interface="lo", inverted=1), ACCEPT) == "! -i lo -j ACCEPT"
    assert text(entry(protocol=17, inverted=64), ACCEPT) == "! -p udp -j ACCEPT"


def test_a_jump_and_a_goto() -> None:
    for code, flag in ((-3, "-j"), (-4, "-g")):
        jump = {"immediate": {"dreg": 0, "data": {"code": code, "chain": "KUBE-SERVICES"}}}
        assert text(entry(), jump) == f"{flag} KUBE-SERVICES"


@pytest.mark.parametrize("expression", [{"immediate": {}}, {"immediate": {"data": {"code": 9}}}])
def test_another_tree_is_refused(expression: object) -> None:
    with pytest.raises(ValueError):
        text(entry(), expression)

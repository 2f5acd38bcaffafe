"""A rule that is filled part by part, in the order of iptables-save."""

from __future__ import annotations

from struct import pack

import pytest

from kptrace.rules.byte_reader import encode_hex
from kptrace.rules.iptables.kernel_rule import (
    KernelRule,
    NotIptablesError,
    address_and_mask,
    protocol_name,
)

MARK = encode_hex(pack("=IIB", 0x4000, 0x4000, 0))


def rule() -> KernelRule:
    return KernelRule("ip", lambda number: f"set{number}")


def test_the_order_of_the_options() -> None:
    filled = rule()
    filled.jump(-3, "KUBE-MARK-MASQ")
    filled.match({"name": "mark", "rev": 1, "info": MARK})
    filled.option("-p", "tcp", False)
    filled.option("-o", "eth0", False)
    filled.option("-s", "10.0.0.0/8", True)
    assert filled.text() == (
        "! -s 10.0.0.0/8 -o eth0 -p tcp -m mark --mark 0x4000/0x4000 -j KUBE-MARK-MASQ"
    )
    assert filled.chain == "KUBE-MARK-MASQ"


def test_verdicts() -> None:
    texts = []
    for code in (0, 1, -5):
        filled = rule()
        filled.jump(code)
        texts.append(filled.text())
    assert texts == ["-j DROP", "-j ACCEPT", "-j RETURN"]
    with pytest.raises(NotIptablesError):
        rule().jump(-1)


def test_an_option_comes_once() -> None:
    filled = rule()
    filled.option("-s", "10.0.0.1/32", False)
    with pytest.raises(NotIptablesError):
        filled.option("-s", "10.0.0.2/32", False)


def test_what_is_not_understood_keeps_its_bytes() -> None:
    filled = rule()
    filled.match({"name": "fancy", "rev": 3, "info": "0102"})
    filled.call({"name": "MAGIC", "rev": 1, "info": "03"})
    assert filled.text() == "-m fancy --revision 3 --info 0102 -j MAGIC --revision 1 --info 03"


def test_addresses_and_protocols() -> None:
    assert address_and_mask(bytes((10, 0, 0, 0)), bytes((255, 0, 0, 0))) == "10.0.0.0/8"
    assert address_and_mask(bytes((10, 0, 0, 0)), bytes((255, 0, 255, 0))) == (
        "10.0.0.0/255.0.255.0"
    )
    assert (protocol_name(6), protocol_name(58), protocol_name(200)) == ("tcp", "ipv6-icmp", "200")

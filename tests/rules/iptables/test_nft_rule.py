"""A rule of iptables-nft, by the expressions that iptables-nft writes."""

from __future__ import annotations

from struct import pack

import pytest

from kptrace.rules.iptables.kernel_rule import NotIptablesError
from kptrace.rules.iptables.nft_rule import read

EQ, NEQ = 0, 1
L4PROTO, IIFNAME, MARK = 16, 6, 3
NETWORK, TRANSPORT = 1, 2
TCP = [{"meta": {"dreg": 1, "key": L4PROTO}}, {"cmp": {"sreg": 1, "op": EQ, "data": "06"}}]
ACCEPT = {"immediate": {"dreg": 0, "data": {"code": 1}}}


def load(base: int, offset: int, size: int) -> dict[str, object]:
    return {"payload": {"dreg": 1, "base": base, "offset": offset, "len": size}}


def compare(data: str, op: int = EQ) -> dict[str, object]:
    return {"cmp": {"sreg": 1, "op": op, "data": data}}


def text(*expressions: object, family: str = "ip") -> str:
    return read(list(expressions), family, lambda number: "web", "").text()  # type: ignore[arg-type]


def test_an_address_and_a_port() -> None:
    actual = text(
        load(NETWORK, 16, 4),
        compare("0a600001"),
        *TCP,
        load(TRANSPORT, 2, 2),
        compare("01bb"),
        ACCEPT,
    )
    assert actual == "-d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j ACCEPT"


def test_a_network_is_a_load_of_fewer_bytes_or_a_mask() -> None:
    assert (
        text(load(NETWORK, 12, 2), compare("0af4", NEQ), ACCEPT) == "! -s 10.244.0.0/16 -j ACCEPT"
    )
    mask = {"bitwise": {"sreg": 1, "dreg": 1, "mask": "fffff000", "xor": "00000000"}}
    assert text(load(NETWORK, 12, 4), mask, compare("0a600000"), ACCEPT) == (
        "-s 10.96.0.0/20 -j ACCEPT"
    )


def test_an_interface_and_its_beginning() -> None:
    name = {"meta": {"dreg": 1, "key": IIFNAME}}
    assert text(name, compare(b"eth0\0".hex()), ACCEPT) == "-i eth0 -j ACCEPT"
    assert text(name, compare(b"cali".hex()), ACCEPT) == "-i cali+ -j ACCEPT"


def test_a_mark_under_a_mask() -> None:
    meta = {"meta": {"dreg": 1, "key": MARK}}
    four = pack("=I", 0x4000).hex()
    mask = {"bitwise": {"sreg": 1, "dreg": 1, "mask": four, "xor": "00000000"}}
    assert text(meta, mask, compare(four), ACCEPT) == "-m mark --mark 0x4000/0x4000 -j ACCEPT"


def test_flags_of_tcp() -> None:
    mask = {"bitwise": {"sreg": 1, "dreg": 1, "mask": "17", "xor": "00"}}
    actual = text(*TCP, load(TRANSPORT, 13, 1), mask, compare("02"), ACCEPT)
    assert actual == "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT"


@pytest.mark.parametrize(
    "expression",
    [
        {"ct": {"dreg": 1, "key": 0}},
        {"payload": {"sreg": 1, "base": 1, "offset": 0, "len": 1}},
        {"cmp": {"sreg": 1}},
        load(TRANSPORT, 2, 2) | {"unused": 1},
    ],
)
def test_what_iptables_does_not_write_is_of_nft(expression: object) -> None:
    with pytest.raises((NotIptablesError, ValueError)):
        text(expression, compare("0050"), ACCEPT)

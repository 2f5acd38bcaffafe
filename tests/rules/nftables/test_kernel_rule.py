"""Rules of nf_tables, as expressions of the kernel, in the JSON of nft.

The expressions are those that ``nft --debug=netlink`` prints for the text.
"""

from __future__ import annotations

from struct import pack

import pytest

from kptrace.rules.nftables.kernel_rule import comment, statements
from kptrace.rules.nftables.registers import Json

EQ, NEQ = 0, 1


def meta(key: int, register: int = 1) -> Json:
    return {"meta": {"dreg": register, "key": key}}


def payload(base: int, offset: int, size: int, register: int = 1) -> Json:
    return {"payload": {"dreg": register, "base": base, "offset": offset, "len": size}}


def compare(data: str, op: int = EQ) -> Json:
    return {"cmp": {"sreg": 1, "op": op, "data": data}}


def json_of(*expressions: Json, family: str = "ip") -> list[Json]:
    return statements(expressions, family, {}, {})


def match(left: Json, right: Json, op: str = "==") -> Json:
    return {"match": {"op": op, "left": left, "right": right}}


def field(protocol: str, name: str) -> Json:
    return {"payload": {"protocol": protocol, "field": name}}


def test_a_port_implies_its_protocol() -> None:
    """``tcp dport 80 accept``: the comparison with ``meta l4proto`` is not printed."""
    accept = {"immediate": {"dreg": 0, "data": {"code": 1}}}
    actual = json_of(meta(16), compare("06"), payload(2, 2, 2), compare("0050"), accept)
    assert actual == [match(field("tcp", "dport"), 80), {"accept": None}]


def test_an_address_and_a_prefix() -> None:
    assert json_of(payload(1, 12, 4), compare("0a000001")) == [
        match(field("ip", "saddr"), "10.0.0.1")
    ]
    assert json_of(payload(1, 12, 1), compare("0a", NEQ)) == [
        match(field("ip", "saddr"), {"prefix": {"addr": "10.0.0.0", "len": 8}}, "!=")
    ]


def test_in_an_inet_table_the_family_is_implied_by_the_address() -> None:
    actual = json_of(meta(15), compare("02"), payload(1, 12, 4), compare("0a000001"), family="inet")
    assert actual == [match(field("ip", "saddr"), "10.0.0.1")]


def test_a_range_and_flags() -> None:
    actual = json_of(
        meta(16),
        compare("06"),
        payload(2, 2, 2),
        {"cmp": {"sreg": 1, "op": 5, "data": "0050"}},
        {"cmp": {"sreg": 1, "op": 3, "data": "005a"}},
    )
    assert actual == [match(field("tcp", "dport"), {"range": [80, 90]})]
    state = {"ct": {"dreg": 1, "key": 0}}
    mask = pack("=I", 8).hex()
    masked = {"bitwise": {"sreg": 1, "dreg": 1, "mask": mask, "xor": "00000000"}}
    assert json_of(state, masked, compare("00000000", NEQ)) == [
        match({"ct": {"key": "state"}}, "new", "in")
    ]


def test_translations_and_marks() -> None:
    address = {"immediate": {"dreg": 1, "data": "0af40005"}}
    port = {"immediate": {"dreg": 2, "data": "1f90"}}
    nat = {"nat": {"type": 1, "family": 2, "reg_addr_min": 1, "reg_proto_min": 2}}
    assert json_of(address, port, nat) == [{"dnat": {"addr": "10.244.0.5", "port": 8080}}]
    mark = {"immediate": {"dreg": 1, "data": pack("=I", 5).hex()}}
    assert json_of(mark, {"meta": {"sreg": 1, "key": 3}}) == [
        {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 5}}
    ]


def test_statements() -> None:
    actual = json_of(
        {"counter": {"packets": 3, "bytes": 180}},
        {"limit": {"rate": 10, "unit": 1, "burst": 5}},
        {"numgen": {"dreg": 1, "modulus": 3, "type": 1}},
        {"notrack": {}},
        {"reject": {"type": 0, "icmp_code": 3}},
    )
    assert actual == [
        {"counter": {"packets": 3, "bytes": 180}},
        {"limit": {"rate": 10, "burst": 5, "per": "second"}},
        {"notrack": None},
        {"reject": {"type": "icmp", "expr": "port-unreachable"}},
    ]


def test_what_is_not_understood_stays_a_tree() -> None:
    assert json_of({"xfrm": {"key": 1}}) == [{"xfrm": {"key": 1}}]
    with pytest.raises(ValueError):
        json_of("nothing")


def test_a_comment_in_the_user_data() -> None:
    """libnftnl/udata.h: type, length, value."""
    assert comment("0004" + b"abc\0".hex()) == "abc"
    assert comment("0104" + b"abc\0".hex()) == ""
    assert comment("") == ""

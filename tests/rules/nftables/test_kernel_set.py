"""Sets and maps of nf_tables in the JSON of nft."""

from __future__ import annotations

import pytest

from kptrace.rules.nftables.kernel_set import SetReader
from kptrace.rules.nftables.registers import Json

INTERVAL, MAP, TIMEOUT = 4, 8, 16
IPV4, PROTO, PORT = 7, 12, 13
VERDICTS = 0xFFFFFF00


def elements(tree: Json, *listed: Json) -> list[Json]:
    return list(SetReader({"name": "s", **tree}, {}).elements(listed))


def test_a_set_of_addresses_in_the_order_of_numbers() -> None:
    tree = {"key_type": IPV4, "key_len": 4}
    assert elements(tree, {"key": "0a000002"}, {"key": "0a000001"}) == ["10.0.0.1", "10.0.0.2"]


def test_a_verdict_map_with_a_key_of_several_parts() -> None:
    tree = {
        "key_type": IPV4 << 12 | PROTO << 6 | PORT,
        "key_len": 12,
        "flags": MAP,
        "data_type": VERDICTS,
    }
    data = {"code": -4, "chain": "service-X"}
    assert elements(tree, {"key": "0a600001" + "06000000" + "01bb0000", "data": data}) == [
        [{"concat": ["10.96.0.1", "tcp", 443]}, {"goto": {"target": "service-X"}}]
    ]


def test_intervals_have_a_start_and_the_value_after_their_end() -> None:
    tree = {"key_type": IPV4, "key_len": 4, "flags": INTERVAL}
    actual = elements(
        tree,
        {"key": "0a000000"},
        {"key": "0b000000", "flags": 1},
        {"key": "c0a80001"},
        {"key": "c0a80006", "flags": 1},
    )
    assert actual == [
        {"prefix": {"addr": "10.0.0.0", "len": 8}},
        {"range": ["192.168.0.1", "192.168.0.5"]},
    ]


def test_what_an_element_has_beside_its_key() -> None:
    tree = {"key_type": IPV4, "key_len": 4, "flags": TIMEOUT, "timeout": 10_800_000}
    reader = SetReader({"name": "s", **tree}, {})
    assert reader.timeout == 10800
    assert reader.flag_names() == ("timeout",)
    comment = "0002" + b"a\0".hex()
    listed = {"key": "0a000001", "timeout": 60_000, "expiration": 30_000, "userdata": comment}
    assert list(reader.elements([listed])) == [
        {"elem": {"val": "10.0.0.1", "timeout": 60, "expires": 30, "comment": "a"}}
    ]


def test_another_tree_is_refused() -> None:
    with pytest.raises(KeyError):
        SetReader({"name": "s"}, {})

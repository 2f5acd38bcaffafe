"""Netlink bytes: what is packed reads back, and no bytes make the readers raise."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kptrace.agent.netlink import socket as netlink

small = st.binary(max_size=40)


@given(st.lists(st.tuples(st.integers(1, 100), small), max_size=8))
def test_attributes_read_back(pairs: list[tuple[int, bytes]]) -> None:
    data = b"".join(netlink.attribute(kind, value) for kind, value in pairs)
    assert len(data) % 4 == 0
    assert list(netlink.attribute_list(data)) == pairs


@given(small, small)
def test_nested_attributes_read_back(one: bytes, two: bytes) -> None:
    data = netlink.nested(4, netlink.attribute(1, one), netlink.attribute(2, two))
    assert netlink.attributes(netlink.attributes(data)[4]) == {1: one, 2: two}


@given(st.lists(st.tuples(st.integers(0, 65535), small), max_size=5))
def test_messages_read_back(pairs: list[tuple[int, bytes]]) -> None:
    padded = [(kind, body + bytes(-len(body) % 4)) for kind, body in pairs]
    data = b"".join(
        netlink.message(kind, netlink.REQUEST, body, n) for n, (kind, body) in enumerate(padded)
    )
    read = list(netlink.messages(data))
    assert [(m.type, m.body) for m in read] == padded
    assert [m.sequence for m in read] == list(range(len(padded)))


@given(st.binary(max_size=200))
def test_no_bytes_make_a_reader_raise(data: bytes) -> None:
    list(netlink.messages(data))
    for value in netlink.attributes(data).values():
        netlink.number(value)
        netlink.string(value)


def test_a_batch_as_the_kernel_documents_it() -> None:
    one = netlink.message(0x0A00, 5, netlink.netfilter(1, netlink.text(1, "t")))
    begin, inner, end = netlink.messages(netlink.batch(10, [one]))
    assert (begin.type, end.type) == (0x10, 0x11)
    assert begin.body == end.body == bytes([0, 0, 0, 10])  # the resource is the subsystem
    assert inner.type == 0x0A00
    assert inner.body[4:] == b"\x06\x00\x01\x00t\x00\x00\x00"


def test_numbers_are_big_endian_and_texts_end_at_zero() -> None:
    assert netlink.be32(2, 8472)[4:] == b"\x00\x00\x21\x18"
    assert netlink.be32(2, -350)[4:] == b"\xff\xff\xfe\xa2"
    assert netlink.number(None) == 0
    assert netlink.string(b"nat\0junk") == "nat"

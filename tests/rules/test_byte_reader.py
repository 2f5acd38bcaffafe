"""Bytes of the kernel's structures: numbers, addresses, masks, and their hexadecimal form."""

from __future__ import annotations

import sys

import pytest

from kptrace.rules.byte_reader import (
    ByteReader,
    TruncatedData,
    address_text,
    decode_hex,
    encode_hex,
    prefix_length,
)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"\x01\0\0", "010000"),
        (b"hello" + bytes(251), "68656c6c6f+251"),
        (bytes(16), "+16"),
        (bytes(7), "00000000000000"),
    ],
)
def test_a_long_run_of_zeros_is_counted(data: bytes, text: str) -> None:
    assert encode_hex(data) == text
    assert decode_hex(text) == data


@pytest.mark.parametrize("text", ["x", "0", "00+x", "00+-1", "+99999999999", "zz+1"])
def test_what_is_no_such_text(text: str) -> None:
    with pytest.raises(ValueError):
        decode_hex(text)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("0a000001", "10.0.0.1"),
        ("fd000000000000000000000000000001", "fd00::1"),
        ("00000000000000000000ffff01020304", "::ffff:1.2.3.4"),
        ("00000000000000000000000001020304", "::1.2.3.4"),
        ("00000000000000000000000000000001", "::1"),
        ("00000000000000000000000000000000", "::"),
    ],
)
def test_addresses_as_inet_ntop_has_them(raw: str, text: str) -> None:
    assert address_text(bytes.fromhex(raw)) == text


@pytest.mark.parametrize(
    ("mask", "length"), [("ffffff00", 24), ("00000000", 0), ("ffffffff", 32), ("ff00ff00", None)]
)
def test_masks(mask: str, length: int | None) -> None:
    assert prefix_length(bytes.fromhex(mask)) == length


def test_numbers_are_of_the_machines_order_unless_said_otherwise() -> None:
    blob = ByteReader(
        (0x1234).to_bytes(2, sys.byteorder) + b"\x12\x34" + (7).to_bytes(8, sys.byteorder)
    )
    assert (blob.u16(0), blob.be16(2), blob.u64(4)) == (0x1234, 0x1234, 7)


def test_reading_beyond_the_end() -> None:
    blob = ByteReader(b"ab\0c")
    assert blob.text(0, 4) == "ab"
    for read in (lambda: blob.u32(1), lambda: blob.bytes(2, 3), lambda: blob.address(1)):
        with pytest.raises(TruncatedData):
            read()

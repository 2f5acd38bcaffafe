"""BTF: a small one built by hand after the format's documentation."""

from __future__ import annotations

from contextlib import suppress
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kptrace.bpf.btf import BadBtf, Btf

INT, STRUCT, UNION, ENUM, FUNC_PROTO = 1, 4, 5, 6, 13


class Builder:
    def __init__(self) -> None:
        self._strings, self._types = b"\0", b""

    def name(self, text: str) -> int:
        if not text:
            return 0
        self._strings += text.encode() + b"\0"
        return len(self._strings) - len(text) - 1

    def type(self, kind: int, name: str, count: int, rest: bytes, flag: int = 0) -> None:
        info = flag << 31 | kind << 24 | count
        self._types += pack("=III", self.name(name), info, 0) + rest

    def struct(self, kind: int, name: str, *members: tuple[str, int, int], flag: int = 0) -> None:
        rest = b"".join(pack("=III", self.name(n), t, bits) for n, t, bits in members)
        self.type(kind, name, len(members), rest, flag)

    def build(self) -> bytes:
        head = pack("=HBBI", 0xEB9F, 1, 0, 24)
        sizes = (0, len(self._types), len(self._types), len(self._strings))
        return head + pack("=IIII", *sizes) + self._types + self._strings


@pytest.fixture
def built() -> bytes:
    b = Builder()
    b.type(INT, "int", 0, pack("=I", 32))  # 1
    b.type(FUNC_PROTO, "", 2, bytes(16))  # 2
    b.struct(STRUCT, "", ("deep", 1, 64), ("deeper", 1, 96))  # 3
    b.struct(UNION, "", ("plain", 1, 0), ("", 3, 0))  # 4
    b.struct(STRUCT, "sk_buff", ("first", 1, 0), ("", 4, 128), ("named", 3, 512))  # 5
    b.struct(STRUCT, "flags", ("bit", 1, 3 << 24 | 40), flag=1)  # 6
    reasons = (("NOT_SPECIFIED", 2), ("NO_SOCKET", 3))
    b.type(ENUM, "reason", 2, b"".join(pack("=Ii", b.name(n), v) for n, v in reasons))  # 7
    return b.build()


def test_offsets_of_members_and_of_those_in_nameless_structs(built: bytes) -> None:
    btf = Btf(built, ("sk_buff", "flags"))
    assert btf.offset("sk_buff", "first") == 0
    assert btf.offset("sk_buff", "plain") == 16
    assert btf.offset("sk_buff", "deep") == 24
    assert btf.offset("sk_buff", "deeper") == 28
    assert btf.offset("sk_buff", "named") == 64
    assert btf.offset("flags", "bit") == 5, "with kind_flag the top byte is a width"


def test_what_is_not_there_is_said_by_name(built: bytes) -> None:
    btf = Btf(built, ("sk_buff", "net"))
    with pytest.raises(BadBtf, match=r"sk_buff\.absent"):
        btf.offset("sk_buff", "absent")
    with pytest.raises(BadBtf, match=r"net\.ns"):
        btf.offset("net", "ns")


def test_an_enum(built: bytes) -> None:
    assert Btf(built, ("reason",)).enum("reason") == {2: "NOT_SPECIFIED", 3: "NO_SOCKET"}
    assert Btf(built, ("reason",)).enum("other") == {}


@given(st.binary(max_size=100), st.integers(0, 200), st.integers(0, 400))
def test_damaged_bytes_are_an_error_of_one_kind(noise: bytes, at: int, end: int) -> None:
    b = Builder()
    b.struct(STRUCT, "sk_buff", ("first", 1, 0), ("", 1, 128))
    whole = b.build()
    damaged = (whole[:at] + noise + whole[at + len(noise) :])[:end]
    with suppress(BadBtf):
        Btf(damaged, ("sk_buff",)).offset("sk_buff", "other")

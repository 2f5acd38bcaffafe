"""The drop program's bytes and the reading of its records; that it runs, the kernel tier shows."""

from __future__ import annotations

from struct import pack, unpack_from

from hypothesis import given
from hypothesis import strategies as st

from kptrace.bpf import drop_program
from kptrace.packet.probe_id import blocks, probe_ids


class Offsets:
    """Stands in for a kernel's BTF: every member at 8."""

    def offset(self, struct: str, member: str) -> int:
        return 8


def _program(count: int, *, text: bool) -> bytes:
    maps = drop_program.Maps(ring=11, record=12, format=13)
    chosen = blocks(probe_ids(0x1234, count))
    return drop_program.program(Offsets(), maps, chosen, text=text)  # type: ignore[arg-type]


def test_jumps_stay_inside_and_the_end_is_an_exit() -> None:
    code = _program(3, text=True)
    count = len(code) // 8
    for at in range(count):
        opcode, _, offset, _ = unpack_from("=BBhi", code, at * 8)
        if opcode in (0x05, 0x15, 0x16):
            assert at < at + 1 + offset < count
    assert code[-8] == 0x95


def test_a_hundred_cookies_cost_what_one_does() -> None:
    assert len(_program(1, text=False)) == len(_program(100, text=False))
    assert len(_program(1, text=False)) < len(_program(1, text=True)) < 4096 * 8


def test_a_record_reads_back() -> None:
    fixed = pack("=QIIIIiI", 5, 7, 3, 4026532181, 4026532182, 40, 0)
    record = fixed.ljust(32, b"\0") + b"cni0".ljust(16, b"\0")
    record += b"nft_do_chain+0x47f/0x5e0 [nf_tables]".ljust(80, b"\0")
    record += bytes(range(256))
    report = drop_program.read_report(record)
    assert report == drop_program.Report(
        time=5,
        reason=7,
        ifindex=3,
        device_ns=4026532181,
        socket_ns=4026532182,
        device="cni0",
        symbol="nft_do_chain+0x47f/0x5e0 [nf_tables]",
        data=bytes(range(40)),
    )


@given(st.binary(max_size=500))
def test_any_bytes_are_a_record_or_none(data: bytes) -> None:
    report = drop_program.read_report(data)
    assert report is None or len(report.data) <= 256

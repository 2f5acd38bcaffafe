"""The bytes of iptables' matches, laid out as the kernel's structures, as options of a save."""

from __future__ import annotations

from ipaddress import ip_address
from struct import pack

import pytest

from kptrace.rules.byte_reader import ByteReader, TruncatedData
from kptrace.rules.iptables.kernel_matches import match_args
from kptrace.rules.iptables.options import Unknown


def args(name: str, revision: int, data: bytes, family: str = "ip") -> str:
    return " ".join(match_args(name, revision, ByteReader(data, family), lambda number: "web"))


def ipv4(text: str) -> bytes:
    return ip_address(text).packed + bytes(12)


# struct xt_tcp: spts[2], dpts[2], option, flg_mask, flg_cmp, invflags
TCP = "=HHHHBBBB"
# struct xt_mark_mtinfo1: mark, mask, invert
MARK = "=IIB"
MATCHES = [
    ("tcp", 0, pack(TCP, 0, 65535, 80, 80, 0, 0, 0, 0), "--dport 80"),
    ("tcp", 0, pack(TCP, 1024, 65535, 0, 65535, 0, 0, 0, 1), "! --sport 1024:65535"),
    ("tcp", 0, pack(TCP, 0, 65535, 0, 65535, 0, 0x17, 2, 0), "--tcp-flags FIN,SYN,RST,ACK SYN"),
    ("udp", 0, pack("=HHHHB", 0, 65535, 53, 53, 2), "! --dport 53"),
    ("icmp", 0, pack("BBBB", 3, 1, 1, 0), "--icmp-type 3/1"),
    ("icmp", 0, pack("BBBB", 255, 0, 255, 0), "--icmp-type any"),
    ("mark", 1, pack(MARK, 0x4000, 0x4000, 0), "--mark 0x4000/0x4000"),
    ("mark", 1, pack(MARK, 5, 0xFFFFFFFF, 1), "! --mark 0x5"),
    (
        "comment",
        0,
        b"default/web cluster IP".ljust(256, b"\0"),
        '--comment "default/web cluster IP"',
    ),
    ("state", 0, pack("=I", 8 | 4), "--state NEW,RELATED"),
    ("addrtype", 1, pack("=HHI", 0, 4, 0), "--dst-type LOCAL"),
    ("addrtype", 1, pack("=HHI", 4, 0, 1), "! --src-type LOCAL"),
    ("length", 0, pack("=HHB", 10, 20, 0), "--length 10:20"),
    ("ttl", 0, pack("BB", 2, 5), "--ttl-lt 5"),
    ("statistic", 0, pack("=HHI", 0, 0, 1 << 30), "--mode random --probability 0.50000000000"),
    ("statistic", 0, pack("=HHII", 1, 0, 2, 1), "--mode nth --every 3 --packet 1"),
    ("limit", 0, pack("=II", 120_000, 5), "--limit 5/min"),
    ("set", 1, pack("=HBB", 7, 2, 2), "--match-set web src,dst"),
    ("set", 1, pack("=HBB", 7, 1, 1), "! --match-set web dst"),
    ("rpfilter", 0, pack("B", 2 | 8), "--validmark --invert"),
    (
        "iprange",
        1,
        ipv4("10.0.0.1") + ipv4("10.0.0.9") + bytes(32) + pack("B", 1),
        "--src-range 10.0.0.1-10.0.0.9",
    ),
]


@pytest.mark.parametrize(("name", "revision", "data", "expected"), MATCHES)
def test_match(name: str, revision: int, data: bytes, expected: str) -> None:
    assert args(name, revision, data) == expected


def test_an_unknown_match_or_revision() -> None:
    for name, revision in (("fancy", 0), ("tcp", 9)):
        with pytest.raises(Unknown):
            args(name, revision, bytes(64))


def test_a_structure_that_is_too_short() -> None:
    with pytest.raises(TruncatedData):
        args("tcp", 0, bytes(3))

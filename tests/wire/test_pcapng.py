"""The capture file, read back by scapy and by tcpdump."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapNgReader, rdpcap

from kptrace.model import Place, Sighting
from kptrace.wire.headers import decode
from kptrace.wire.pcapng import write

SYN = bytes(IP(src="10.244.1.10", dst="10.96.0.50") / TCP(dport=80, seq=7))
SYN6 = bytes(IPv6(src="fd00::1", dst="fd00::2") / TCP(dport=80, seq=8))


def _seen(interface: str, frame: bytes, pod: str = "", direction: str = "in") -> Sighting:
    packet = decode(frame)
    assert packet is not None
    return Sighting(
        place=Place(node="node-a", pod=pod),
        interface=interface,
        ifindex=3,
        direction="in" if direction == "in" else "out",
        packet=packet,
        time_ns=1_700_000_000_123_456_789,
        cookie=7,
        dst_mac="02:00:00:00:00:02",
        frame=frame,
    )


SIGHTINGS = (
    _seen("eth0", SYN, "shop/client", "out"),
    _seen("cni0", SYN),
    _seen("tunl0", SYN6),
    _seen("cni0", SYN6),
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.pcapng"
    path.write_bytes(write(SIGHTINGS, lambda s: f"seen at {s.interface} ✓"))
    return path


def test_scapy_reads_the_packets(file: Path) -> None:
    read = rdpcap(str(file))
    assert [bytes(p[Ether].payload) for p in read] == [SYN, SYN, SYN6, SYN6]
    assert read[0][Ether].dst == "02:00:00:00:00:02"
    assert [p[Ether].type for p in read] == [0x800, 0x800, 0x86DD, 0x86DD]
    assert next(p.comment.decode() for p in read) == "seen at eth0 ✓"
    assert [p.sniffed_on for p in read] == [
        "node-a/shop/client/eth0",
        "node-a/cni0",
        "node-a/tunl0",
        "node-a/cni0",
    ]
    assert float(read[0].time) == pytest.approx(1_700_000_000.123456)


def test_times_are_nanoseconds_and_directions_flags(file: Path) -> None:
    with RawPcapNgReader(str(file)) as reader:
        seen = [meta for _, meta in reader]
    assert all(m.tsresol == 1_000_000_000 for m in seen)
    assert [(m.tshigh << 32 | m.tslow) for m in seen] == [1_700_000_000_123_456_789] * 4
    assert [m.direction for m in seen] == [2, 1, 1, 1]


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="no tcpdump to read it")
def test_tcpdump_reads_it(file: Path) -> None:
    run = subprocess.run(["tcpdump", "-nr", file], capture_output=True, text=True, check=True)
    assert run.stdout.count("10.244.1.10.20 > 10.96.0.50.80: Flags [S], seq 7") == 2
    assert run.stdout.count("fd00::1.20 > fd00::2.80: Flags [S], seq 8") == 2


def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.pcapng"
    path.write_bytes(write(()))
    assert len(path.read_bytes()) % 4 == 0
    assert path.read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"


def test_hostile_words_do_not_break_the_file(tmp_path: Path) -> None:
    path = tmp_path / "hostile.pcapng"
    hostile = _seen("eth0\x00;\udc80", SYN)
    path.write_bytes(write((hostile, *SIGHTINGS), lambda s: "x" * 100_000))
    assert len(rdpcap(str(path))) == 5

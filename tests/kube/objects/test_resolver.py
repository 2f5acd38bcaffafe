"""The resolver's order of questions, and answers of all kinds; wire bytes are written by hand."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kptrace.kube.objects.resolver import Resolver, parse_resolv_conf, query, questions, read_answer
from kptrace.model import Netns
from kptrace.protocol import DnsResponse

POD = """\
search shop.svc.cluster.local svc.cluster.local cluster.local
nameserver 10.96.0.10
options ndots:5
"""
CLUSTER = Resolver(
    servers=("10.96.0.10",),
    search=("shop.svc.cluster.local", "svc.cluster.local", "cluster.local"),
    ndots=5,
)


def test_a_pods_resolv_conf() -> None:
    assert parse_resolv_conf(POD) == CLUSTER


def test_what_glibc_does_with_odd_files() -> None:
    text = """\
# nameserver 1.1.1.1
; nameserver 2.2.2.2
nameserver
nameserver not-an-address
nameserver 10.0.0.1\tignored
nameserver fd00::10
search one.example
domain two.example. three.example
options rotate ndots:99 timeout:2 attempts:x
options timeout:999
nameserver 10.0.0.3
nameserver 10.0.0.4
"""
    assert parse_resolv_conf(text) == Resolver(
        servers=("10.0.0.1", "fd00::10", "10.0.0.3"), search=("two.example",), ndots=15, timeout=30
    )


def test_an_empty_file() -> None:
    assert parse_resolv_conf("") == Resolver(servers=(), search=(), ndots=1, timeout=5)


@given(st.text())
def test_no_file_is_too_odd(text: str) -> None:
    resolver = parse_resolv_conf(text)
    assert 0 <= resolver.ndots <= 15


ORDER = {
    "web": [
        "web.shop.svc.cluster.local",
        "web.svc.cluster.local",
        "web.cluster.local",
        "web",
    ],
    "web.shop": [
        "web.shop.shop.svc.cluster.local",
        "web.shop.svc.cluster.local",
        "web.shop.cluster.local",
        "web.shop",
    ],
    "example.com.": ["example.com"],
    "a.b.c.d.e.f": [
        "a.b.c.d.e.f",
        "a.b.c.d.e.f.shop.svc.cluster.local",
        "a.b.c.d.e.f.svc.cluster.local",
        "a.b.c.d.e.f.cluster.local",
    ],
}


@pytest.mark.parametrize("name", ORDER)
def test_the_order_of_questions(name: str) -> None:
    assert list(questions(name, CLUSTER)) == ORDER[name]


def test_the_root_as_search_domain_and_doubles() -> None:
    assert questions("web", Resolver(search=("", "a.example", "a.example"))) == (
        "web",
        "web.a.example",
    )


def test_names_that_cannot_be_asked_are_skipped() -> None:
    bad = ("x" * 64, "a..b", "back\\slash", 'quo"te', "ü.example", "a b", ".".join(["abcd"] * 60))
    assert questions("web", Resolver(search=(*bad, "ok.example"))) == ("web.ok.example", "web")


def test_a_question_on_the_wire() -> None:
    assert query("web.shop", "A", 0x1234) == bytes.fromhex(
        "1234 0100 0001 0000 0000 0000"  # id, RD, one question
        "03 776562 04 73686f70 00 0001 0001"
    )


@given(st.from_regex(r"[a-z0-9.\\\"ü -]{1,80}", fullmatch=True))
def test_every_question_can_be_put_on_the_wire(name: str) -> None:
    for asked in questions(name, CLUSTER):
        assert query(asked, "AAAA", 1)


# --- answers ----------------------------------------------------------------------------------

QUESTION = bytes.fromhex("03 776562 04 73686f70 00 0001 0001")


def message(flags: int, *answers: bytes, question: bytes = QUESTION) -> bytes:
    return (
        struct.pack("!6H", 7, flags, bool(question), len(answers), 0, 0)
        + question
        + b"".join(answers)
    )


def record(type: int, data: bytes, name: bytes = b"\xc0\x0c") -> bytes:
    return name + struct.pack("!HHIH", type, 1, 30, len(data)) + data


def answer(wire: bytes = b"", error: str = "") -> DnsResponse:
    return DnsResponse(
        id=1,
        netns=Netns(node="node-a", pod="shop/client"),
        server="10.96.0.10",
        transport="udp",
        elapsed_us=812,
        message=wire,
        error=error,
    )


def test_an_address() -> None:
    wire = message(0x8580, record(1, bytes([10, 96, 41, 7])))
    found, truncated = read_answer(answer(wire), "web.shop", "A")
    assert (found.status, found.records, truncated) == ("NOERROR", (("A", "10.96.41.7"),), False)
    assert (found.name, found.type, found.server, found.transport, found.elapsed_us) == (
        "web.shop",
        "A",
        "10.96.0.10",
        "udp",
        812,
    )


def test_records_keep_their_order() -> None:
    alias = record(5, b"\x01x\x07example\x00")
    addresses = [record(1, bytes([192, 0, 2, i]), b"\x01x\x07example\x00") for i in (9, 3, 5)]
    found, _ = read_answer(answer(message(0x8180, alias, *addresses)), "web.shop", "A")
    assert found.records == (
        ("CNAME", "x.example."),
        ("A", "192.0.2.9"),
        ("A", "192.0.2.3"),
        ("A", "192.0.2.5"),
    )


@pytest.mark.parametrize(
    ("flags", "status"),
    [(0x8183, "NXDOMAIN"), (0x8182, "SERVFAIL"), (0x8185, "REFUSED"), (0x8180, "NOERROR")],
)
def test_what_the_server_says_when_there_is_no_record(flags: int, status: str) -> None:
    found, _ = read_answer(answer(message(flags)), "web.shop", "A")
    assert (found.status, found.records) == (status, ())


def test_an_answer_without_its_question_is_read() -> None:
    found, _ = read_answer(answer(message(0x8182, question=b"")), "web.shop", "A")
    assert found.status == "SERVFAIL"


def test_a_cut_answer() -> None:
    found, truncated = read_answer(answer(message(0x8380)), "web.shop", "A")
    assert truncated
    assert found.status == "NOERROR"


@pytest.mark.parametrize("error", ["TIMEOUT", "CLOSED", "UNREACHABLE"])
def test_no_answer(error: str) -> None:
    found, truncated = read_answer(answer(error=error), "web.shop", "A")
    assert (found.status, found.records, truncated) == (error, (), False)


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"\x00",
        message(0x0100),  # a question
        message(0x8180, question=bytes.fromhex("03 787878 00 0001 0001")),  # another name
        message(0x8180, question=QUESTION[:-3] + b"\x1c\x00\x01"),  # another type
        message(0x8180, record(1, b"\x0a")),  # an address of one byte
        message(0x8180, record(5, b"\xc0\x0c" * 3)),
        message(0x8180)[:-2],
        message(0xA980),  # a dynamic update's answer
    ],
)
def test_nonsense_is_malformed(wire: bytes) -> None:
    assert read_answer(answer(wire), "web.shop", "A")[0].status == "MALFORMED"


@given(st.binary(max_size=80), st.sampled_from([b"", message(0x8180), message(0x8183)]))
def test_no_bytes_raise(tail: bytes, head: bytes) -> None:
    found, truncated = read_answer(answer(head + tail), "web.shop", "A")
    assert found.status
    assert isinstance(truncated, bool)


@given(st.binary(max_size=60), st.integers(0, 0xFFFF))
def test_no_record_raises(data: bytes, type: int) -> None:
    read_answer(answer(message(0x8180, record(type, data))), "web.shop", "A")

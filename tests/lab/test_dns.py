"""The DNS server's answers, against what CoreDNS answers to the same questions."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kptrace.lab.dns import answer
from kptrace.lab.dns_zone import Zone, zone
from kptrace.model import Endpoint, Service, ServicePort

MANY = 100


def make_zone() -> Zone:
    web = Service(
        namespace="shop",
        name="web",
        type="ClusterIP",
        cluster_ips=("10.96.1.1",),
        ports=(ServicePort(name="http", protocol="tcp", port=80, target_port="80"),),
    )
    many = Service(namespace="shop", name="many", type="ClusterIP", headless=True)
    away = Service(namespace="shop", name="away", type="ExternalName", external_name="example.com")
    endpoints = [Endpoint(address=f"10.244.1.{number}", port=80) for number in range(MANY)]
    return zone([web, many, away], {"shop/many": endpoints})


def ask(
    name: str, kind: str = "A", transport: str = "udp", payload: int = 0
) -> dns.message.Message:
    query = dns.message.make_query(name, kind, use_edns=0 if payload else None, payload=payload)
    reply = answer(make_zone(), query.to_wire(), transport)
    assert reply is not None
    read = dns.message.from_wire(reply)
    assert read.id == query.id
    assert read.question == query.question
    return read


def records(message: dns.message.Message) -> list[str]:
    return sorted(rdata.to_text() for rrset in message.answer for rdata in rrset)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("web.shop.svc.cluster.local", "A", ["10.96.1.1"]),
        ("WEB.Shop.svc.cluster.LOCAL", "A", ["10.96.1.1"]),
        (
            "_http._tcp.web.shop.svc.cluster.local",
            "SRV",
            ["0 100 80 web.shop.svc.cluster.local."],
        ),
        ("away.shop.svc.cluster.local", "A", ["example.com."]),
        ("away.shop.svc.cluster.local", "CNAME", ["example.com."]),
        ("dns-version.cluster.local", "TXT", ['"1.1.0"']),
        ("ns.dns.cluster.local", "A", ["10.96.0.10"]),
    ],
)
def test_found(name: str, kind: str, expected: list[str]) -> None:
    reply = ask(name, kind)
    assert reply.rcode() == dns.rcode.NOERROR
    assert reply.flags & dns.flags.AA
    assert records(reply) == expected
    assert reply.authority == []


@pytest.mark.parametrize(
    ("name", "kind", "rcode"),
    [
        ("nothing.shop.svc.cluster.local", "A", dns.rcode.NXDOMAIN),
        ("web.nowhere.svc.cluster.local", "A", dns.rcode.NXDOMAIN),
        ("web.shop.svc.cluster.local", "AAAA", dns.rcode.NOERROR),
        ("shop.svc.cluster.local", "A", dns.rcode.NOERROR),
        ("svc.cluster.local", "A", dns.rcode.NOERROR),
        ("cluster.local", "A", dns.rcode.NOERROR),
    ],
)
def test_not_found_carries_the_soa(name: str, kind: str, rcode: dns.rcode.Rcode) -> None:
    reply = ask(name, kind)
    assert reply.rcode() == rcode
    assert records(reply) == []
    (soa,) = reply.authority
    assert soa.name.to_text() == "cluster.local."
    assert soa[0].to_text().startswith("ns.dns.cluster.local. hostmaster.cluster.local. ")


@pytest.mark.parametrize("name", ["example.com", "web", "notcluster.local", "."])
def test_outside_there_is_nothing(name: str) -> None:
    reply = ask(name)
    assert reply.rcode() == dns.rcode.NXDOMAIN
    assert not reply.flags & dns.flags.AA


def test_what_does_not_fit_comes_by_tcp() -> None:
    name = "many.shop.svc.cluster.local"
    for payload in (0, 1232):
        short = ask(name, payload=payload)
        assert short.flags & dns.flags.TC
        assert records(short) == []
    assert len(records(ask(name, transport="tcp"))) == MANY
    assert len(records(ask(name, payload=4096))) == MANY


def test_garbage() -> None:
    assert answer(make_zone(), b"", "udp") is None
    assert answer(make_zone(), b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xff", "udp") == (
        b"\x12\x34\x80\x01" + bytes(8)
    )
    reply = dns.message.make_response(dns.message.make_query("web.shop", "A"))
    assert answer(make_zone(), reply.to_wire(), "udp") is None
    update = dns.message.from_wire(b"\x12\x34\x28\x00" + bytes(8))
    refused = answer(make_zone(), update.to_wire(), "udp")
    assert refused is not None
    assert dns.message.from_wire(refused).rcode() == dns.rcode.NOTIMP


@given(st.binary(max_size=64))
def test_no_datagram_breaks_the_server(query: bytes) -> None:
    reply = answer(ZONE, query, "udp")
    if reply is not None:
        assert reply[:2] == query[:2]
        assert reply[2] & 0x80


ZONE = make_zone()

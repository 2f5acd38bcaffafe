"""DNS against the API: which answers are a fault, and which only look like one."""

from __future__ import annotations

import pytest

from kptrace.diagnose.catalogue.causes import CAUSES
from kptrace.diagnose.checks.dns import FAILURES, compare
from kptrace.model import DnsAnswer, Endpoint, Netns, Service

WEB = Service(
    namespace="shop", name="web", type="ClusterIP", cluster_ips=("10.96.41.7", "fd00:10:96::7")
)
HEADLESS = Service(namespace="shop", name="web", type="ClusterIP", headless=True)
EXTERNAL = Service(namespace="shop", name="web", type="ExternalName", external_name="example.com")


def answer(status: str = "NOERROR", *records: tuple[str, str], **more: object) -> DnsAnswer:
    fields = {"name": "web.shop.svc.cluster.local", "type": "A", "elapsed_us": 800} | more
    return DnsAnswer(server="10.96.0.10", status=status, records=records, **fields)  # type: ignore[arg-type]


GOOD = [
    ((), WEB),
    ((answer("NOERROR", ("A", "10.96.41.7")),), WEB),
    ((answer("NOERROR", ("AAAA", "fd00:10:96:0::7"), type="AAAA"),), WEB),
    # an early name of the search list does not exist: the resolver goes on
    ((answer("NXDOMAIN", name="web.shop.shop"), answer("NOERROR", ("A", "10.96.41.7"))), WEB),
    ((answer("NOERROR", ("CNAME", "example.com."), ("A", "192.0.2.1")),), EXTERNAL),
    ((answer("NOERROR", ("A", "192.0.2.1")),), None),
]


@pytest.mark.parametrize(("answers", "service"), GOOD)
def test_no_fault(answers: tuple[DnsAnswer, ...], service: Service | None) -> None:
    assert compare(answers, service) == []


@pytest.mark.parametrize("status", FAILURES)
def test_the_last_answer_decides(status: str) -> None:
    (found,) = compare((answer("NXDOMAIN"), answer(status)), WEB)
    assert (found.cause, found.severity) == (FAILURES[status][0], "error")
    assert "10.96.0.10" in found.summary
    assert len(found.evidence) == 2
    assert found.cause in CAUSES


def test_an_rcode_without_a_name_of_its_own() -> None:
    (found,) = compare((answer("NOTIMP"),), WEB)
    assert found.cause == "dns-servfail"
    assert "NOTIMP" in found.summary


def test_no_address_of_the_family() -> None:
    (found,) = compare((answer(type="AAAA"),), WEB)
    assert found.cause == "dns-no-address"
    assert "IPv6" in found.summary


def test_an_alias_alone_is_no_address() -> None:
    (found,) = compare((answer("NOERROR", ("CNAME", "example.com.")),), EXTERNAL)
    assert found.cause == "dns-no-address"


def test_another_address() -> None:
    (found,) = compare((answer("NOERROR", ("A", "10.96.41.8")),), WEB)
    assert found.cause == "dns-address-differs"
    assert found.summary == (
        "DNS says web.shop.svc.cluster.local is 10.96.41.8, the API says 10.96.41.7, fd00:10:96::7"
    )
    assert found.evidence[0] == (
        "10.96.0.10 over UDP: web.shop.svc.cluster.local A: A 10.96.41.8, 0.8 ms"
    )


def test_a_headless_service_resolves_to_its_ready_endpoints() -> None:
    ends = (
        Endpoint(address="10.244.1.11", port=80),
        Endpoint(address="10.244.2.11", port=80, ready=False),
    )
    assert compare((answer("NOERROR", ("A", "10.244.1.11")),), HEADLESS, ends) == []
    (found,) = compare((answer("NOERROR", ("A", "10.244.2.11")),), HEADLESS, ends)
    assert found.cause == "dns-address-differs"


def test_without_endpoints_nothing_is_held_against_a_headless_answer() -> None:
    assert compare((answer("NOERROR", ("A", "10.244.1.11")),), HEADLESS) == []


def test_a_late_answer_is_a_warning() -> None:
    slow = answer("NOERROR", ("A", "10.96.41.7"), elapsed_us=5_000_800)
    (found,) = compare((slow,), WEB)
    assert (found.cause, found.severity) == ("dns-slow", "warning")
    assert "5.0 s" in found.summary


def test_every_failure_is_in_the_catalogue() -> None:
    assert {cause for cause, _ in FAILURES.values()} <= set(CAUSES)


@pytest.mark.parametrize(
    ("asker", "source"),
    [
        (Netns(node="node-a", pod="shop/client"), "pod/client.shop"),
        (Netns(node="node-a"), "node/node-a"),
    ],
)
def test_where_no_answer_came_the_way_to_the_server_is_to_be_traced(
    asker: Netns, source: str
) -> None:
    for status in ("TIMEOUT", "CLOSED", "UNREACHABLE"):
        (found,) = compare((answer(status),), WEB, (), asker)
        command, _, _ = found.remedy[0].partition("  # ")
        assert command == f"kptrace 10.96.0.10:53/udp --from {source}"
    (found,) = compare((answer("SERVFAIL"),), WEB, (), asker)
    assert not found.remedy[0].startswith("kptrace")


def test_a_closed_port_is_not_a_server_that_refuses() -> None:
    (closed,), (refused,) = compare((answer("CLOSED"),), WEB), compare((answer("REFUSED"),), WEB)
    assert (closed.cause, refused.cause) == ("dns-unreachable", "dns-refused")

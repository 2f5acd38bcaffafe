"""Older connections of the sender: which of them lead nowhere."""

from __future__ import annotations

import pytest

from kptrace.diagnose.checks.stale_connections import diagnose
from kptrace.model import (
    ConntrackEntry,
    Endpoint,
    Finding,
    Flow,
    Netns,
    ProbeResult,
    Resolution,
    Service,
    Source,
    Target,
    TraceRequest,
)
from kptrace.protocol import ConnectionList
from kptrace.protocol.recording import Recording

A = Netns(node="a")
ALIVE, GONE, VIP = "10.244.2.20", "10.244.2.99", "10.96.0.10"


def entry(port: int, backend: str, state: str = "", protocol: str = "udp") -> ConntrackEntry:
    original = Flow(protocol=protocol, src="10.244.1.10", dst=VIP, sport=port, dport=53)
    reply = Flow(protocol=protocol, src=backend, dst="10.244.1.10", sport=53, dport=port)
    return ConntrackEntry(netns=A, original=original, reply=reply, state=state)


def findings(
    *entries: ConntrackEntry, endpoints: tuple[str, ...] = (ALIVE,), more: int = 0
) -> list[Finding]:
    service = Service(namespace="kube-system", name="dns", type="ClusterIP", cluster_ips=(VIP,))
    known = tuple(Endpoint(address=one, port=53, protocol="udp") for one in endpoints)
    sent = entry(40000, GONE).original
    run = Recording(
        request=TraceRequest(target=Target(kind="service", text="svc/dns", name="dns")),
        source=Source(kind="pod", netns=Netns(node="a", pod="shop/client")),
        resolution=Resolution(
            address=VIP, port=53, protocol="udp", service=service, endpoints=known
        ),
        api={},
        replies=(
            ProbeResult(probe_id=1, flow=sent, result="replied", sent_ns=1, elapsed_us=1),
            ConnectionList(id=1, netns=A, entries=entries, more=more),
        ),
    )
    return list(diagnose(run))


def test_what_goes_to_an_endpoint_is_well() -> None:
    assert not findings(entry(5555, ALIVE))


def test_what_goes_to_a_pod_that_is_gone() -> None:
    (found,) = findings(entry(5555, GONE), entry(5556, GONE), entry(5557, ALIVE))
    assert (found.cause, found.severity, found.node) == ("connection-stale", "warning", "a")
    assert "2 connections from 10.244.1.10 to 10.96.0.10:53/udp" in found.summary
    assert "still go to 10.244.2.99, which is no endpoint any more" in found.summary
    assert len(found.evidence) == 2
    assert found.remedy[0] == (
        "conntrack -D -p udp --orig-src 10.244.1.10 --orig-dst 10.96.0.10 "
        "--orig-port-dst 53 --reply-src 10.244.2.99  # on a"
    )


def test_what_was_sent_before_there_was_a_rule() -> None:
    (found,) = findings(entry(5555, VIP))
    assert "is not translated" in found.summary
    assert "--reply-src" not in found.remedy[0]


def test_the_probe_itself_is_not_older() -> None:
    assert not findings(entry(40000, GONE))


@pytest.mark.parametrize("state", ["TIME_WAIT", "CLOSE", "FIN_WAIT", "SYN_SENT"])
def test_what_ends_by_itself(state: str) -> None:
    assert not entry(5555, GONE, state, "tcp").lasts
    assert entry(5555, GONE, "ESTABLISHED", "tcp").lasts


def test_where_there_were_too_many_to_tell() -> None:
    (found,) = findings(entry(5555, GONE), entry(5556, GONE), more=4)
    assert "at least 2 connections" in found.summary


def test_where_no_endpoint_is_known_nothing_is_said() -> None:
    assert not findings(entry(5555, GONE), endpoints=())

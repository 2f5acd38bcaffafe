"""Every Service kind of the lab, in every proxy mode and network, by real connections.

The expected pods and sources are written by hand from the issue's list and from what is known of
kube-proxy and Flannel; nothing here comes from the lab's own tables.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from typing import TypeVar

import dns.message
import dns.query
import pytest
from support.labs import LABS

from kptrace.agent.netns import run_in_netns
from kptrace.lab import cluster
from kptrace.lab.address_plan import plan
from kptrace.lab.state import NETNS, Lab

pytestmark = pytest.mark.kernel

T = TypeVar("T")
WEB = {"web-1", "web-2", "web-3"}


@pytest.fixture(
    scope="module",
    params=LABS,
)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    proxy, network = request.param
    name = f"svc-{os.getpid()}"
    yield cluster.up(plan(name, 2, proxy, network))
    cluster.down(name)


def at(lab: Lab, where: str, work: Callable[[], T]) -> T:
    """``where``: a pod of shop, a node, or ``underlay``."""
    is_pod = any(pod.name == where for pod in lab.plan.pods)
    name = f"shop.{where}" if is_pod else where
    return run_in_netns(str(NETNS / f"kpt-{lab.name}-{name}"), work)


def fetch(lab: Lab, where: str, address: str, port: int = 80) -> tuple[str, str]:
    """The pod that answers a bare TCP connection, and whom it saw."""

    def work() -> tuple[str, str]:
        with socket.create_connection((address, port), timeout=3) as line:
            head, _, body = line.makefile("rb").read().decode().partition("\r\n\r\n")
        peer = next(line for line in head.split("\r\n") if line.startswith("X-Peer: "))
        return body.strip(), peer.split()[1]

    return at(lab, where, work)


def names(lab: Lab, where: str, address: str, port: int = 80, times: int = 40) -> set[str]:
    return {fetch(lab, where, address, port)[0] for _ in range(times)}


@pytest.mark.parametrize("client", ["client", "client-b"])
@pytest.mark.parametrize(
    ("address", "port", "pods"),
    [
        ("10.96.1.1", 80, WEB),
        ("10.96.1.1", 9090, WEB),
        ("10.96.1.2", 80, {"remote-1"}),
        ("10.96.1.3", 80, {"near-1"}),
        ("10.96.1.8", 80, WEB),
        ("172.30.0.11", 30080, WEB),
        ("172.30.0.12", 30080, WEB),
        ("10.96.1.9", 80, WEB),
        ("10.96.1.11", 80, WEB),
        ("203.0.113.10", 80, WEB),
        ("fd00:10:96::112", 80, WEB),
        ("10.96.1.13", 80, WEB),
        ("fd00:10:96::113", 80, WEB),
        ("10.244.2.21", 8080, {"remote-1"}),
        ("fd00:10:244:2::21", 8080, {"remote-1"}),
    ],
)
def test_service_reaches_all_its_pods_and_no_other(
    lab: Lab, client: str, address: str, port: int, pods: set[str]
) -> None:
    # (2/3)^40: a pod of three that is right is missed once in ten million
    assert names(lab, client, address, port) == pods


def test_hairpin_is_masqueraded_by_the_node(lab: Lab) -> None:
    """As its bridge; where there is none, as any address that the node has."""
    name, peer = fetch(lab, "client", "10.96.1.4")
    assert name == "client"
    assert peer in ({"10.244.1.1", "172.30.0.11"} if lab.plan.calico else {"10.244.1.1"})


def test_pod_to_service_keeps_its_address(lab: Lab) -> None:
    """But for the bridge plugin's ipMasq, which hides it behind its node."""
    seen = "172.30.0.11" if lab.plan.network == "bridge" else "10.244.1.10"
    assert fetch(lab, "client", "10.96.1.2") == ("remote-1", seen)


def test_node_reaches_services(lab: Lab) -> None:
    """flanneld's last rule and kube-proxy's masquerade: the pod sees an address of the node's."""
    name, peer = fetch(lab, "node-a", "10.96.1.2")
    assert name == "remote-1"
    assert peer in {"10.244.1.0", "10.244.1.1", "172.30.0.11"}


def test_no_endpoints_is_refused(lab: Lab) -> None:
    with pytest.raises(ConnectionRefusedError):
        fetch(lab, "client", "10.96.1.6")


def test_affinity_keeps_the_pod(lab: Lab) -> None:
    assert len(names(lab, "client", "10.96.1.7")) == 1


def test_internal_policy_local(lab: Lab) -> None:
    assert names(lab, "client", "10.96.1.10") == {"web-1"}
    assert names(lab, "client-b", "10.96.1.10") == {"web-2", "web-3"}


def test_external_policy_local_keeps_node_and_source(lab: Lab) -> None:
    seen = {fetch(lab, "underlay", "172.30.0.11", 30081) for _ in range(10)}
    assert seen == {("web-1", "172.30.0.1")}
    assert names(lab, "underlay", "172.30.0.12", 30081) == {"web-2", "web-3"}


@pytest.mark.parametrize(("address", "port"), [("172.30.0.11", 30080), ("203.0.113.10", 80)])
def test_from_outside_policy_cluster(lab: Lab, address: str, port: int) -> None:
    assert names(lab, "underlay", address, port) == WEB


def test_udp_echo(lab: Lab) -> None:
    def ask() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
            line.settimeout(3)
            line.sendto(b"hello", ("10.96.1.5", 7))
            return line.recv(100)

    answers = {at(lab, "client", ask) for _ in range(40)}
    assert answers == {b"echo-1\nhello", b"echo-2\nhello"}


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize(
    ("name", "kind", "records"),
    [
        ("web.shop.svc.cluster.local", "A", {"10.96.1.1"}),
        ("web6.shop.svc.cluster.local", "AAAA", {"fd00:10:96::112"}),
        ("headless.shop.svc.cluster.local", "A", {"10.244.1.11", "10.244.2.12", "10.244.2.13"}),
        (
            "_metrics._tcp.web.shop.svc.cluster.local",
            "SRV",
            {"0 100 9090 web.shop.svc.cluster.local."},
        ),
        ("nothing.shop.svc.cluster.local", "A", set()),
    ],
)
def test_dns_through_its_service(
    lab: Lab, transport: str, name: str, kind: str, records: set[str]
) -> None:
    query = dns.message.make_query(name, kind)
    send = dns.query.udp if transport == "udp" else dns.query.tcp
    for client in ("client", "client-b"):
        reply = at(lab, client, lambda: send(query, "10.96.0.10", timeout=3))
        assert {record.to_text() for rrset in reply.answer for record in rrset} == records
        assert (reply.rcode() == 3) == (not records)


def test_resolver_searches_as_in_a_pod(lab: Lab) -> None:
    """The C library with the pod's resolv.conf, as ``ip netns exec`` gives it to a program."""
    import subprocess

    pod = f"kpt-{lab.name}-shop.client"
    found = {
        name: subprocess.run(
            ["ip", "netns", "exec", pod, "getent", "ahostsv4", name],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.split()[:1]
        for name in ("web", "kube-dns.kube-system", "nothing")
    }
    assert found == {"web": ["10.96.1.1"], "kube-dns.kube-system": ["10.96.0.10"], "nothing": []}

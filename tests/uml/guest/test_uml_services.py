"""Every Service kind of the lab under IPVS and over IPIP, by real connections.

As tests/kernel/test_lab_services.py does it for what the plain kernel can make; the expected pods
and sources are written by hand.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from kptrace.agent.netns import run_in_netns
from kptrace.lab.state import NETNS, Lab

T = TypeVar("T")
WEB = {"web-1", "web-2", "web-3"}


@pytest.fixture
def lab(bench: Any) -> Lab:
    made: Lab = bench.lab
    return made


def at(lab: Lab, where: str, work: Callable[[], T]) -> T:
    is_pod = any(pod.name == where for pod in lab.plan.pods)
    return run_in_netns(str(NETNS / f"kpt-{lab.name}-{'shop.' if is_pod else ''}{where}"), work)


def fetch(lab: Lab, where: str, address: str, port: int = 80) -> tuple[str, str]:
    """The pod that answers a bare TCP connection, and whom it saw."""

    def work() -> tuple[str, str]:
        with socket.create_connection((address, port), timeout=5) as line:
            head, _, body = line.makefile("rb").read().decode().partition("\r\n\r\n")
        peer = next(line for line in head.split("\r\n") if line.startswith("X-Peer: "))
        return body.strip(), peer.split()[1]

    return at(lab, where, work)


def names(lab: Lab, where: str, address: str, port: int = 80) -> set[str]:
    """IPVS takes the servers in turn, the rules by chance: (2/3)^40."""
    times = 9 if lab.plan.proxy == "ipvs" else 40
    return {fetch(lab, where, address, port)[0] for _ in range(times)}


def all_of(lab: Lab, seen: set[str], pods: set[str]) -> bool:
    """A scheduler that goes by a hash of the client's address has one server for it."""
    hashes = lab.plan.proxy == "ipvs" and lab.plan.scheduler == "sh"
    return seen <= pods and len(seen) == (1 if hashes else len(pods))


@pytest.mark.parametrize(
    ("client", "address", "port", "pods"),
    [
        ("client", "10.96.1.1", 80, WEB),
        ("client-b", "10.96.1.1", 9090, WEB),
        ("client", "10.96.1.2", 80, {"remote-1"}),
        ("client-b", "10.96.1.2", 80, {"remote-1"}),
        ("client", "10.96.1.3", 80, {"near-1"}),
        ("client-b", "10.96.1.3", 80, {"near-1"}),
        ("client", "172.30.0.11", 30080, WEB),
        ("client", "172.30.0.12", 30080, WEB),
        ("client", "203.0.113.10", 80, WEB),
        ("client", "fd00:10:96::112", 80, WEB),
        ("client-b", "fd00:10:96::113", 80, WEB),
        ("client", "10.244.2.21", 8080, {"remote-1"}),
        ("client", "fd00:10:244:2::21", 8080, {"remote-1"}),
    ],
)
def test_service_reaches_all_its_pods_and_no_other(
    lab: Lab, client: str, address: str, port: int, pods: set[str]
) -> None:
    assert all_of(lab, names(lab, client, address, port), pods)


def test_hairpin_comes_from_the_node(lab: Lab) -> None:
    """The bridge's address; Calico's veths have none, so the tunnel's, which is the same number
    here; without a tunnel the node's own.
    """
    direct = lab.plan.network == "calico-direct"
    node = "172.30.0.11" if direct else "10.244.1.1"
    assert fetch(lab, "client", "10.96.1.4") == ("client", node)


def test_pod_to_service_keeps_its_address(lab: Lab) -> None:
    assert fetch(lab, "client", "10.96.1.2") == ("remote-1", "10.244.1.10")


def test_node_reaches_services(lab: Lab) -> None:
    name, peer = fetch(lab, "node-a", "10.96.1.2")
    assert name == "remote-1"
    assert peer in lab.plan.local_addresses(lab.plan.node("node-a"))


def test_no_endpoints_is_refused(lab: Lab) -> None:
    with pytest.raises(ConnectionRefusedError):
        fetch(lab, "client", "10.96.1.6")


def test_affinity_keeps_the_pod(lab: Lab) -> None:
    assert len(names(lab, "client", "10.96.1.7")) == 1


def test_internal_policy_local(lab: Lab) -> None:
    assert names(lab, "client", "10.96.1.10") == {"web-1"}
    assert all_of(lab, names(lab, "client-b", "10.96.1.10"), {"web-2", "web-3"})


def test_external_policy_local_keeps_node_and_source(lab: Lab) -> None:
    seen = {fetch(lab, "underlay", "172.30.0.11", 30081) for _ in range(4)}
    assert seen == {("web-1", "172.30.0.1")}


@pytest.mark.parametrize(("address", "port"), [("172.30.0.11", 30080), ("203.0.113.10", 80)])
def test_from_outside_policy_cluster(lab: Lab, address: str, port: int) -> None:
    assert all_of(lab, names(lab, "underlay", address, port), WEB)


def test_udp_echo(lab: Lab) -> None:
    def ask() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
            line.settimeout(5)
            line.sendto(b"hello", ("10.96.1.5", 7))
            return line.recv(100)

    answers = {at(lab, "client", ask) for _ in range(8 if lab.plan.proxy == "ipvs" else 40)}
    assert all_of(lab, {each.decode() for each in answers}, {"echo-1\nhello", "echo-2\nhello"})

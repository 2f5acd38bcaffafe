"""Faults that people make with ``ip`` and ``nft``, not among those of ``kptrace lab break``."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from pyroute2 import IPRoute

from kptrace.agent import bpf_syscall
from kptrace.agent.netns import run_in_netns
from kptrace.lab.state import NETNS, Lab
from kptrace.model import Finding, Outcome, Trace

POD = "10.244.2.21"  # of remote-1
FAR_MAC, NOBODY_S = "02:00:00:00:00:02", "02:00:00:00:00:99"

Commands = tuple[str, ...]
Fault = Callable[[Lab], tuple[str, Commands, Commands]]
"""The namespace, what breaks it, what heals it."""


def run(netns: str, lines: Commands) -> None:
    for line in lines:
        subprocess.run(["ip", "netns", "exec", netns, *line.split()], check=True)


@contextmanager
def broken(lab: Lab, fault: Fault) -> Iterator[None]:
    netns, breaking, healing = fault(lab)
    run(netns, breaking)
    try:
        yield
    finally:
        run(netns, healing)


def node(lab: Lab, name: str) -> str:
    return lab.plan.node(name).netns


def no_way_back(lab: Lab) -> tuple[str, Commands, Commands]:
    route = "10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink"
    return node(lab, "node-b"), ("ip route del 10.244.1.0/24",), (f"ip route add {route}",)


def wrong_mac_of_the_pod(lab: Lab) -> tuple[str, Commands, Commands]:
    wrong = f"ip neigh replace {POD} dev cni0 lladdr 02:de:ad:be:ef:01 nud permanent"
    return node(lab, "node-b"), (wrong,), (f"ip neigh del {POD} dev cni0",)


def wrong_mac_of_the_tunnel(lab: Lab) -> tuple[str, Commands, Commands]:
    entry = "ip neigh replace 10.244.2.0 lladdr {} dev flannel.1 nud permanent"
    known = f"bridge fdb add {NOBODY_S} dev flannel.1 dst 172.30.0.12"
    gone = f"bridge fdb del {NOBODY_S} dev flannel.1"
    return node(lab, "node-a"), (entry.format(NOBODY_S), known), (entry.format(FAR_MAC), gone)


def security_group(toward: str) -> Fault:
    """In what joins the nodes, where kptrace does not look."""

    def blocked(lab: Lab) -> tuple[str, Commands, Commands]:
        breaking = (
            "nft add table bridge group",
            "nft add chain bridge group forward { type filter hook forward priority 0 ; }",
            f"nft add rule bridge group forward udp dport 8472 ip daddr {toward} drop",
        )
        return lab.plan.underlay, breaking, ("nft delete table bridge group",)

    return blocked


def rule_of_the_pod(lab: Lab) -> tuple[str, Commands, Commands]:
    rule = "INPUT -p tcp --dport 8080 -j DROP"
    pod = lab.plan.pod("shop/remote-1").netns
    return pod, (f"iptables-nft -A {rule}",), (f"iptables-nft -D {rule}",)


def device_of_the_pod_down(lab: Lab) -> tuple[str, Commands, Commands]:
    up = ("ip link set eth0 up", "ip route add default via 10.244.2.1")
    return lab.plan.pod("shop/remote-1").netns, ("ip link set eth0 down",), up


def another_port_of_the_tunnel(lab: Lab) -> tuple[str, Commands, Commands]:
    def made(port: int) -> Commands:
        """The device with all that hangs on it."""
        return (
            "ip link del flannel.1",
            f"ip link add flannel.1 address {FAR_MAC} mtu 1450 type vxlan id 1 "
            f"local 172.30.0.12 dev eth0 dstport {port} nolearning",
            "ip addr add 10.244.2.0/32 dev flannel.1",
            "ip link set flannel.1 up",
            "ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink",
            "ip neigh add 10.244.1.0 lladdr 02:00:00:00:00:01 dev flannel.1 nud permanent",
            "bridge fdb add 02:00:00:00:00:01 dev flannel.1 dst 172.30.0.11",
        )

    return node(lab, "node-b"), made(4789), made(8472)


CASES: list[tuple[Fault, str, str, str, str]] = [
    (no_way_back, "pod-route-missing", "node-b", "route to 10.244.1.0/24", "its answer does not"),
    (
        wrong_mac_of_the_pod,
        "neighbour-stale",
        "node-b",
        f"neighbour {POD} dev cni0",
        f"{POD} to 02:de:ad:be:ef:01, but eth0 of pod shop/remote-1 has 0a:58:0a:f4:02:15",
    ),
    (
        wrong_mac_of_the_tunnel,
        "neighbour-stale",
        "node-a",
        "neighbour 10.244.2.0 dev flannel.1",
        f"{NOBODY_S}, but flannel.1 of node-b has {FAR_MAC}",
    ),
    (
        security_group("172.30.0.12"),
        "lost-between-nodes",
        "",
        "between node-a and node-b",
        "it left eth0 of node-a as VXLAN for 172.30.0.12 and never came to eth0 of node-b",
    ),
    (
        security_group("172.30.0.11"),
        "lost-between-nodes",
        "",
        "between node-b and node-a",
        "the answer left eth0 of node-b as VXLAN for 172.30.0.11",
    ),
    (rule_of_the_pod, "rule-drop", "node-b", "filter INPUT 1", "in pod shop/remote-1 on node-b"),
    (
        device_of_the_pod_down,
        "link-down",
        "node-b",
        "eth0 of pod shop/remote-1",
        "eth0 of pod shop/remote-1 is down",
    ),
    (
        another_port_of_the_tunnel,
        "tunnel-device-missing",
        "node-b",
        "VXLAN 1 on port 8472",
        "no device takes VXLAN 1 on port 8472 (flannel.1 takes VXLAN 1 on port 4789)",
    ),
]


@pytest.mark.parametrize(
    ("fault", "cause", "where", "object", "words"),
    CASES,
    ids=[
        "no way back",
        "wrong MAC of the pod",
        "wrong MAC of the tunnel",
        "question lost on the wire",
        "answer lost on the wire",
        "rule of the pod",
        "device of the pod down",
        "tunnel's ports differ",
    ],
)
def test_cause_node_and_object(
    vxlan_bench: Any, fault: Fault, cause: str, where: str, object: str, words: str
) -> None:
    with broken(vxlan_bench.lab, fault):
        vxlan_bench.renew()
        seen: Trace = vxlan_bench.trace("svc/remote", "pod/client", timeout=2.0)
    vxlan_bench.renew()
    first: Finding = seen.findings[0]
    assert seen.outcome is Outcome.DROPPED, seen
    assert (first.cause, first.node) == (cause, where), first
    assert object in first.object
    assert words in first.summary
    assert first.remedy
    healed: Trace = vxlan_bench.trace("svc/remote", "pod/client")
    assert healed.outcome is Outcome.DELIVERED, healed.findings


def test_a_socket_that_goes_on_has_its_old_backend(vxlan_bench: Any) -> None:
    """The entry is the kernel's own, made while a rule sent the client to a pod that is gone."""
    lab = vxlan_bench.lab
    netns, client = node(lab, "node-a"), lab.plan.pod("shop/client").netns
    to_nobody = "ip daddr 10.96.1.5 udp dport 7 udp sport 5555 dnat to 10.244.2.99:7"
    run(
        netns,
        (
            "nft add table ip older",
            "nft add chain ip older early { type nat hook prerouting priority -150 ; }",
            f"nft add rule ip older early {to_nobody}",
        ),
    )
    run_in_netns(str(NETNS / client), partial(datagram, ("10.96.1.5", 7), 5555))
    run(netns, ("nft delete table ip older",))
    vxlan_bench.renew()
    seen: Trace = vxlan_bench.trace("svc/echo", "pod/client")
    assert seen.outcome is Outcome.DELIVERED
    (found,) = seen.findings
    assert (found.cause, found.severity, found.node) == ("connection-stale", "warning", "node-a")
    assert "to 10.244.2.99, which is no endpoint any more" in found.summary
    deleting, mark, _ = found.remedy[0].partition("  # on node-a")
    assert mark
    run(netns, (deleting,))
    assert not vxlan_bench.trace("svc/echo", "pod/client").findings


def datagram(to: tuple[str, int], port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("", port))
        one.sendto(b"x", to)


@pytest.mark.parametrize(
    ("listens", "words"),
    [
        (("127.0.0.1", 9999), "let the program listen on any address"),
        (("0.0.0.0", 9998), "where nobody listens on 10.244.1.31:9999"),
        (("0.0.0.0", 9998), "ask for a port that it listens on: "),
    ],
)
def test_what_a_backend_listens_on_instead(
    vxlan_bench: Any, listens: tuple[str, int], words: str
) -> None:
    netns = str(NETNS / vxlan_bench.lab.plan.pod("shop/near-1").netns)
    with run_in_netns(netns, partial(socket.create_server, listens)):
        seen: Trace = vxlan_bench.trace("pod/near-1:9999", "pod/client")
    (found,) = seen.findings
    assert (seen.outcome, found.cause) == (Outcome.REFUSED, "no-listener")
    assert f"{listens[0]}:{listens[1]}/tcp" in found.evidence[-1]
    assert words in " ".join((found.summary, *found.remedy))


def test_a_refusal_that_its_own_node_throws_away(vxlan_bench: Any) -> None:
    drop = "OUTPUT -p icmp -j DROP"
    netns = node(vxlan_bench.lab, "node-a")
    run(netns, (f"iptables-nft -A {drop}",))
    try:
        vxlan_bench.renew()
        seen: Trace = vxlan_bench.trace("svc/empty", "pod/client", timeout=1.0)
    finally:
        run(netns, (f"iptables-nft -D {drop}",))
        vxlan_bench.renew()
    found = seen.findings[0]
    assert (seen.outcome, found.cause) == (Outcome.NO_ENDPOINTS, "no-endpoints")
    assert [one.result for one in seen.evidence.probe_results] == ["timeout"]
    (told,) = [one for one in found.evidence if "may get no answer" in one]
    assert "of node-a drops the answer of the REJECT" in told
    seen = vxlan_bench.trace("svc/empty", "pod/client")
    assert [one.result for one in seen.evidence.probe_results] == ["refused"]


def test_a_program_that_drops_before_any_tap(vxlan_bench: Any) -> None:
    """All UDP that comes in on node-b's own interface, ARP and the rest not."""
    netns = node(vxlan_bench.lab, "node-b")
    with xdp(netns, "eth0", _drop_udp(), "no_udp"):
        vxlan_bench.renew()
        seen: Trace = vxlan_bench.trace("svc/remote", "pod/client", timeout=2.0)
    vxlan_bench.renew()
    found = seen.findings[0]
    assert (seen.outcome, found.cause, found.node) == (Outcome.DROPPED, "xdp-drop", "node-b"), found
    assert "the XDP program no_udp on eth0 of node-b" in found.summary
    assert vxlan_bench.trace("svc/remote", "pod/client").outcome is Outcome.DELIVERED


@contextmanager
def xdp(netns: str, interface: str, code: bytes, name: str) -> Iterator[None]:
    program = bpf_syscall.load(6, code, name=name)  # BPF_PROG_TYPE_XDP
    _set_xdp(netns, interface, program)
    os.close(program)
    try:
        yield
    finally:
        _set_xdp(netns, interface, -1)


def _set_xdp(netns: str, interface: str, program: int) -> None:
    """In a thread there: pyroute2's own way into a namespace forks, and gives a child 2 s."""

    def work() -> None:
        with IPRoute() as handle:
            (index,) = handle.link_lookup(ifname=interface)
            handle.link("set", index=index, xdp_fd=program)

    run_in_netns(str(NETNS / netns), work)


def _drop_udp() -> bytes:
    """r0 = XDP_DROP where the IPv4 protocol is UDP, else XDP_PASS (linux/bpf.h)."""
    lines = [
        (0x61, 0x12, 0, 0),  # r2 = data
        (0x61, 0x13, 4, 0),  # r3 = data_end
        (0xBF, 0x24, 0, 0),  # r4 = r2
        (0x07, 0x04, 0, 42),  # r4 += Ethernet, IPv4 and UDP headers
        (0x2D, 0x34, 4, 0),  # if r4 > r3 pass
        (0x71, 0x25, 23, 0),  # r5 = protocol
        (0x55, 0x05, 2, 17),  # if r5 != UDP pass
        (0xB7, 0x00, 0, 1),
        (0x95, 0x00, 0, 0),
        (0xB7, 0x00, 0, 2),
        (0x95, 0x00, 0, 0),
    ]
    return b"".join(struct.pack("<BBhi", *line) for line in lines)


def larger_than_its_veth(lab: Lab) -> tuple[str, Commands, Commands]:
    eth0 = "ip link set dev eth0 mtu {}"
    return lab.plan.pod("shop/client").netns, (eth0.format(1500),), (eth0.format(1450),)


def narrow_underlay(lab: Lab) -> tuple[str, Commands, Commands]:
    eth0 = "ip link set dev eth0 mtu {}"
    return node(lab, "node-b"), (eth0.format(1400),), (eth0.format(1500),)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            larger_than_its_veth,
            [
                "packets of more than 1450 bytes from pod shop/client do not fit {veth} of node-a, "
                "and nobody tells their sender when they are lost"
            ],
        ),
        (
            narrow_underlay,
            [
                "packets of more than 1350 bytes from pod shop/client do not fit eth0 of node-b, "
                "and nobody tells their sender when they are lost",
            ],
        ),
    ],
    ids=["pod and veth differ", "one node's link is narrower"],
)
def test_larger_packets_than_the_probe(vxlan_bench: Any, fault: Fault, said: list[str]) -> None:
    lab = vxlan_bench.lab
    veth = lab.plan.pod("shop/client").interface
    with broken(lab, fault):
        vxlan_bench.renew()
        seen: Trace = vxlan_bench.trace("svc/remote", "pod/client")
    vxlan_bench.renew()
    assert seen.outcome is Outcome.DELIVERED
    assert {(found.cause, found.severity) for found in seen.findings} == {
        ("mtu-exceeded", "warning")
    }
    assert [found.summary for found in seen.findings] == [one.format(veth=veth) for one in said]
    assert not vxlan_bench.trace("svc/remote", "pod/client").findings


def test_the_kernel_says_nothing_of_what_its_veth_drops(vxlan_bench: Any) -> None:
    """What the report claims: a datagram that fits the pod's end only is gone without an error."""
    lab = vxlan_bench.lab
    netns = str(NETNS / lab.plan.pod("shop/client").netns)
    with broken(lab, larger_than_its_veth):
        assert not run_in_netns(netns, partial(echoed, 1480))
        assert run_in_netns(netns, partial(echoed, 1450))


def echoed(size: int) -> bool:
    """One datagram of so many bytes with its IP header, never to be cut."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
        one.settimeout(1.0)
        one.connect(("10.96.1.5", 7))
        one.send(b"x" * (size - 28))
        try:
            return bool(one.recv(2000))
        except TimeoutError:
            return False

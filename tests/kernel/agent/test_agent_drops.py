"""What the kernel throws away it names: reason, function, namespace, interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kptrace.agent_client.subprocess_agent import SubprocessAgent
from kptrace.model import DropEvent, ProbeResult
from kptrace.protocol import Reply, SendProbes, StartCapture, Stop

if TYPE_CHECKING:
    from tests.kernel.agent.conftest import Ground, Observe, ProbeTo

pytestmark = pytest.mark.kernel


def _drops(replies: list[Reply]) -> list[tuple[str, str, str]]:
    return [
        (r.reason, f"{r.netns.node}/{r.netns.name}" if r.netns else "", r.interface)
        for r in replies
        if isinstance(r, DropEvent)
    ]


@pytest.mark.parametrize("backend", ["nft", "legacy"])
@pytest.mark.parametrize(
    ("node", "chain", "interface"), [("a", "FORWARD", "cni0"), ("b", "INPUT", "eth0")]
)
def test_a_dropping_rule(
    ground: Ground, observe: Observe, backend: str, node: str, chain: str, interface: str
) -> None:
    match = "-d 10.244.2.20" if chain == "FORWARD" else "-p udp --dport 8472"
    rules = f"*filter\n-A {chain} {match} -j DROP\nCOMMIT\n"
    ground.run(node, f"iptables-{backend}-restore", text=rules)
    replies = observe("10.244.2.20", 8080, timeout=0.3)
    assert ("NETFILTER_DROP", f"{node}/host", interface) in _drops(replies)
    drop = next(r for r in replies if isinstance(r, DropEvent))
    assert drop.packet.innermost.flow.dst == "10.244.2.20"
    assert drop.location
    assert next(r for r in replies if isinstance(r, ProbeResult)).result == "timeout"


def test_a_dropping_output_rule_has_no_device_yet(ground: Ground, observe: Observe) -> None:
    rules = "*filter\n-A OUTPUT -d 10.244.2.20 -j DROP\nCOMMIT\n"
    ground.run("a", "iptables-nft-restore", text=rules)
    replies = observe("10.244.2.20", 8080, source="a", timeout=0.3)
    assert _drops(replies)[0][:2] == ("NETFILTER_DROP", "a/host")


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("address", ["10.244.2.20", "fd00:10:244:2::20"])
def test_nobody_listens(observe: Observe, protocol: str, address: str) -> None:
    replies = observe(address, 9999, protocol, timeout=1)
    assert ("NO_SOCKET", "b/t/server", "eth0") in _drops(replies)


def test_a_dns_probe_is_known_by_its_name(observe: Observe) -> None:
    replies = observe("10.244.2.20", 53, "udp", timeout=1)
    assert ("NO_SOCKET", "b/t/server", "eth0") in _drops(replies)


def test_a_neighbour_that_does_not_answer(observe: Observe) -> None:
    """The packet waits for three ARP questions; then it is dropped."""
    replies = observe("10.244.2.77", 8080, timeout=3.8)
    assert ("NEIGH_FAILED", "b/host", "cni0") in _drops(replies)


def test_what_is_dropped_elsewhere_is_not_told(
    ground: Ground, agent: SubprocessAgent, probe_to: ProbeTo
) -> None:
    probes = probe_to("10.244.2.20", 9999)
    agent.send(
        StartCapture(id=20, namespaces=(ground.places["a"],), probes=probes, sources=("drops",))
    )
    assert agent.wait(20, 10)
    agent.send(SendProbes(id=21, netns=ground.places["client"], probes=probes))
    assert agent.wait(21, 10)
    agent.send(Stop(id=22, of=20))
    assert agent.wait(22, 10)
    assert _drops(agent.log) == []

"""A scout tells where a connection would go; nobody hears of it, and nothing of it stays."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import msgspec
import pytest

from kptrace.agent_client.subprocess_agent import SubprocessAgent
from kptrace.model import CapturedPacket, Flow, Probe, ProbeResult
from kptrace.packet.probe_id import payload, preflight_id_of
from kptrace.protocol import PreflightResult, SendPreflight, SendProbes, StartCapture, Stop

if TYPE_CHECKING:
    from tests.kernel.agent.conftest import Ground, ProbeTo

pytestmark = pytest.mark.kernel

RULES = """
table ip shop {
 chain pre { type nat hook prerouting priority -100;
  ip daddr 10.96.0.50 tcp dport 80 dnat to 10.244.2.20:8080
  ip daddr 10.96.0.50 udp dport 80 dnat to 10.244.2.20:8081
 }
}
"""
PORTS = {"tcp": 8080, "udp": 8081}


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("hold", [True, False], ids=["held", "mortal"])
def test_the_backend_does_not_hear_of_it(
    ground: Ground, agent: SubprocessAgent, probe_to: ProbeTo, protocol: str, hold: bool
) -> None:
    ground.run("a", "nft", "-f", "-", text=RULES)
    probes = probe_to("10.96.0.50", 80, protocol, count=3)
    if not hold:
        probes = tuple(msgspec.structs.replace(probe, ttl=2) for probe in probes)
    agent.send(StartCapture(id=10, namespaces=tuple(ground.places.values()), probes=probes))
    assert agent.wait(10, 20)
    client = ground.places["client"]
    agent.send(
        SendPreflight(id=11, netns=client, probes=probes, block_egress=hold, bridges=("cni0",))
    )
    assert agent.wait(11, 20)
    agent.send(Stop(id=12, of=10))
    assert agent.wait(12, 20)
    told = [reply for reply in agent.log if isinstance(reply, PreflightResult) and reply.id == 11]
    assert {word.probe_id for word in told} == {probe.probe_id for probe in probes}
    for word in told:
        assert word.error == ""
        assert word.entry is not None
        assert (word.entry.reply.src, word.entry.reply.sport) == ("10.244.2.20", PORTS[protocol])
    seen = {s.netns.name for s in agent.log if isinstance(s, CapturedPacket) and not s.packet.icmp}
    assert client.name in seen
    assert ground.places["server"].name not in seen
    nodes = {s.netns.node for s in agent.log if isinstance(s, CapturedPacket)}
    assert nodes == ({"a"} if hold else {"a", "b"})

    flows = {word.probe_id: word.flow for word in told}
    follow = tuple(_after(probe, flows[probe.probe_id]) for probe in probes)
    agent.send(SendProbes(id=13, netns=client, probes=follow))
    assert agent.wait(13, 20)
    results = {reply.result for reply in agent.log if isinstance(reply, ProbeResult)}
    assert results == {"connected" if protocol == "tcp" else "replied"}


def _after(scout: Probe, flow: Flow) -> Probe:
    cookie = preflight_id_of(scout.probe_id)
    data = payload(cookie, flow.dport) if flow.protocol == "udp" else b""
    return Probe(probe_id=cookie, flow=flow, payload=data)


@pytest.mark.parametrize("way", ["stopped", "left", "killed"])
def test_nothing_of_it_stays(ground: Ground, probe_to: ProbeTo, way: str) -> None:
    ground.run("a", "nft", "-f", "-", text=RULES)
    before = ground.run("a", "nft", "list", "ruleset")
    with SubprocessAgent("a", ground.netns_handles) as agent:
        probes = probe_to("10.96.0.50", 80)
        agent.send(SendPreflight(id=11, netns=ground.places["client"], probes=probes))
        assert agent.wait(11, 20)
        assert "table netdev kptrace" in ground.run("a", "nft", "list", "tables")
        if way == "stopped":
            agent.send(Stop(id=12, of=11))
            assert agent.wait(12, 20)
            assert ground.run("a", "nft", "list", "ruleset") == before
        if way == "killed":
            os.kill(agent.pid, signal.SIGKILL)
    assert ground.run("a", "nft", "list", "ruleset") == before


def test_what_the_node_drops_is_not_recorded(
    ground: Ground, agent: SubprocessAgent, probe_to: ProbeTo
) -> None:
    ground.run("a", "nft", "-f", "-", text=RULES)
    ground.run("a", "iptables-nft", "-P", "FORWARD", "DROP")
    request = SendPreflight(
        id=11, netns=ground.places["client"], probes=probe_to("10.96.0.50", 80), timeout=0.3
    )
    agent.send(request)
    assert agent.wait(11, 20)
    [word] = [reply for reply in agent.log if isinstance(reply, PreflightResult)]
    assert (word.entry, word.error) == (None, "")

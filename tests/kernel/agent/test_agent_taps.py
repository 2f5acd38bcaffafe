"""Every interface on the way shows the probe and its answer, in both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kptrace.agent_client.subprocess_agent import SubprocessAgent
from kptrace.model import CapturedPacket, ConntrackEntry, EventsLost, ProbeResult
from kptrace.protocol import GetConntrack, StartCapture, Stop

if TYPE_CHECKING:
    from tests.kernel.agent.conftest import Ground, Observe, ProbeTo

pytestmark = pytest.mark.kernel

ADDRESSES = {
    4: ("10.244.1.10", "10.244.2.20", "10.96.0.50"),
    6: ("fd00:10:244:1::10", "fd00:10:244:2::20", "fd00:10:96::50"),
}
PORTS = {"tcp": 8080, "udp": 8081}
FORTH = [
    ("a", "t/client", "eth0", "out"),
    ("a", "host", "vethc", "in"),
    ("a", "host", "cni0", "in"),
    ("a", "host", "flannel.1", "out"),
    ("a", "host", "eth0", "out"),
    ("b", "host", "eth0", "in"),
    ("b", "host", "flannel.1", "in"),
    ("b", "host", "cni0", "out"),
    ("b", "host", "veths", "out"),
    ("b", "t/server", "eth0", "in"),
]
OTHER = {"in": "out", "out": "in"}


def _tap(s: CapturedPacket) -> tuple[str, str, str, str]:
    return (s.netns.node, s.netns.name, s.interface, s.direction)


def _taps(sightings: list[CapturedPacket]) -> list[tuple[str, str, str, str]]:
    return [_tap(s) for s in sightings]


def _dnat(ground: Ground, version: int, protocol: str) -> None:
    _, server, vip = ADDRESSES[version]
    to = f"{server}:{PORTS[protocol]}" if version == 4 else f"[{server}]:{PORTS[protocol]}"
    rule = f"-A PREROUTING -d {vip} -p {protocol} --dport 80 -j DNAT --to-destination {to}"
    name = "iptables" if version == 4 else "ip6tables"
    ground.run("a", f"{name}-nft-restore", text=f"*nat\n{rule}\nCOMMIT\n")


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_all_ten_taps_see_the_probe_and_its_answer(
    ground: Ground, observe: Observe, version: int, protocol: str
) -> None:
    client, server, vip = ADDRESSES[version]
    _dnat(ground, version, protocol)
    replies = observe(vip, 80, protocol, backend=server)

    seen = [r for r in replies if isinstance(r, CapturedPacket)]
    if protocol == "tcp":
        forth = [s for s in seen if s.packet.innermost.flags == "S"]
        back = [s for s in seen if s.packet.innermost.flags == "SA"]
    else:
        forth = [s for s in seen if s.packet.innermost.flow.src == client]
        back = [s for s in seen if s.packet.innermost.flow.dst == client]
    forth.sort(key=lambda s: FORTH.index(_tap(s)))
    assert _taps(forth) == FORTH
    assert sorted(_taps(back)) == sorted((*tap[:3], OTHER[tap[3]]) for tap in FORTH)
    assert forth[1].packet.flow.dst == vip
    assert forth[2].packet.flow.dst == server, "br_netfilter translates before the bridge"
    assert [s.packet.tunnel.vni for s in forth if s.packet.tunnel] == [1, 1]
    assert {s.packet.innermost.flow.sport for s in forth} == {forth[0].packet.flow.sport}
    assert [s.packet.innermost.ttl for s in forth] == [64] * 3 + [63] * 4 + [62] * 3
    assert not any(s.other_host for s in seen)
    assert not [r for r in replies if isinstance(r, EventsLost)]

    returned = next(r for r in replies if isinstance(r, ProbeResult))
    assert returned.result == ("connected" if protocol == "tcp" else "replied")
    assert returned.data.strip() == b"server"
    assert returned.flow == forth[0].packet.flow


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_conntrack_tells_what_the_flow_became(
    ground: Ground, agent: SubprocessAgent, observe: Observe, version: int, protocol: str
) -> None:
    client, server, vip = ADDRESSES[version]
    _dnat(ground, version, protocol)
    flow = next(r for r in observe(vip, 80, protocol) if isinstance(r, ProbeResult)).flow

    observe.ask(GetConntrack(id=900, netns=ground.places["a"], flows=(flow, flow.reverse)))

    entries = [r for r in agent.log if isinstance(r, ConntrackEntry)]
    assert entries[0].original == flow
    assert (entries[0].reply.src, entries[0].reply.sport) == (server, PORTS[protocol])
    assert (entries[0].reply.dst, entries[0].reply.dport) == (client, flow.sport)
    assert {"CONFIRMED", "SEEN_REPLY", "DST_NAT"} <= set(entries[0].status)
    assert entries[0].state == ("TIME_WAIT" if protocol == "tcp" else "")
    listed = ground.run("a", "conntrack", "-L", "-f", f"ipv{version}", "-s", client)
    assert f"sport={flow.sport}" in listed


def test_a_hundred_probes_at_once_are_told_apart(ground: Ground, observe: Observe) -> None:
    _dnat(ground, 4, "tcp")
    replies = observe("10.96.0.50", 80, count=100)
    assert [r.result for r in replies if isinstance(r, ProbeResult)] == ["connected"] * 100
    syns = [r for r in replies if isinstance(r, CapturedPacket) and r.packet.innermost.flags == "S"]
    for cookie in {s.probe_id for s in syns}:
        assert sorted(_taps([s for s in syns if s.probe_id == cookie])) == sorted(FORTH)
    assert len({s.probe_id for s in syns}) == 100


def test_an_icmp_error_is_recognised_by_what_it_quotes(ground: Ground, observe: Observe) -> None:
    rule = "-A FORWARD -d 10.244.2.20 -j REJECT --reject-with icmp-admin-prohibited"
    ground.run("b", "iptables-nft-restore", text=f"*filter\n{rule}\nCOMMIT\n")
    replies = observe("10.244.2.20", 8080)
    errors = [r for r in replies if isinstance(r, CapturedPacket) and r.packet.innermost.icmp]
    assert {s.packet.innermost.icmp for s in errors} == {(3, 13)}
    assert ("a", "t/client", "eth0", "in") in _taps(errors)
    quoted = errors[-1].packet.quoted
    assert (quoted.flow.dst, quoted.flow.dport, quoted.seq) == (
        "10.244.2.20",
        8080,
        errors[0].probe_id,
    )
    returned = next(r for r in replies if isinstance(r, ProbeResult))
    assert (returned.result, returned.error) == ("unreachable", "EHOSTUNREACH")


def test_a_closed_port_refuses(observe: Observe) -> None:
    replies = observe("10.244.2.20", 9999)
    assert next(r for r in replies if isinstance(r, ProbeResult)).result == "refused"
    resets = [
        r for r in replies if isinstance(r, CapturedPacket) and r.packet.innermost.flags == "RA"
    ]
    assert len(resets) == 10


def test_the_pod_itself_and_the_node_can_send(ground: Ground, observe: Observe) -> None:
    replies = observe("10.244.2.20", 8080, source="a")
    syns = [r for r in replies if isinstance(r, CapturedPacket) and r.packet.innermost.flags == "S"]
    assert sorted(_taps(syns)) == sorted(FORTH[3:])


def test_no_interface_becomes_promiscuous(
    ground: Ground, agent: SubprocessAgent, probe_to: ProbeTo
) -> None:
    probes = probe_to("10.244.2.20", 8080)
    agent.send(StartCapture(id=50, namespaces=tuple(ground.places.values()), probes=probes))
    assert agent.wait(50, 10)
    for node in ("a", "b"):
        links = ground.run(node, "ip", "-d", "link")
        # A bridge's own ports are promiscuous by the bridge's doing, once each.
        assert "PROMISC" not in links
        assert links.count("promiscuity 1") == 1
        assert "promiscuity 2" not in links
    agent.send(Stop(id=51, of=50))
    assert agent.wait(51, 10)

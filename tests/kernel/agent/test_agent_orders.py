"""What the agent is told, and what it answers when it cannot."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from kptrace.agent import netns
from kptrace.agent.netns import OWN
from kptrace.agent_client.subprocess_agent import SubprocessAgent
from kptrace.model import Flow, Netns, ProbeResult
from kptrace.model.errors import AgentError
from kptrace.protocol import (
    NETNS_UNAVAILABLE,
    CaptureStarted,
    DnsQuery,
    DnsResponse,
    FileContent,
    GetConntrack,
    NetnsHandle,
    ReadFiles,
    SendProbes,
    StartCapture,
    Stop,
)
from kptrace.rules.live.queries import TABLES

if TYPE_CHECKING:
    from tests.kernel.agent.conftest import Ground, ProbeTo

pytestmark = pytest.mark.kernel


def _say(*lines: bytes) -> tuple[list[dict[str, object]], str]:
    """The agent by hand: these lines on its stdin; its replies and its stderr."""
    run = subprocess.run(
        [sys.executable, "-m", "kptrace.agent.server"],
        input=b"".join(line + b"\n" for line in lines),
        capture_output=True,
        timeout=20,
        check=True,
    )
    return [json.loads(line) for line in run.stdout.splitlines()], run.stderr.decode()


def test_lines_that_are_no_requests_are_answered_and_it_goes_on() -> None:
    hostile = [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b'{"type": "reboot", "id": 1}',
        b'{"type": "open-namespaces"}',
        b'{"type": "open-namespaces", "id": "1", "namespaces": []}',
        b"[" * 100_000,
        b'{"type": "read-files", "id": 7, "netns": {"node": "../../x"}, "files": ["../../etc/passwd"]}',  # noqa: E501
        b'{"type": "get-conntrack", "id": 9, "netns": {"node": "x"}, "flows": [{"protocol": "tcp"}]}',  # noqa: E501
        b'{"type": "open-namespaces", "id": 8, "namespaces": []}',
    ]
    replies, stderr = _say(*hostile)
    assert [(r["type"], r["id"]) for r in replies if r["id"] == 0] == [
        ("error", 0),
        ("done", 0),
    ] * 9
    assert [(r["type"], r["id"]) for r in replies if r["id"]] == [
        ("error", 7),
        ("done", 7),
        ("done", 8),
    ]
    assert stderr == ""


def test_a_flow_that_is_none_is_an_oops(ground: Ground, agent: SubprocessAgent) -> None:
    bad = msgspec.json.decode(
        b'{"protocol":"carrier pigeon","src":"here","dst":"there"}', type=dict[str, str]
    )
    agent.send(GetConntrack(id=5, netns=ground.places["a"], flows=(Flow(**bad),)))
    with pytest.raises(AgentError):
        agent.wait(5, 10)
    agent.send(GetConntrack(id=6, netns=ground.places["a"], flows=()))
    assert agent.wait(6, 10)


def test_a_place_without_a_door(agent: SubprocessAgent) -> None:
    agent.send(ReadFiles(id=5, netns=Netns(node="a", pod="no/such"), files=("ip-addr.json",)))
    with pytest.raises(AgentError, match="namespace no/such"):
        agent.wait(5, 10)


def test_a_namespace_that_is_gone() -> None:
    place = Netns(node="a")
    door = NetnsHandle(netns=place, ns_path="/run/netns/kpa-no-such")
    # Agents start side by side, so it is the first wait that tells of it.
    with SubprocessAgent("a", (door,)) as agent:
        agent.send(ReadFiles(id=10, netns=place, files=("ip-link.json",)))
        with pytest.raises(AgentError, match="no such namespace file"):
            agent.wait(10, 10)


def test_a_pod_that_has_ended_closes_its_own_door_only() -> None:
    node, pod = Netns(node="a"), Netns(node="a", pod="shop/web")
    doors = (
        NetnsHandle(netns=pod, ns_path="/proc/4194305/ns/net"),
        NetnsHandle(netns=node, ns_path=OWN),
    )
    with SubprocessAgent("a", doors) as agent:
        agent.wait_until_entered()
        (closed,) = (
            r for r in agent.log if isinstance(r, FileContent) and r.file == NETNS_UNAVAILABLE
        )
        assert (closed.netns, closed.unavailable) == (
            pod,
            "pod shop/web has ended since it was looked up",
        )
        agent.send(ReadFiles(id=10, netns=node, files=("ip-link.json",)))
        assert agent.wait(10, 10)


def test_a_pod_that_ends_while_it_is_looked_at_is_looked_at_to_the_end() -> None:
    """And not whoever has its process' number then."""
    pod = Netns(node="a", pod="shop/web")
    process = subprocess.Popen(["unshare", "--net", "sleep", "600"])
    try:
        path = f"/proc/{process.pid}/ns/net"
        while os.stat(path).st_ino == os.stat(OWN).st_ino:
            time.sleep(0.01)
        words = ("nsenter", f"--net={path}", "ip", "link", "add", "of-web", "type", "bridge")
        subprocess.run(words, check=True)
        with SubprocessAgent("a", (NetnsHandle(netns=pod, ns_path=path),)) as agent:
            agent.wait_until_entered()
            process.kill()
            process.wait()
            agent.send(ReadFiles(id=10, netns=pod, files=("ip-link.json", TABLES)))
            assert agent.wait(10, 10)
            agent.send(
                StartCapture(id=11, namespaces=(pod,), probes=(), sources=("capture", "rules"))
            )
            assert agent.wait(11, 10)
            told = {
                r.file: r.text
                for r in agent.log
                if isinstance(r, FileContent) and not r.unavailable
            }
            assert [link["ifname"] for link in json.loads(told["ip-link.json"])] == ["lo", "of-web"]
            assert "of-web" in json.loads(told[TABLES])["interfaces"].values()
            (ready,) = (r for r in agent.log if isinstance(r, CaptureStarted))
            assert ready.unarmed == ()
    finally:
        process.kill()


def test_without_capabilities_it_says_what_is_missing(ground: Ground) -> None:
    lines = [
        {
            "type": "open-namespaces",
            "id": 1,
            "namespaces": [{"netns": {"node": "a"}, "nsPath": ground.path("a")}],
            "rights": "ask for --profile x",
        },
        {"type": "start-capture", "id": 2, "namespaces": [{"node": "a"}], "probes": []},
        {"type": "get-conntrack", "id": 3, "netns": {"node": "a"}, "flows": []},
    ]
    without = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    run = subprocess.run(
        [*without, sys.executable, "-m", "kptrace.agent.server"],
        input="".join(json.dumps(line) + "\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=20,
    )
    replies = [json.loads(line) for line in run.stdout.splitlines()]
    door = next(r for r in replies if r["type"] == "file-content" and r["file"] == "netns")
    assert (door["netns"]["node"], door["hint"]) == ("a", "ask for --profile x")
    assert "not permitted to enter" in door["unavailable"]
    ready = next(r for r in replies if r["type"] == "capture-started")
    assert ready["armed"] == []
    assert [u["source"] for u in ready["unarmed"]] == ["capture", "rules", "drops"]
    assert all("CAP_" in u["hint"] for u in ready["unarmed"])
    assert all(u["hint"].endswith(": ask for --profile x") for u in ready["unarmed"])
    oops = next(r for r in replies if r["type"] == "error")
    assert oops["hint"] == "ask for --profile x"
    assert run.stderr == ""


def test_it_needs_little_to_start() -> None:
    heavy = {"scapy", "pyroute2", "typer", "rich", "kubernetes", "yaml", "dns", "asyncio"}
    code = "import sys, kptrace.agent.server; print(*{m.split('.')[0] for m in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(run.stdout.split())


@pytest.mark.parametrize("name", ["ip-addr.json", "ip-route.json", "bridge-fdb.json"])
def test_a_dump_is_what_the_tool_prints(ground: Ground, agent: SubprocessAgent, name: str) -> None:
    commands = {
        "ip-addr.json": "ip -j -d address show",
        "ip-route.json": "ip -j -4 route show table all",
        "bridge-fdb.json": "bridge -j fdb show",
    }
    agent.send(ReadFiles(id=5, netns=ground.places["a"], files=(name,)))
    assert agent.wait(5, 20)
    [fact] = [r for r in agent.log if isinstance(r, FileContent)]
    printed = ground.run("a", *commands[name].split())
    assert _steady(json.loads(fact.text)) == _steady(json.loads(printed))


def _steady(value: object) -> object:
    """Without what counts time or neighbours as they come and go."""
    if isinstance(value, list):
        return [_steady(one) for one in value]
    if isinstance(value, dict):
        return {k: _steady(v) for k, v in value.items() if "timer" not in k and "fdb" not in k}
    return value


def test_a_dump_of_everything(ground: Ground, agent: SubprocessAgent, tmp_path: Path) -> None:
    from kptrace.trace.agent_session import FILES, ON_DEMAND

    every = (*FILES, *ON_DEMAND, "resolv.conf", "no-such.txt")
    ground.run("a", "iptables-nft-restore", text="*nat\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n")
    agent.send(ReadFiles(id=5, netns=ground.places["a"], files=every))
    assert agent.wait(5, 30)
    facts = {r.file: r for r in agent.log if isinstance(r, FileContent)}
    assert {name for name, fact in facts.items() if fact.unavailable} == {
        "resolv.conf",
        "no-such.txt",
    }
    assert set(facts) == set(every)
    for name, fact in facts.items():
        if name.endswith(".json"):
            assert json.loads(fact.text)
    assert "-A POSTROUTING -j MASQUERADE" in facts["iptables-nft-save.txt"].text
    sysctls = dict(line.split(" = ") for line in facts["sysctl.txt"].text.splitlines())
    assert sysctls["net.ipv4.ip_forward"] == "1"
    assert sysctls["net.ipv4.conf.flannel/1.rp_filter"] in "012"
    assert sysctls["net.bridge.bridge-nf-call-iptables"] == "1"


def test_a_program_that_is_missing_is_named(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with SubprocessAgent("a", ground.netns_handles) as agent:
        agent.send(
            ReadFiles(id=5, netns=ground.places["a"], files=("ip-addr.json", "ipset-save.txt"))
        )
        assert agent.wait(5, 20)
    missing = {r.file: r.unavailable for r in agent.log if isinstance(r, FileContent)}
    assert missing["ip-addr.json"] == "ip is not installed here"
    assert missing["ipset-save.txt"] == "ipset is not installed here"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_question_and_its_answer(ground: Ground, agent: SubprocessAgent, transport: str) -> None:
    import dns.message

    query = dns.message.make_query("web.shop.svc.cluster.local", "A")
    served = dns.message.make_response(query).to_wire()
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM

    def bind() -> socket.socket:
        sock = socket.socket(socket.AF_INET, kind)
        sock.bind(("10.244.2.20", 5353))
        return sock

    server = netns.run_in_netns(ground.path("server"), bind)
    work = _serve_tcp if transport == "tcp" else _serve_udp
    thread = threading.Thread(target=partial(work, server, served))
    if transport == "tcp":
        server.listen()
    thread.start()
    ask = DnsQuery(
        id=5,
        netns=ground.places["client"],
        server="10.244.2.20",
        query=query.to_wire(),
        transport=transport,
        port=5353,
    )
    agent.send(ask)
    assert agent.wait(5, 10)
    thread.join()
    server.close()
    [answer] = [r for r in agent.log if isinstance(r, DnsResponse)]
    assert (answer.message, answer.error) == (served, "")


def _serve_udp(sock: socket.socket, answer: bytes) -> None:
    _, peer = sock.recvfrom(1000)
    sock.sendto(b"??" + answer[2:], peer)  # an answer to somebody else's question
    sock.sendto(answer, peer)


def _serve_tcp(sock: socket.socket, answer: bytes) -> None:
    peer, _ = sock.accept()
    with peer:
        peer.recv(1000)
        peer.sendall(len(answer).to_bytes(2, "big") + answer[:5])
        peer.sendall(answer[5:])


@pytest.mark.parametrize(
    ("server", "transport", "error"),
    [
        ("10.244.2.20", "udp", "CLOSED"),
        ("10.244.2.20", "tcp", "CLOSED"),
        ("224.0.0.1", "tcp", "UNREACHABLE"),
        ("10.244.2.99", "udp", "TIMEOUT"),
    ],
)
def test_no_answer(
    ground: Ground, agent: SubprocessAgent, server: str, transport: str, error: str
) -> None:
    agent.send(
        DnsQuery(
            id=5,
            netns=ground.places["client"],
            server=server,
            query=bytes(12),
            transport=transport,
            timeout=0.5,
        )
    )
    assert agent.wait(5, 10)
    [answer] = [r for r in agent.log if isinstance(r, DnsResponse)]
    assert (answer.message, answer.error) == (b"", error)


def test_a_send_can_be_given_up_while_it_waits(
    ground: Ground, agent: SubprocessAgent, probe_to: ProbeTo
) -> None:
    probes = probe_to("10.244.2.99", 8080, count=3)
    watch = StartCapture(id=4, namespaces=(ground.places["a"],), probes=probes)
    agent.send(watch)
    agent.send(SendProbes(id=5, netns=ground.places["client"], probes=probes, timeout=60))
    assert agent.wait(4, 10)
    assert not agent.wait(5, 0.1)
    agent.send(Stop(id=6, of=5))
    assert agent.wait(6, 10)
    assert agent.wait(5, 1)
    returned = [r for r in agent.log if isinstance(r, ProbeResult)]
    assert [r.result for r in returned] == ["timeout"] * 3
    assert {r.probe_id for r in returned} == {p.probe_id for p in probes}


def test_the_flow_that_was_asked_for(
    ground: Ground, agent: SubprocessAgent, probe_to: ProbeTo
) -> None:
    [probe] = probe_to("10.244.2.20", 8080)
    flow = msgspec.structs.replace(probe.flow, src="10.244.1.10", sport=40123)
    chosen = msgspec.structs.replace(probe, flow=flow, ttl=2)
    agent.send(SendProbes(id=5, netns=ground.places["client"], probes=(chosen,)))
    assert agent.wait(5, 10)
    [returned] = [r for r in agent.log if isinstance(r, ProbeResult)]
    assert returned.flow == flow
    assert returned.result == "unreachable", "TTL 2 dies on the second node"


def test_an_address_that_is_not_ours_cannot_be_a_source(
    ground: Ground, agent: SubprocessAgent, probe_to: ProbeTo
) -> None:
    [probe] = probe_to("10.244.2.20", 8080, src="10.9.9.9")
    agent.send(SendProbes(id=5, netns=ground.places["client"], probes=(probe,)))
    assert agent.wait(5, 10)
    [returned] = [r for r in agent.log if isinstance(r, ProbeResult)]
    assert (returned.result, returned.error) == ("failed", "EADDRNOTAVAIL")


def test_a_dead_agent_is_an_error_with_its_last_words(ground: Ground) -> None:
    with SubprocessAgent("a", ground.netns_handles) as agent:
        os.kill(agent.pid, 9)
        with pytest.raises(AgentError, match="agent on a died"):
            agent.wait(5, 10)
        with pytest.raises(AgentError):
            agent.send(Stop(id=6, of=5))

"""Whatever way the agent ends, nothing of it is left on the node."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kptrace.agent_client.subprocess_agent import SubprocessAgent
from kptrace.model import Netns
from kptrace.model.errors import AgentError
from kptrace.protocol import CaptureStarted, Done, ReadFiles, SendProbes, StartCapture, Stop

if TYPE_CHECKING:
    from tests.kernel.agent.conftest import Ground, ProbeTo

pytestmark = pytest.mark.kernel

LEGACY = (
    "*nat\n-A PREROUTING -d 10.96.0.50 -p tcp --dport 80 -j DNAT --to 10.244.2.20:8080\nCOMMIT\n"
)
SYSCTLS = tuple(f"/proc/sys/net/netfilter/nf_log/{family}" for family in (2, 10))


def _state(ground: Ground) -> dict[str, str]:
    """All that an agent could have left in the nodes' namespaces."""
    found = {}
    for place in ground.places:
        found[f"{place} nft"] = ground.run(place, "nft", "list", "tables")
        found[f"{place} log"] = ground.run(place, "cat", *SYSCTLS)
        found[f"{place} sockets"] = ground.run(place, "cat", "/proc/self/net/packet")
        found[f"{place} group 0"] = ground.run(
            place, "cat", "/proc/self/net/netfilter/nfnetlink_log"
        )
    return found


def _ended(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def _guards_of(session_leader: int) -> list[int]:
    children = Path(f"/proc/{session_leader}/task/{session_leader}/children").read_text()
    return [int(pid) for pid in children.split()]


def _wait_until(true: Callable[[], bool]) -> None:
    """The kernel and the guard clean up on their own time; the test's time-out is the bound."""
    while not true():
        time.sleep(0.002)


@pytest.fixture
def before(ground: Ground) -> dict[str, str]:
    ground.run("a", "iptables-legacy-restore", text=LEGACY)
    ground.run("b", "ip6tables-legacy-restore", text="*filter\n-A FORWARD -j ACCEPT\nCOMMIT\n")
    state = _state(ground)
    assert "nfnetlink_log" not in "".join(state.values())
    return state


def _watch(ground: Ground, probe_to: ProbeTo) -> StartCapture:
    return StartCapture(
        id=10, namespaces=tuple(ground.places.values()), probes=probe_to("10.96.0.50", 80)
    )


def _armed(ground: Ground, agent: SubprocessAgent, watch: StartCapture) -> None:
    agent.send(watch)
    assert agent.wait(watch.id, 20)
    ready = agent.log[-1]
    assert isinstance(ready, CaptureStarted)
    assert not ready.unarmed
    assert "nfnetlink_log" in ground.run("a", "cat", SYSCTLS[0])
    assert "nfnetlink_log" in ground.run("b", "cat", SYSCTLS[1])
    assert "kptrace" in ground.run("a", "nft", "list", "tables")


def test_after_stop_all_is_as_before(
    ground: Ground, before: dict[str, str], probe_to: ProbeTo
) -> None:
    watch = _watch(ground, probe_to)
    with SubprocessAgent("a", ground.netns_handles) as agent:
        _armed(ground, agent, watch)
        agent.send(Stop(id=11, of=10))
        assert agent.wait(11, 10)
        assert _state(ground) == before


def test_after_the_end_of_input_all_is_as_before(
    ground: Ground, before: dict[str, str], probe_to: ProbeTo
) -> None:
    with SubprocessAgent("a", ground.netns_handles) as agent:
        _armed(ground, agent, _watch(ground, probe_to))
        [guard] = _guards_of(agent.pid)
    assert _state(ground) == before
    assert _ended(agent.pid)
    _wait_until(lambda: _ended(guard))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_after_a_signal_all_is_as_before(
    ground: Ground, before: dict[str, str], probe_to: ProbeTo, number: signal.Signals
) -> None:
    if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)  # under nohup(1), which children would inherit
    watch = _watch(ground, probe_to)
    with SubprocessAgent("a", ground.netns_handles) as agent:
        _armed(ground, agent, watch)
        [guard] = _guards_of(agent.pid)
        agent.send(SendProbes(id=11, netns=ground.places["client"], probes=watch.probes))
        os.killpg(agent.pid, number)
        with pytest.raises(AgentError):
            agent.wait(999, 10)
    _wait_until(lambda: _ended(guard))
    assert _state(ground) == before


@pytest.mark.parametrize("replies", range(0, 60, 6))
def test_killed_at_any_moment(
    ground: Ground, before: dict[str, str], probe_to: ProbeTo, replies: int
) -> None:
    """Everything is asked at once; it is killed when the n-th reply came, or in mid-arming."""
    watch = _watch(ground, probe_to)
    with SubprocessAgent("a", ground.netns_handles) as agent:
        agent.send(watch)
        agent.send(SendProbes(id=11, netns=ground.places["client"], probes=watch.probes))
        agent.send(ReadFiles(id=12, netns=ground.places["a"], files=("iptables-legacy-save.txt",)))
        agent.send(Stop(id=13, of=10))
        _wait_until(lambda: len(agent.log) > replies or Done(id=13) in agent.log)
        os.kill(agent.pid, signal.SIGKILL)
    _wait_until(lambda: _state(ground) == before)


@pytest.mark.parametrize("milliseconds", range(0, 100, 7))
def test_killed_while_arming(
    ground: Ground, before: dict[str, str], probe_to: ProbeTo, milliseconds: int
) -> None:
    with SubprocessAgent("a", ground.netns_handles) as agent:
        agent.send(_watch(ground, probe_to))
        time.sleep(milliseconds / 1000)
        os.kill(agent.pid, signal.SIGKILL)
    _wait_until(lambda: _state(ground) == before)


def test_the_logger_that_was_there_is_put_back(ground: Ground, probe_to: ProbeTo) -> None:
    ground.run("a", "iptables-legacy-restore", text=LEGACY)
    ground.write("a", {"net/netfilter/nf_log/2": "nf_log_ipv4"})
    with SubprocessAgent("a", ground.netns_handles) as agent:
        agent.send(_watch(ground, probe_to))
        assert agent.wait(10, 20)
    assert ground.run("a", "cat", SYSCTLS[0]).strip() == "nf_log_ipv4"
    ground.write("a", {"net/netfilter/nf_log/2": "NONE"})


def test_descriptors_and_threads_do_not_pile_up(
    ground: Ground, agent: SubprocessAgent, probe_to: ProbeTo
) -> None:
    def size() -> tuple[int, int]:
        process = Path(f"/proc/{agent.pid}")
        return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))

    sizes = []
    for round_ in range(3):
        watch = StartCapture(
            id=100 + round_, namespaces=(Netns(node="a"),), probes=probe_to("10.244.2.20", 8080)
        )
        agent.send(watch)
        agent.send(SendProbes(id=200 + round_, netns=ground.places["client"], probes=watch.probes))
        assert agent.wait(200 + round_, 10)
        agent.send(Stop(id=300 + round_, of=watch.id))
        assert agent.wait(300 + round_, 10)
        sizes.append(size())
    assert sizes[0] == sizes[1] == sizes[2]


def test_a_dump_that_takes_long_does_not_outlive_the_agent(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "ipset"
    slow.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 1000\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with SubprocessAgent("a", ground.netns_handles) as agent:
        agent.send(ReadFiles(id=5, netns=Netns(node="a"), files=("ipset-save.txt",)))
        _wait_until(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text() != "")
        pid = int((tmp_path / "pid").read_text())
    assert agent.ended == 0, "it left by itself"
    _wait_until(lambda: _ended(pid))

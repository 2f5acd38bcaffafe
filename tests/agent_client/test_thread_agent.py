"""An agent in a thread of ours talks as one in a process does, and leaves when it is told to."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import pytest

from kptrace.agent_client.thread_agent import ThreadAgent
from kptrace.model import Netns
from kptrace.model.errors import ObservationError
from kptrace.protocol import FileContent, GetConntrack, NetnsHandle, ReadFiles

HERE = Netns(node="a")
DOORS = (NetnsHandle(netns=HERE, ns_path="/proc/self/ns/net"),)


def dumped(agent: ThreadAgent, id: int, *files: str) -> dict[str, str]:
    agent.send(ReadFiles(id=id, netns=HERE, files=files))
    assert agent.wait(id, 20)
    return {
        one.file: one.text for one in agent.log if isinstance(one, FileContent) and one.id == id
    }


def test_it_looks_where_we_are() -> None:
    with ThreadAgent("a", DOORS) as agent:
        told = dumped(agent, 7, "sysctl.txt", "nonsense")
    forwards = Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()
    assert f"net.ipv4.ip_forward = {forwards}\n" in told["sysctl.txt"]
    assert told["nonsense"] == ""


def test_one_after_the_other_in_one_process() -> None:
    for _ in range(2):
        with ThreadAgent("a", DOORS) as agent:
            assert dumped(agent, 7, "ip-link.json")["ip-link.json"].startswith("[")


def settle() -> None:
    """A dump's thread says that it is done, and ends then. A bell goes with its conversation, and
    an agent is in a circle with its loop.
    """
    for thread in threading.enumerate():
        if thread.name.startswith("dump "):
            thread.join(20)
    gc.collect()


def test_nothing_of_it_stays() -> None:
    settle()
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()

    def look() -> None:
        with ThreadAgent("a", DOORS) as agent:
            assert agent.wait(1, 5)
        agent.close()

    look()
    settle()
    assert len(os.listdir("/proc/self/fd")) == files
    assert threading.active_count() == threads


def test_what_it_cannot_do_it_says() -> None:
    with ThreadAgent("a", DOORS) as agent:
        agent.send(GetConntrack(id=7, netns=Netns(node="b"), flows=()))
        with pytest.raises(ObservationError, match="was not opened"):
            agent.wait(7, 5)


def test_one_that_has_left_takes_no_requests() -> None:
    with ThreadAgent("a", DOORS) as agent:
        agent.close()
        with pytest.raises(ObservationError, match="it has left"):
            agent.send(GetConntrack(id=7, netns=HERE, flows=()))

"""The agent over an exec stream: the program is the real one, run here, the stream a fake one."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from kptrace.kube.agents import bootstrap
from kptrace.kube.agents.exec_agent import ExecAgentClient
from kptrace.kube.client.exec_stream import STATUS, STDOUT
from kptrace.model import Netns
from kptrace.model.errors import (
    AgentError,
    ClusterUnreachableError,
    ObservationError,
    UnsupportedError,
)
from kptrace.protocol import FileContent, NetnsHandle, ReadFiles

HERE = Netns(node="a")
DOOR = NetnsHandle(netns=HERE, ns_path="/proc/self/ns/net")
LOST = NetnsHandle(
    netns=Netns(node="a", pod="shop/old"), pod_uid="00000000-0000-0000-0000-000000000000"
)
NOT_YET = b'{"status":"Failure","message":"container not found (\\"agent\\")"}'
NO_PYTHON = b'{"status":"Failure","message":"exec: \\"python3\\": executable file not found"}'


class Stream:
    """stdin and stdout of a process of ours, in the form of the API server's channels."""

    refused = None

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/"
        )

    def write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def frames(self) -> Iterator[tuple[int, bytes]]:
        assert self._process.stdout is not None
        while data := self._process.stdout.read1(700):  # so that lines come in pieces
            yield STDOUT, data
        yield STATUS, b'{"status":"Success"}'

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class CutStream(Stream):
    """The API has no last word."""

    def frames(self) -> Iterator[tuple[int, bytes]]:
        return (one for one in super().frames() if one[0] != STATUS)


class Said:
    """A stream that ends after one word of the API."""

    refused = None

    def __init__(self, status: bytes, refused: tuple[int, bytes] | None = None) -> None:
        self._status, self.refused = status, refused

    def frames(self) -> Iterator[tuple[int, bytes]]:
        yield STATUS, self._status

    def write(self, data: bytes) -> None:
        pass

    end = close = lambda self: None


class Lodging:
    name = "shop/kptrace-1-1"
    rights = "ask for more"

    def __init__(self, *streams: Callable[[Sequence[str]], Any]) -> None:
        self._streams = list(streams)
        self.life: list[str] = []
        self.fate: ObservationError | None = None

    def create(self) -> None:
        self.life.append("made")

    def look(self) -> str:
        if self.fate:
            raise self.fate
        return "ContainerCreating"

    def exec(self, command: Sequence[str]) -> Any:
        return self._streams.pop(0)(command)

    def remove(self) -> None:
        self.life.append("removed")


def _here(command: Sequence[str]) -> Stream:
    """The same Python, which has kptrace."""
    return Stream([sys.executable, *command[1:]])


def _cut(command: Sequence[str]) -> Stream:
    return CutStream([sys.executable, *command[1:]])


def _bare(command: Sequence[str]) -> Stream:
    """A Python that has nothing but the standard library."""
    return Stream([sys.executable, "-I", "-S", *command[1:]])


def _agent(container: Lodging, *doors: NetnsHandle) -> ExecAgentClient:
    return ExecAgentClient("a", doors or (DOOR,), container, "img:1", lambda _: None)


def _facts(agent: ExecAgentClient) -> list[FileContent]:
    agent.send(ReadFiles(id=7, netns=HERE, files=("sysctl.txt",)))
    assert agent.wait(7, 30)
    return [reply for reply in agent.log if isinstance(reply, FileContent) and reply.id == 7]


@pytest.mark.parametrize("python", [_here, _bare], ids=["in the image", "carried along"])
def test_a_conversation(python: Callable[[Sequence[str]], Stream]) -> None:
    container = Lodging(lambda _: Said(NOT_YET), python)
    agent = _agent(container)
    agent.begin()
    try:
        agent.wait_until_entered()
        assert "net.ipv4.ip_forward" in _facts(agent)[0].text
    finally:
        agent.close()
    assert container.life == ["made", "removed"]


def test_a_pod_without_a_process_is_told_of() -> None:
    agent = _agent(Lodging(_here), DOOR, LOST)
    agent.begin()
    try:
        agent.wait_until_entered()
    finally:
        agent.close()
    (told,) = [reply for reply in agent.log if isinstance(reply, FileContent)]
    assert (told.netns.pod, told.file) == ("shop/old", "netns")
    assert "no process of pod shop/old" in told.unavailable


def test_an_image_without_python() -> None:
    container = Lodging(lambda _: Said(NO_PYTHON))
    agent = _agent(container)
    agent.begin()
    with pytest.raises(UnsupportedError, match="img:1 has no python3"):
        agent.wait_until_entered()
    agent.close()
    assert container.life == ["made", "removed"]


def test_what_becomes_of_the_pod_is_what_is_said() -> None:
    container = Lodging(_here)
    agent = _agent(container)
    agent.begin()
    try:
        agent.wait_until_entered()
        container.fate = AgentError("it was evicted")
        agent._channel.close()  # type: ignore[union-attr]
        with pytest.raises(AgentError, match="it was evicted"):
            agent.wait(8, 10)
    finally:
        agent.close()


@pytest.mark.parametrize(
    ("away", "said"),
    [(1, "the exec stream to the agent on a was cut"), (1000, "cannot be reached")],
)
def test_an_api_server_that_is_away(away: int, said: str) -> None:
    """For a moment: what cut the stream may have cut the connection that asks. For good: that."""

    class Away(Lodging):
        left = 0

        def look(self) -> str:
            self.left -= 1
            if self.left >= 0:
                raise ClusterUnreachableError("the API server cannot be reached")
            return super().look()

    container = Away(_cut)
    agent = _agent(container)
    agent.begin()
    try:
        agent.wait_until_entered()
        container.left = away
        agent._channel.close()  # type: ignore[union-attr]
        with pytest.raises(ObservationError, match=said):
            agent.wait(8, 10)
    finally:
        agent.close()


def test_it_is_not_waited_for_when_we_leave() -> None:
    container = Lodging(*[lambda _: Said(NOT_YET)] * 1000)
    agent = _agent(container)
    agent.begin()
    agent.close()
    assert container.life[-1] == "removed"


def test_another_python_without_msgspec_cannot_be_helped() -> None:
    word = bootstrap.RemotePythonInfo(
        same=False, python="3.13", abi="cpython-313-aarch64-linux-gnu", msgspec=False
    )
    with pytest.raises(UnsupportedError, match=r"Python 3\.13 .* without msgspec"):
        bootstrap.payload(word, "img:1")


def test_an_old_python_cannot_be_helped() -> None:
    word = bootstrap.RemotePythonInfo(same=False, python="3.9", abi="", msgspec=True)
    with pytest.raises(UnsupportedError, match=r"the agent needs 3\.11"):
        bootstrap.payload(word, "img:1")


def test_where_msgspec_is_there_only_kptrace_travels() -> None:
    word = bootstrap.RemotePythonInfo(same=False, python="3.13", abi="other", msgspec=True)
    assert len(bootstrap.payload(word, "img:1")) > 100_000
    bare = bootstrap.RemotePythonInfo(
        same=False,
        python="3.11",
        abi=str(sysconfig.get_config_var("SOABI")),
        msgspec=False,
    )
    assert len(bootstrap.payload(bare, "img:1")) > len(bootstrap.payload(word, "img:1"))

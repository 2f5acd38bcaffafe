"""A place's files, dumped when they are looked up."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kptrace.environment.local_node import LiveState
from kptrace.model import Netns
from kptrace.protocol import AgentClient, FileContent, ReadFiles, Reply, Request
from kptrace.trace.agent_session import ON_DEMAND, AgentSession

NODE = Netns(node="a")
HELD = {
    "ip-link.json": "[]",
    "rules/tables.json": "{}",
    "rules/nft/ip/nat/chain/X.json": "{}",
    "nft-ruleset.json": "{}",
}


class Told:
    """An agent that holds some files and remembers what it was asked."""

    node = "a"

    def __init__(self) -> None:
        self.log: list[Reply] = []
        self.asked: list[tuple[str, ...]] = []

    def send(self, request: Request) -> None:
        assert isinstance(request, ReadFiles)
        self.asked.append(request.files)
        for file in request.files:
            missing = "" if file in HELD else "not here"
            text = HELD.get(file, "")
            self.log.append(
                FileContent(
                    id=request.id, netns=request.netns, file=file, text=text, unavailable=missing
                )
            )

    def wait(self, id: int, timeout: float) -> bool:
        return True

    def close(self) -> None:
        pass


class Ground:
    def __init__(self) -> None:
        self.told = Told()

    def api(self) -> dict[str, str]:
        return {}

    def agent(self, node: str) -> AgentClient:
        return self.told


def begun(files: Sequence[str]) -> tuple[AgentSession, Told]:
    ground = Ground()
    crew = AgentSession(ground)
    crew.dump((NODE,), tuple(files))
    return crew, ground.told


def test_rules_are_asked_for_once_when_they_are_looked_up() -> None:
    crew, told = begun(["ip-link.json"])
    files = crew.texts()[NODE]
    assert files["ip-link.json"] == "[]"
    assert "rules/tables.json" in files
    assert files["rules/tables.json"] == "{}"
    assert "rules/nft/ip/nat/chain/Y.json" not in files
    assert files.get("rules/nft/ip/nat/chain/Y.json") is None
    assert told.asked[1:] == [("rules/tables.json",), ("rules/nft/ip/nat/chain/Y.json",)]
    assert crew.texts()[NODE]["rules/tables.json"] == "{}", "it is among the run's facts"
    assert len(told.asked) == 3


def test_whole_rulesets_too_but_nothing_else() -> None:
    crew, told = begun(["ip-link.json"])
    files = crew.texts()[NODE]
    assert "nft-ruleset.json" in files
    assert "no-such.txt" not in files
    assert "ip-addr.json" not in files
    assert told.asked[1:] == [("nft-ruleset.json",)]
    assert "nft-ruleset.json" in ON_DEMAND


def test_several_are_one_question() -> None:
    crew, told = begun(["ip-link.json"])
    files = crew.texts()[NODE]
    wanted = ["rules/tables.json", "rules/nft/ip/nat/chain/X.json", "rules/ipset/sets.json"]
    assert set(files.get_many(wanted)) == set(wanted[:2])  # type: ignore[attr-defined]
    assert files.get_many(wanted[:1]) == {"rules/tables.json": "{}"}  # type: ignore[attr-defined]
    assert told.asked[1:] == [tuple(wanted)]


def test_what_is_expected_is_not_asked_for_again() -> None:
    ground = Ground()
    crew = AgentSession(ground)
    crew.expect(NODE, ["rules/tables.json"], ["ip-link.json"])
    crew.dump((NODE,), ("ip-link.json", "rules/tables.json", "sysctl.txt"))
    asked = [("rules/tables.json",), ("ip-link.json",), ("sysctl.txt",)]
    assert ground.told.asked == asked


@pytest.mark.parametrize("changes", [True, False])
def test_nobody_waits_for_what_is_always_told_the_same(
    monkeypatch: pytest.MonkeyPatch, changes: bool
) -> None:
    slept = list[float]()
    monkeypatch.setattr("kptrace.environment.local_node.time.sleep", slept.append)
    ground = Ground()
    monkeypatch.setattr(ground, "forget", lambda: changes, raising=False)
    assert LiveState(ground, ("a",)).refresh_after(2.0) is changes
    assert slept == [2.0] * changes

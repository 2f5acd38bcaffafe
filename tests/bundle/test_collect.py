"""Which files are asked of whom, and what becomes of those that do not come."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from kptrace.bundle import collect as gathering
from kptrace.bundle.collect import NFT, STATE, collect
from kptrace.model.errors import AgentError
from kptrace.plugins.registry import extra_files
from kptrace.protocol import Done, FileContent, ReadFiles, Reply, Request
from kptrace.rules.live.queries import TABLES
from kptrace.rules.load import load_ruleset

NAT = {"family": "ip", "name": "nat", "handle": 3, "use": 1, "flags": 0}
KUBE_PROXY = {"family": "ip", "name": "kube-proxy", "handle": 4, "use": 1, "flags": 0}
PREROUTING = {
    "family": "ip",
    "table": "nat",
    "name": "PREROUTING",
    "handle": 7,
    "type": "nat",
    "hook": {"hooknum": 0, "priority": -100},
    "policy": 1,
}
SAVE = "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n"


def index(*tables: Mapping[str, object]) -> str:
    hooked = [PREROUTING] if NAT in tables else []
    return json.dumps({"legacy": {}, "tables": tables, "base chains": hooked})


class Node:
    """An agent with files; ``dies`` as soon as it is asked for one of these."""

    def __init__(self, node: str, files: Mapping[str, str], dies: str = "") -> None:
        self.node, self._files, self._dies = node, files, dies
        self.log: list[Reply] = []
        self.asked: list[str] = []

    def send(self, request: Request) -> None:
        assert isinstance(request, ReadFiles)
        for file in request.files:
            self.asked.append(file)
            if file == self._dies:
                return
            told = (
                {"text": self._files[file]} if file in self._files else {"unavailable": "not here"}
            )
            self.log.append(FileContent(id=request.id, netns=request.netns, file=file, **told))
        self.log.append(Done(id=request.id))

    def wait(self, id: int, timeout: float) -> bool:
        if not any(isinstance(reply, Done) and reply.id == id for reply in self.log):
            raise AgentError(f"the agent on {self.node} is gone")
        return True

    def close(self) -> None:
        pass


class Ground:
    sparing = False

    def __init__(self, *agents: Node) -> None:
        self._agents = {agent.node: agent for agent in agents}

    def api(self) -> dict[str, str]:
        return {"services.json": "{}"}

    def begin(self, node: str) -> None:
        pass

    def agent(self, node: str) -> Node:
        if node not in self._agents:
            raise AgentError(f"no agent on {node}", "try again")
        return self._agents[node]


def taken(*agents: Node, nodes: tuple[str, ...] = ("a",)) -> gathering.CollectedState:
    return collect(Ground(*agents), nodes, lambda _: None)


def test_the_state_of_a_node_and_the_api() -> None:
    made = taken(Node("a", {TABLES: index(), **dict.fromkeys((*STATE, *extra_files()), "x")}))
    assert set(made.files) >= {"api/services.json", *(f"a/{name}" for name in STATE)}
    assert made.missing == ()


@pytest.mark.parametrize(
    ("tables", "save", "asked"),
    [
        ((), None, set()),
        ((NAT,), SAVE, {"iptables-nft-save.txt"}),
        ((NAT, KUBE_PROXY), SAVE, {"iptables-nft-save.txt", NFT}),
        ((KUBE_PROXY,), None, {NFT}),
        (
            (NAT,),
            "# Table `nat' is incompatible, use 'nft' tool.\n",
            {"iptables-nft-save.txt", NFT},
        ),
        ((NAT,), None, {"iptables-nft-save.txt", NFT}),
    ],
    ids=["none", "iptables", "both", "nftables", "mixed by hand", "no iptables-nft-save"],
)
def test_which_programs_tell_of_the_rules(
    tables: tuple[Mapping[str, object], ...], save: str | None, asked: set[str]
) -> None:
    saves = {} if save is None else {"iptables-nft-save.txt": save}
    node = Node("a", {TABLES: index(*tables), NFT: '{"nftables": []}', **saves})
    taken(node)
    assert {name for name in node.asked if "nft" in name} == asked


def test_an_outline_tells_in_which_order_tables_were_loaded() -> None:
    files = taken(Node("a", {TABLES: index(NAT), "iptables-nft-save.txt": SAVE})).files
    read = {
        name.removeprefix("a/"): text.decode() for name, text in files.items() if name[0] == "a"
    }
    (table,) = load_ruleset(read).tables()
    chain = load_ruleset(read).chain(table, "PREROUTING")
    assert chain is not None
    assert chain.age == (3, 7)


def test_what_was_not_told_is_named() -> None:
    made = taken(Node("a", {TABLES: index(), **dict.fromkeys(STATE[1:], "")}))
    assert [(one.node, one.name, one.unavailable) for one in made.needed] == [
        ("a", STATE[0], "not here")
    ]


def test_a_node_without_an_agent_takes_no_other_with_it() -> None:
    made = taken(Node("a", {TABLES: index()}), nodes=("a", "b"))
    assert "a/iptables-nft-save.txt" in made.files
    (absent,) = (one for one in made.missing if one.name == "agent")
    assert (absent.node, absent.unavailable, absent.hint) == ("b", "no agent on b", "try again")


def test_what_came_before_an_agent_died_is_kept() -> None:
    whole = {TABLES: index(), **dict.fromkeys(STATE, "x")}
    made = taken(Node("a", whole, dies=STATE[3]))
    assert f"a/{STATE[2]}" in made.files
    assert {one.name: one.unavailable for one in made.needed} == dict.fromkeys(
        STATE[3:], "the agent on a is gone"
    )

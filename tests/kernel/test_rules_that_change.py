"""Rules (and links) that somebody changes while they are read, or while a probe is on its way.

Whole rulesets are committed one after the other, as kube-proxy does. What is told must be one of
them, never a mixture, or it must say that it may be one.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from kptrace.agent import netns as namespace
from kptrace.agent.netlink.recvmmsg import MultiReceiver
from kptrace.agent.state import files as dump
from kptrace.agent.state.rule_queries import RuleReader
from kptrace.agent_client.thread_agent import ThreadAgent
from kptrace.diagnose.concurrent_changes import CHANGE
from kptrace.environment.local_node import LiveState, LocalNode
from kptrace.explain.explain import explain_from_state
from kptrace.lab.dataplane.kubeproxy import iptables
from kptrace.lab.dataplane.kubeproxy.service_port import ProxyNode
from kptrace.model import Endpoint, Explanation, Netns, Service, ServicePort
from kptrace.model.targets import parse_target
from kptrace.protocol import AgentClient, NetnsHandle
from kptrace.rules.live.queries import RuleQuery
from kptrace.trace import agent_session
from kptrace.trace.trace import report

pytestmark = pytest.mark.kernel

NAME = f"kptrace-changing-{os.getpid()}"
BULK = RuleQuery(kind="chain", backend="nft", family="ip", table="nat", name="BULK")
MANY = 600  # more than one part of a dump
NODE = ProxyNode(
    name="node-a",
    addresses=("172.30.0.11",),
    cluster_cidrs=("10.244.0.0/16",),
    service_cidrs=("10.96.0.0/12",),
)
SERVICE = Service(
    namespace="shop",
    name="web",
    type="ClusterIP",
    cluster_ips=("10.96.0.10",),
    ports=(ServicePort(name="", port=80, protocol="tcp", target_port="8080"),),
)


@pytest.fixture
def netns() -> Iterator[str]:
    path = namespace.create(NAME)
    try:
        yield path
    finally:
        namespace.delete(NAME)


def load(text: str) -> None:
    words = ("ip", "netns", "exec", NAME, "iptables-nft-restore")
    subprocess.run(words, input=text, text=True, check=True)


def bulk(word: str) -> str:
    rules = (f"-A BULK -m comment --comment {word}-{n} -j RETURN" for n in range(MANY))
    return "\n".join(["*nat", ":BULK - [0:0]", *rules, "COMMIT\n"])


@pytest.mark.parametrize("times", [1, 3, 1000])
def test_a_commit_between_two_parts_of_a_listing(
    netns: str, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    words, commits = itertools.cycle(("new", "old")), itertools.count(1)
    receive = MultiReceiver.receive

    def disturbed(self: MultiReceiver, sock: socket.socket) -> Iterator[bytes]:
        yield from receive(self, sock)
        if next(commits) <= times:
            load(bulk(next(words)))

    load(bulk("old"))
    monkeypatch.setattr(MultiReceiver, "receive", disturbed)
    with closing(RuleReader(netns)) as rulesets:
        (text,) = rulesets.read([BULK.part_query("all").file]).values()
    if times == 1000:
        assert "the rules change faster than they can be read" in str(text)
        return
    assert isinstance(text, str)
    assert [text.count(f"{word}-".encode().hex()) for word in ("old", "new")] == [0, MANY]


def test_links_that_come_and_go_while_the_others_are_listed(netns: str) -> None:
    def ip(*lines: str) -> None:
        words = ("ip", "-n", NAME, "-batch", "-")
        subprocess.run(words, input="\n".join(lines), text=True, check=True)

    def come_and_go() -> None:
        while not over.is_set():
            ip(*("link add x type veth peer name y", "link del x") * 20)

    lasting = [f"{end}{number}" for number in range(200) for end in "vw"]
    ip(*(f"link add v{number} type veth peer name w{number}" for number in range(200)))
    over, door = threading.Event(), NetnsHandle(netns=Netns(node="n"), ns_path=netns)
    busy = threading.Thread(target=come_and_go)
    busy.start()
    try:
        told = [fact for _ in range(20) for fact in dump.facts(1, door, ["ip-link.json"])]
    finally:
        over.set()
        busy.join()
    assert all("faster than" in fact.unavailable for fact in told if fact.unavailable)
    lists = [[link["ifname"] for link in json.loads(one.text)] for one in told if one.text]
    assert lists
    for names in lists:
        assert sorted(set(names) - {"lo", "x", "y"}) == sorted(lasting)
        assert len(set(names)) == len(names)


# --- explain --------------------------------------------------------------------------------------


def proxied(net: int) -> str:
    """One and the same Service, with all its endpoints in another network."""
    behind = [Endpoint(address=f"10.244.{net}.{n}", port=8080, node="node-a") for n in range(2, 5)]
    return iptables.render([SERVICE], {SERVICE.key: behind}, NODE, "ip")


class ThatNode(LocalNode):
    def agent(self, node: str) -> AgentClient:
        door = NetnsHandle(netns=Netns(node=node), ns_path=f"/run/netns/{NAME}")
        return self._open.enter_context(ThreadAgent(node, (door,)))


class Disturbed:
    """A live node's state; ``disturb`` is called before a part of the rules is read."""

    def __init__(self, live: LiveState, disturb: Callable[[], None]) -> None:
        self._live, self._disturb = live, disturb
        self.nodes, self.api = live.nodes, live.api
        self.rules_changed_while_reading = live.rules_changed_while_reading
        self.refresh_after = live.refresh_after

    def node(self, name: str) -> Mapping[str, str]:
        return Files(self._live.node(name), self._disturb)


class Files(Mapping[str, str]):
    def __init__(self, files: Mapping[str, str], disturb: Callable[[], None]) -> None:
        self._files, self._disturb = files, disturb

    def get_many(self, names: Sequence[str]) -> Mapping[str, str]:
        self._disturb()
        return {name: self._files[name] for name in names if name in self._files}

    def __getitem__(self, name: str) -> str:
        return self._files[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def explained(disturb: Callable[[], None]) -> Explanation:
    with ThatNode() as here:
        state = Disturbed(LiveState(here, (here.name,)), disturb)
        return explain_from_state(parse_target("svc/web", "shop"), None, here.name, state)


def backends(made: Explanation) -> set[str]:
    entries = made.ports[0].entries
    return {backend.address for entry in entries for backend in entry.backends}


def after(count: int, work: Callable[[], None]) -> Callable[[], None]:
    """``work`` when it is called the ``count``-th time."""
    calls = iter(range(1, 1000))
    return lambda: work() if next(calls) == count else None


@pytest.mark.parametrize("count", range(1, 12))
def test_who_looks_again_sees_the_newer_rules_alone(netns: str, count: int) -> None:
    load(proxied(1))
    made = explained(after(count, partial(load, proxied(2))))
    assert backends(made) in ({f"10.244.{net}.{n}" for n in range(2, 5)} for net in (1, 2))
    assert "ruleset-unstable" not in {one.cause for one in made.findings}


def test_rules_that_never_rest_are_said_to_be(netns: str) -> None:
    load(proxied(1))
    turns = iter(range(1000))
    made = explained(lambda: load(proxied(1 + next(turns) % 2)))
    (told,) = (one for one in made.findings if one.cause == "ruleset-unstable")
    assert told.severity == "warning"
    assert "mix older and newer" in told.summary


# --- trace ----------------------------------------------------------------------------------------


def changing(netns: str, *words: str) -> Callable[[str], None]:
    """A rule is written as soon as the rules have been read, before anything is sent."""

    def said(text: str) -> None:
        if text.startswith("sending"):
            subprocess.run(["ip", "netns", "exec", netns, *words], check=True)

    return said


@pytest.mark.parametrize(
    ("fixture", "program"), [("vxlan_bench", "iptables-nft"), ("legacy_bench", "iptables-legacy")]
)
def test_a_change_while_a_trace_runs_is_told(
    request: pytest.FixtureRequest, fixture: str, program: str
) -> None:
    standing: Any = request.getfixturevalue(fixture)
    netns = standing.lab.plan.node("node-a").netns
    with standing.broken("tunnel-port-blocked"):
        for word, changes in (("-A", True), ("-S", False), ("-D", True)):
            rule = () if word == "-S" else ("-s", "192.0.2.1", "-j", "ACCEPT")
            say = changing(netns, program, word, "FORWARD", *rule)
            made = report(standing.run("svc/remote", "pod/client", say=say))
            assert made.outcome == "dropped"
            told = [
                (one.node, one.unavailable) for one in made.evidence.sources if one.name == CHANGE
            ]
            assert [node for node, _ in told] == ["node-a"] * changes
            words = "the rules of node-a changed while this ran (chain FORWARD of ip filter)"
            assert all(why.startswith(words) for _, why in told)


def test_nothing_hangs_on_a_change_where_the_packet_came_as_foreseen(vxlan_bench: Any) -> None:
    netns = vxlan_bench.lab.plan.node("node-a").netns
    for word in ("-A", "-D"):
        say = changing(netns, "iptables-nft", word, "FORWARD", "-s", "192.0.2.1", "-j", "ACCEPT")
        made = report(vxlan_bench.run("svc/remote", "pod/client", say=say))
        assert made.outcome == "delivered"
        assert CHANGE not in {one.name for one in made.evidence.sources}


@pytest.mark.parametrize("target", ["svc/remote", "pod/remote-1"])
def test_where_only_we_wrote_a_table_nothing_is_read_twice(
    vxlan_bench: Any, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    def compared(*_: object) -> Iterator[RuleQuery]:
        raise AssertionError("the generation tells that nobody else wrote anything")

    monkeypatch.setattr(agent_session, "changed_queries", compared)
    with vxlan_bench.broken("tunnel-port-blocked"):
        assert report(vxlan_bench.run(target, "pod/client")).outcome == "dropped"


@pytest.mark.parametrize("rolled_out", [True, False])
def test_endpoints_that_changed_while_a_probe_was_lost(
    vxlan_bench: Any, monkeypatch: pytest.MonkeyPatch, rolled_out: bool
) -> None:
    ground, forgotten = vxlan_bench._ground, list[bool]()
    api = ground.api

    def told() -> dict[str, str]:
        new = '"10.244.2.77"' if forgotten and rolled_out else '"10.244.2.21"'
        return {name: text.replace('"10.244.2.21"', new) for name, text in api().items()}

    with vxlan_bench.broken("tunnel-port-blocked"):
        monkeypatch.setattr(ground, "api", told)
        monkeypatch.setattr(ground, "forget", lambda: forgotten.append(True) or True)
        made = report(vxlan_bench.run("svc/remote", "pod/client"))
        monkeypatch.undo()
    assert made.outcome == "dropped"
    why = [one.unavailable for one in made.evidence.sources if one.name == CHANGE]
    changed = "the endpoints of shop/remote changed while this ran "
    changed += "(10.244.2.21:8080 went, 10.244.2.77:8080 came)"
    assert why == [changed] * rolled_out

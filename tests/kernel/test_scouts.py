"""On a ground where an agent costs something: how few are asked for, and whether they suffice.

Six nodes, backends on each. Who was asked is what the ground counted; where a connection went is
what conntrack of the near node says after it, and the backend itself, which the tracer cannot
influence. The pods beyond those of every lab are answered for by this test.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kptrace.agent.netns import run_in_netns
from kptrace.environment.lab import LabEnvironment
from kptrace.lab import cluster, host_commands, state, workloads
from kptrace.lab.address_plan import plan
from kptrace.lab.faults import inject
from kptrace.lab.state import Lab
from kptrace.model import ConntrackEntry, Flow, Netns, Outcome, ProbeResult, Trace, TraceRequest
from kptrace.model.targets import parse_target
from kptrace.protocol import AgentClient, PreflightResult, Reply, Request, SendPreflight
from kptrace.protocol.recording import Recording, pack, unpack
from kptrace.trace import agent_session, trace

pytestmark = pytest.mark.kernel

NODES = 6
MODES = (("iptables", "vxlan"), ("iptables-legacy", "host-gw"), ("nftables", "vxlan"))
HTTP, ECHO = workloads.HTTP, workloads.ECHO


def _pods(app: str, host: int, listener: workloads.Listener) -> Iterator[workloads.PodSpec]:
    """Two on each of the nodes that have no backend in other labs."""
    for node in range(2, NODES):
        for n in range(2):
            name = f"{app}-{node}{n}"
            yield workloads.PodSpec(
                name=name, app=app, node=node, host=host + n, listeners=(listener,)
            )


USUAL_PODS, USUAL_SERVICES = workloads.PODS, workloads.SERVICES
PODS = (*_pods("web", 60, HTTP), *_pods("echo", 70, ECHO), *_pods("far", 80, HTTP))
FAR = workloads.ServiceSpec(
    name="far",
    app="far",
    host=50,
    ports=(workloads.PortSpec(port=80, target="http"),),
    what="far away",
)


class Answerers:
    """The servers of our own pods: each says its pod's name."""

    def __init__(self, lab: Lab) -> None:
        self._selector = selectors.DefaultSelector()
        names = {spec.name for spec in PODS}
        for pod in lab.plan.pods:
            for listener in pod.listeners if pod.name in names else ():
                netns = f"/run/netns/{pod.netns}"
                sock = run_in_netns(netns, partial(_listening, listener.protocol, listener.port))
                self._selector.register(sock, selectors.EVENT_READ, pod.name.encode())
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, b"")
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                sock: Any = key.fileobj
                if not key.data:
                    return
                with suppress(OSError):
                    if sock.type == socket.SOCK_DGRAM:
                        _, peer = sock.recvfrom(2000)
                        sock.sendto(key.data, peer)
                    else:
                        peer, _ = sock.accept()
                        with peer:
                            peer.sendall(key.data)

    def close(self) -> None:
        self._wake.send(b"x")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            sock: Any = key.fileobj
            sock.close()
        self._wake.close()


def _listening(protocol: str, port: int) -> socket.socket:
    if protocol == "udp":
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.bind(("::", port))
        return sock
    return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)


class Sparing(LabEnvironment):
    """Counts the agents that are asked for. ``blunt``: the kernel is told to have no egress hook"""

    sparing = True

    def __init__(self, lab: Lab, blunt: bool = False) -> None:
        super().__init__(lab)
        self.asked: list[str] = []
        self._blunt = blunt

    def agent(self, node: str) -> AgentClient:
        self.asked.append(node)
        agent = super().agent(node)
        return Blunt(agent) if self._blunt else agent


class Blunt:
    """An agent on a kernel before 5.16."""

    def __init__(self, agent: AgentClient) -> None:
        self.node, self._agent = agent.node, agent
        self.close = agent.close
        self._said: list[Reply] = []
        self._answered: set[int] = set()

    @property
    def log(self) -> list[Reply]:
        return [*self._agent.log, *self._said]

    def send(self, request: Request) -> None:
        if not isinstance(request, SendPreflight) or not request.block_egress:
            self._agent.send(request)
            return
        why = os.strerror(95)
        place = Netns(node=self.node)
        for one in request.probes:
            word = PreflightResult(
                id=request.id, netns=place, probe_id=one.probe_id, flow=one.flow, error=why
            )
            self._said.append(word)
        self._answered.add(request.id)

    def wait(self, id: int, timeout: float) -> bool:
        return id in self._answered or self._agent.wait(id, timeout)


@pytest.fixture(scope="module", params=MODES, ids="-".join)
def wide(request: pytest.FixtureRequest) -> Iterator[Lab]:
    name = f"scout-{os.getpid()}"
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(workloads, "PODS", (*USUAL_PODS, *PODS))
        patch.setattr(workloads, "SERVICES", (*USUAL_SERVICES, FAR))
        stack.callback(lambda: cluster.down(name) if name in state.names() else None)
        lab = cluster.up(plan(name, NODES, *request.param))
        answerers = Answerers(lab)
        stack.callback(answerers.close)
        yield lab


def run(
    lab: Lab, target: str, source: str, blunt: bool = False, **asked: Any
) -> tuple[Recording, list]:
    question = TraceRequest(
        target=parse_target(target, "shop"),
        source=source,
        namespace="shop",
        **{"timeout": 2.0, **asked},
    )
    with Sparing(lab, blunt) as ground:
        seed = int.from_bytes(os.urandom(4))
        return trace.run(question, ground, seed, lambda _: None), ground.asked


def preflight_result(run: Recording) -> dict[Flow, str]:
    """Where the preflight probes were sent on to, by their 5-tuples; the last word counts."""
    words = (reply for reply in run.replies if isinstance(reply, PreflightResult))
    return {word.flow: word.entry.reply.src for word in words if word.entry}


def went(run: Recording) -> dict[Flow, str]:
    """Where the probes went, as the near node's conntrack says."""
    near = run.source.netns.node
    entries = [r for r in run.replies if isinstance(r, ConntrackEntry) and r.netns.node == near]
    sent = {reply.flow for reply in run.replies if isinstance(reply, ProbeResult)}
    return {entry.original: entry.reply.src for entry in entries if entry.original in sent}


def whole(made: Trace) -> bool:
    """Nothing that was predicted went unseen, and a rule is told for each translation."""
    agreement = made.evidence.prediction_match
    assert agreement is not None
    told = all(hop.observed for hop in made.hops if hop.action in ("dnat", "snat"))
    return told and not agreement.diverged_at


WAYS = (
    ("svc/web", "pod/client"),
    ("svc/echo", "pod/client"),
    ("svc/web6", "pod/client-c"),
    ("svc/web", "node/node-b"),
    ("svc/nodeport", "pod/client-d"),
)


@pytest.mark.parametrize("blunt", [False, True])
def test_it_is_known_how_much_was_written_by_ourselves(
    wide: Lab, monkeypatch: pytest.MonkeyPatch, blunt: bool
) -> None:
    """Else all rules would be read twice, to see whether they changed while the trace ran."""
    compared = list[Mapping[str, str]]()
    monkeypatch.setattr(
        agent_session, "changed_queries", lambda before, _: compared.append(before) or ()
    )
    monkeypatch.setattr(trace, "_is_unremarkable", lambda _: False)
    told, _ = run(wide, "svc/far" if blunt else "svc/web", "pod/client", blunt=blunt)
    assert trace.report(told).outcome is Outcome.DELIVERED
    counted = [before for before in compared if not any("/legacy/" in name for name in before)]
    assert counted == []


@pytest.mark.parametrize(("target", "source"), WAYS)
def test_two_agents_do(wide: Lab, target: str, source: str) -> None:
    told, asked = run(wide, target, source)
    made = trace.report(told)
    assert made.outcome is Outcome.DELIVERED
    assert made.findings == ()
    backend = next(pod for pod in wide.plan.pods if set(went(told).values()) & set(pod.addresses))
    near = told.source.netns.node
    assert asked == ([near, backend.node] if backend.node != near else [near])
    assert preflight_result(told) == went(told)
    last = next(hop for hop in made.hops if hop.action == "delivered")
    assert (last.node, last.netns) == (backend.node, backend.key)
    assert whole(made)
    assert [layer for layer in made.evidence.sources if layer.unavailable or layer.lost] == []
    assert made.prediction.missing == ()
    assert trace.report(unpack(pack(told), "saved")) == made


@pytest.mark.parametrize("target", ["svc/web", "svc/echo"])
def test_thirty_of_thirty_go_where_their_scouts_went(wide: Lab, target: str) -> None:
    told, asked = run(wide, target, "pod/client", count=30)
    assert len(preflight_result(told)) == 30
    assert went(told) == preflight_result(told)
    assert trace.report(told).outcome is Outcome.DELIVERED
    assert len(asked) == len(set(asked))


def test_on_a_kernel_without_the_hook_a_scout_dies_on_the_other_node(wide: Lab) -> None:
    told, asked = run(wide, "svc/far", "pod/client", blunt=True)
    made = trace.report(told)
    assert made.outcome is Outcome.DELIVERED
    assert len(asked) == 2
    assert preflight_result(told) == went(told) != {}
    assert whole(made)


def test_a_backend_at_hand_would_hear_of_such_a_scout(wide: Lab) -> None:
    told, asked = run(wide, "svc/web", "pod/client", blunt=True)
    assert preflight_result(told) == {}
    assert sorted(asked) == [node.name for node in wide.plan.nodes]
    [why] = [layer.unavailable for layer in told.unavailable]
    assert "could not be sent" in why


def test_another_node_chooses(wide: Lab) -> None:
    told, asked = run(wide, "svc/nodeport", "pod/client", via="nodePort", node="node-e")
    assert trace.report(told).outcome is Outcome.DELIVERED
    assert len(asked) == NODES
    assert [layer.unavailable for layer in told.unavailable] == ["it is chosen on node-e"]


def test_what_the_node_keeps_for_itself_costs_no_fleet(wide: Lab) -> None:
    fault = "forward-policy-drop"
    inject.inject(wide.name, inject.find(fault))
    try:
        told, asked = run(wide, "svc/far", "pod/client")
    finally:
        inject.heal(wide.name, fault)
    made = trace.report(told)
    assert made.outcome is Outcome.DROPPED
    assert len(asked) <= 2


def test_nobody_hears_of_a_scout_and_nothing_of_it_stays(wide: Lab) -> None:
    """Of a probe's connection each backend sees one SYN: the counters of all pods tell so."""
    before = _heard(wide)
    told, _ = run(wide, "svc/far", "pod/client", count=10)
    assert len(preflight_result(told)) == 10
    assert _heard(wide) - before == 10
    for node in wide.plan.nodes:
        assert "kptrace" not in host_commands.run(("nft", "list", "tables"), netns=node.netns)


def _heard(lab: Lab) -> int:
    """Connections that were opened to the pods of ``far`` (RFC 4022: tcpPassiveOpens)."""

    def opened() -> int:
        lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
        names, values = (line.split() for line in lines if line.startswith("Tcp:"))
        return int(values[names.index("PassiveOpens")])

    pods = [pod for pod in lab.plan.pods if pod.app == "far"]
    return sum(run_in_netns(f"/run/netns/{pod.netns}", opened) for pod in pods)


@pytest.mark.row(proxy="cilium", network="cilium-vxlan")
def test_programs_choose_before_a_scout_could_tell() -> None:
    """Cilium translates at connect(), so the node's conntrack has no word of the Service."""
    name = f"scoutc-{os.getpid()}"
    third = tuple(spec for spec in PODS if spec.node == 2 and spec.app == "web")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(workloads, "PODS", (*USUAL_PODS, *third))
        patch.setattr(workloads, "SERVICES", USUAL_SERVICES)
        stack.callback(lambda: cluster.down(name) if name in state.names() else None)
        lab = cluster.up(plan(name, 3, "cilium", "cilium-vxlan"))
        answerers = Answerers(lab)
        stack.callback(answerers.close)
        told, asked = run(lab, "svc/web", "pod/client")
    assert trace.report(told).outcome is Outcome.DELIVERED
    assert [layer.unavailable for layer in told.unavailable] == [
        "BPF programs translate there, not rules"
    ]
    assert asked == ["node-a", "node-b", "node-c"]

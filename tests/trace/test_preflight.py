"""What preflight probes may be sent for and what their words mean, without a kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest

from kptrace.kube.objects.cluster_state import ClusterState
from kptrace.model import (
    Branch,
    ConntrackEntry,
    Endpoint,
    Flow,
    Netns,
    Outcome,
    Pod,
    Prediction,
    Probe,
    Resolution,
    Source,
)
from kptrace.packet.probe_id import blocks, preflight_id_of, probe_ids
from kptrace.protocol import AgentClient, PreflightResult, Reply, Request, SendPreflight
from kptrace.rules.load import load_ruleset
from kptrace.simulate.bpf.programs import BpfDatapath
from kptrace.simulate.snapshot.network import InterfaceAddress, Link
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace.trace.agent_session import AgentSession
from kptrace.trace.prediction import backend_netns
from kptrace.trace.preflight import PreflightOutcome, PreflightProbes

NODE = Netns(node="a")
SOURCE = Source(kind="pod", netns=Netns(node="a", pod="shop/client"))
FLOW = Flow(protocol="tcp", src="10.244.1.10", dst="10.96.1.1", dport=80)
BACKENDS = ("10.244.2.12", "10.244.3.13")
PROBES = tuple(Probe(probe_id=cookie, flow=FLOW) for cookie in probe_ids(7 << 20, 2))
PODS = tuple(
    Pod(namespace="shop", name=f"web-{n}", node=f"node-{n}", ips=(address,))
    for n, address in enumerate(BACKENDS)
)
NEAR = Snapshot(
    netns=NODE,
    links=(Link(index=2, name="cni0", kind="bridge"), Link(index=3, name="eth0", kind="veth")),
    addresses=(InterfaceAddress(interface="eth0", address="172.30.0.11", length=24),),
    ruleset=load_ruleset({}),
)
Answer = Callable[[SendPreflight, Probe], PreflightResult]


class Near:
    """The near node's agent: of each preflight probe it says what ``answer`` gives."""

    node = "a"

    def __init__(self, answer: Answer) -> None:
        self.log: list[Reply] = []
        self.asked: list[SendPreflight] = []
        self._answer = answer

    def send(self, request: Request) -> None:
        if isinstance(request, SendPreflight):
            self.asked.append(request)
            self.log += [self._answer(request, probe) for probe in request.probes]

    def wait(self, id: int, timeout: float) -> bool:
        return True

    def close(self) -> None: ...


class Ground:
    sparing = True

    def __init__(self, agent: AgentClient) -> None:
        self._agent = agent

    def api(self) -> dict[str, str]:
        return {}

    def begin(self, node: str) -> None: ...

    def agent(self, node: str) -> AgentClient:
        return self._agent


def prediction(*backends: str) -> Prediction:
    ends = (Endpoint(address=address, port=8080) for address in backends)
    return Prediction(
        branches=tuple(
            Branch(weight=0.5, steps=(), outcome=Outcome.DELIVERED, backend=end) for end in ends
        )
    )


def preflight_probes(answer: Answer, near: Snapshot = NEAR) -> tuple[PreflightProbes, Near]:
    agent = Near(answer)
    crew = AgentSession(Ground(agent))
    crew.require_agent("a")
    return PreflightProbes(crew, SOURCE, near, prediction(*BACKENDS), raw_trace=False), agent


def recorded(request: SendPreflight, probe: Probe, backend: str = BACKENDS[1]) -> PreflightResult:
    port = 40000 + probe.probe_id % 1000
    flow = msgspec.structs.replace(probe.flow, sport=port)
    back = Flow(protocol="tcp", src=backend, sport=8080, dst=flow.src, dport=port)
    entry = ConntrackEntry(netns=NODE, original=flow, reply=back)
    return PreflightResult(
        id=request.id, netns=NODE, probe_id=probe.probe_id, flow=flow, entry=entry
    )


def unrecorded(request: SendPreflight, probe: Probe) -> PreflightResult:
    return PreflightResult(id=request.id, netns=NODE, probe_id=probe.probe_id, flow=probe.flow)


def unsent(request: SendPreflight, probe: Probe) -> PreflightResult:
    return msgspec.structs.replace(unrecorded(request, probe), error="no such hook")


def send(sent: PreflightProbes, documents: ClusterState | None = None) -> PreflightOutcome:
    return sent.send(PROBES, documents or ClusterState(pods=PODS))


def test_a_preflight_id_is_no_probe_id() -> None:
    numbers = probe_ids(0x1234567, 40)
    [block] = blocks(numbers)
    for cookie in numbers:
        assert preflight_id_of(preflight_id_of(cookie)) == cookie
        assert preflight_id_of(cookie) & block.mask != block.base


def test_the_probes_follow_from_the_preflight_ports() -> None:
    sent, agent = preflight_probes(recorded)
    found = send(sent)
    assert (found.backends, found.why, found.lost) == ((BACKENDS[1],), "", False)
    [request] = agent.asked
    assert (request.block_egress, request.bridges) == (True, ("cni0",))
    assert [p.probe_id for p in request.probes] == [preflight_id_of(p.probe_id) for p in PROBES]
    assert [p.probe_id for p in found.probes] == [p.probe_id for p in PROBES]
    by_cookie = {
        word.probe_id: word.flow for word in agent.log if isinstance(word, PreflightResult)
    }
    assert [p.flow for p in found.probes] == [
        by_cookie[preflight_id_of(p.probe_id)] for p in PROBES
    ]


def test_without_the_hook_they_end_at_the_next_router() -> None:
    def answer(request: SendPreflight, probe: Probe) -> PreflightResult:
        return unsent(request, probe) if request.block_egress else recorded(request, probe)

    sent, agent = preflight_probes(answer)
    assert send(sent).backends == (BACKENDS[1],)
    held, mortal = agent.asked
    assert {probe.ttl for probe in held.probes} == {0}
    assert {probe.ttl for probe in mortal.probes} == {2}


@pytest.mark.parametrize(
    "pods",
    [
        (PODS[0], msgspec.structs.replace(PODS[1], node="a")),
        (PODS[0], msgspec.structs.replace(PODS[1], host_network=True)),
        PODS[:1],
    ],
    ids=["here", "on its host's network", "unknown"],
)
def test_nobody_is_to_hear_of_them(pods: Sequence[Pod]) -> None:
    sent, agent = preflight_probes(unsent)
    found = send(sent, ClusterState(pods=tuple(pods)))
    assert found == PreflightOutcome(
        probes=PROBES, why="a preflight probe could not be sent: no such hook"
    )
    assert [request.block_egress for request in agent.asked] == [True]


def test_what_is_not_recorded_was_not_let_out() -> None:
    found = send(preflight_probes(unrecorded)[0])
    assert (found.probes, found.lost) == (PROBES, True)


def test_some_that_were_not_let_out_leave_the_backends_open() -> None:
    def answer(request: SendPreflight, probe: Probe) -> PreflightResult:
        first = probe.probe_id == preflight_id_of(PROBES[0].probe_id)
        return recorded(request, probe) if first else unrecorded(request, probe)

    found = send(preflight_probes(answer)[0])
    assert found.why
    assert found.probes[0].flow.sport
    assert found.probes[1] == PROBES[1]


def test_where_none_may_be_sent() -> None:
    programs = msgspec.structs.replace(NEAR, programs=BpfDatapath(owner="x"))
    held = msgspec.structs.replace(
        NEAR, addresses=(InterfaceAddress(interface="eth0", address=BACKENDS[0], length=24),)
    )
    assert preflight_probes(recorded)[0].why_not_applicable() == ""
    assert "BPF" in preflight_probes(recorded, programs)[0].why_not_applicable()
    assert "own address" in preflight_probes(recorded, held)[0].why_not_applicable()


def test_a_known_backend_leaves_two_places() -> None:
    ends = tuple(
        Endpoint(address=pod.ips[0], port=8080, node=pod.node, pod=pod.key) for pod in PODS
    )
    resolution = Resolution(address=FLOW.dst, port=80, protocol="tcp", endpoints=ends)
    documents = ClusterState(pods=PODS)
    everywhere = backend_netns(SOURCE, resolution, documents, BACKENDS)
    assert {place.node for place in everywhere} == {"node-0", "node-1"}
    there = backend_netns(SOURCE, resolution, documents, BACKENDS[1:], known=True)
    assert there == (Netns(node="node-1"), Netns(node="node-1", pod="shop/web-1"))

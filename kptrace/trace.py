"""The story: resolve, snapshot, predict, probe, judge.

``run`` has the agents do it and keeps every word they say; ``report`` makes of these words, and of
nothing else, what the user reads. So ``report(unpack(saved))`` is the report of any earlier run.
Neither does I/O: the ground (a lab, a cluster, a node) opens agents, and agents do the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Protocol, TypeVar

import msgspec

from kptrace.errors import AgentFailed, KptraceError
from kptrace.judge.case import cases
from kptrace.judge.verdict import judge
from kptrace.kube import dns
from kptrace.kube.documents import Documents, read_documents
from kptrace.kube.resolution import choose_source, resolve
from kptrace.model import (
    ConntrackEntry,
    DnsAnswer,
    Drop,
    Flow,
    Layer,
    Packet,
    Place,
    Prediction,
    Probe,
    Question,
    Resolution,
    Returned,
    Source,
    Trace,
)
from kptrace.protocol import (
    Agent,
    Answer,
    Ask,
    Dump,
    Inject,
    Lookup,
    Reply,
    Request,
    Stop,
    Watch,
)
from kptrace.run import Run, facts_of
from kptrace.walk.path import predict
from kptrace.walk.snapshot import Snapshot, read_snapshot
from kptrace.walk.world import World
from kptrace.wire.cookie import cookies, payload

FILES = (
    "ip-link.json",
    "ip-addr.json",
    "ip-route.json",
    "ip6-route.json",
    "ip-rule.json",
    "ip6-rule.json",
    "ip-neigh.json",
    "bridge-fdb.json",
    "sysctl.txt",
    "iptables-legacy-save.txt",
    "iptables-nft-save.txt",
    "ip6tables-legacy-save.txt",
    "ip6tables-nft-save.txt",
    "nft-ruleset.json",
    "ipset-save.txt",
    "ipvsadm-Sn.txt",
)
RESOLV_CONF = "resolv.conf"

# More nodes than this are not looked at for one trace; what is beyond is reported as unseen.
MOST_NODES = 8
MOST_BACKEND_PODS = 16

DUMP_SECONDS = 30.0
ARM_SECONDS = 15.0
DRAIN_SECONDS = 10.0
# After the kernel said that it dropped the probe, the sender may still hear of it (an ICMP error).
GRACE_SECONDS = 0.3
SLICE_SECONDS = 0.05


class Ground(Protocol):
    """Where a run takes place: what the API says there, and an agent on each node."""

    def api(self) -> Mapping[str, str]:
        """The API documents by file name, as in a bundle's ``api`` folder."""

    def agent(self, node: str) -> Agent:
        """The agent on a node, with its places entered. Raises CannotLook."""


Say = Callable[[str], None]


def run(question: Question, ground: Ground, seed: int, say: Say) -> Run:
    """Trace once. ``seed``: 32 random bits, the first cookie; ``say``: progress, for stderr."""
    api = dict(ground.api())
    documents = read_documents(api)
    resolution = resolve(question, documents)
    source = choose_source(question, documents, (e.pod for e in resolution.endpoints))
    crew = Crew(ground)
    say(f"looking at {source.place.node}")
    crew.must_have(source.place.node)
    near = _unique((Place(node=source.place.node), source.place))
    crew.dump(near, (*FILES, RESOLV_CONF))
    resolution = _with_dns(question, source, resolution, crew, seed)
    probes: tuple[Probe, ...] = ()
    if resolution.address:
        far = _far_places(source, resolution, documents, crew)
        if far:
            say("looking at " + ", ".join(sorted({place.node for place in far})))
        crew.dump(far, FILES)
        probes = _probes(_flow(source, resolution, documents), seed, question.count)
        say("sending " + ("one probe" if question.count == 1 else f"{question.count} probes"))
        _prove(crew, source, resolution, (*near, *far), probes, question.timeout)
    return Run(
        question=question,
        source=source,
        resolution=resolution,
        api=api,
        probes=probes,
        replies=crew.words(),
        absent=tuple(crew.absent),
    )


def report(run: Run) -> Trace:
    """What the run shows. Pure: the same run gives the same report."""
    documents = read_documents(run.api)
    snapshots = _snapshots(facts_of(run.replies))
    prediction = _predict(run.source, run.resolution, documents, snapshots)
    return judge(run, cases(run, documents, snapshots, prediction))


# --- the agents of one run ----------------------------------------------------------------------


class Crew:
    """The agents that a run works with; it numbers their requests and waits for them together.

    absent: nodes without an agent, and why
    """

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._agents: dict[str, Agent] = {}
        self._last_id = 1000
        self.absent: list[Layer] = []

    def must_have(self, node: str) -> Agent:
        if node not in self._agents:
            self._agents[node] = self._ground.agent(node)
        return self._agents[node]

    def may_have(self, node: str) -> Agent | None:
        """The node's agent, or none; then ``absent`` says why."""
        try:
            return self.must_have(node)
        except KptraceError as error:
            if all(layer.node != node for layer in self.absent):
                self.absent.append(
                    Layer(name="agent", node=node, missing=error.message, remedy=error.hint)
                )
            return None

    def send(self, node: str, request: Callable[..., Request]) -> tuple[Agent, int]:
        """``request``: all of it but the id, which is given here."""
        self._last_id += 1
        agent = self._agents[node]
        agent.send(request(id=self._last_id))
        return agent, self._last_id

    def dump(self, places: Iterable[Place], files: tuple[str, ...]) -> None:
        sent = [
            self.send(place.node, partial(Dump, place=place, files=files))
            for place in places
            if self.may_have(place.node)
        ]
        wait_all(sent, DUMP_SECONDS, "dump")

    def words(self) -> tuple[Reply, ...]:
        return tuple(reply for agent in self._agents.values() for reply in agent.log)

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(self._agents)


def wait_all(sent: Iterable[tuple[Agent, int]], seconds: float, what: str) -> None:
    for agent, id in sent:
        if not agent.wait(id, seconds):
            raise AgentFailed(
                f"the agent on {agent.node} did not finish its {what} in {seconds:g} s",
                "is the node overloaded? try again, or look at it by hand",
            )


# --- DNS ----------------------------------------------------------------------------------------


def _with_dns(
    question: Question, source: Source, resolution: Resolution, crew: Crew, seed: int
) -> Resolution:
    """The resolution with what DNS said, and with the address where only DNS knows it.

    Asked as the source's resolver would ask: each search name in turn until one has an answer.
    """
    conf = facts_of(crew.words()).get(source.place, {}).get(RESOLV_CONF, "")
    resolver = dns.parse_resolv_conf(conf)
    name = _name_to_ask(question, source, resolution)
    if not name or not resolver.servers:
        return resolution
    kind = "AAAA" if question.family == 6 or ":" in resolution.address else "A"
    asked: list[DnsAnswer] = []
    for candidate in dns.questions(name, resolver):
        asked.append(_ask(crew, source.place, resolver, candidate, kind, seed))
        if asked[-1].records or asked[-1].status not in ("NXDOMAIN", "NOERROR"):
            break
    found = [text for type, text in asked[-1].records if type == kind]
    return msgspec.structs.replace(
        resolution,
        dns=tuple(asked),
        search=resolver.search,
        ndots=resolver.ndots,
        address=resolution.address or (found[0] if found else ""),
    )


def _name_to_ask(question: Question, source: Source, resolution: Resolution) -> str:
    """What a program in the source would look up; empty: nothing, the target is an address.

    A node's resolver is not the cluster's, so from a node a Service's name is not asked.
    """
    service = resolution.service
    if question.target.kind == "name":
        return question.target.name
    if question.target.kind != "service" or service is None:
        return ""
    if source.kind != "pod" and not service.external_name:
        return ""
    if source.place.pod.startswith(f"{service.namespace}/"):
        return service.name
    return f"{service.name}.{service.namespace}"


# A resolver asks a silent server again (resolv.conf(5), attempts), and over TCP if UDP was cut.
ASK_SECONDS = 1.0
ATTEMPTS = ("udp", "udp", "tcp")


def _ask(
    crew: Crew, place: Place, resolver: dns.Resolver, name: str, kind: str, seed: int
) -> DnsAnswer:
    """One question as a resolver puts it: to the servers in turn while they are silent."""
    query = dns.query(name, kind, seed & 0xFFFF)
    answers: list[DnsAnswer] = []
    cut = False
    for server in resolver.servers:
        for transport in ATTEMPTS:
            if transport == "tcp" and not cut:
                break
            ask = partial(
                Ask,
                place=place,
                server=server,
                query=query,
                transport=transport,
                timeout=ASK_SECONDS,
            )
            agent, id = crew.send(place.node, ask)
            wait_all([(agent, id)], ARM_SECONDS, "DNS question")
            reply = next(r for r in agent.log if isinstance(r, Answer) and r.id == id)
            answer, cut = dns.read_answer(reply, name, kind)
            answers.append(answer)
            if answer.status != "TIMEOUT" and not cut:
                break
        if answers[-1].status not in ("TIMEOUT", "REFUSED", "UNREACHABLE"):
            break
    return answers[-1]


# --- where the packet may go --------------------------------------------------------------------


def _flow(source: Source, resolution: Resolution, documents: Documents) -> Flow:
    """The probe's 5-tuple as the sender sees it. From a node the kernel chooses the address."""
    pod = documents.pod(source.place.pod)
    family = ip_address(resolution.address).version
    own = [a for a in (pod.ips if pod else ()) if ip_address(a).version == family]
    return Flow(
        protocol=resolution.protocol,
        src=own[0] if own else "",
        dst=resolution.address,
        dport=resolution.port,
    )


def _probes(flow: Flow, seed: int, count: int) -> tuple[Probe, ...]:
    """Each with a source port of the kernel's choice: nat tables are asked once for a 5-tuple."""
    udp = flow.protocol == "udp"
    return tuple(
        Probe(cookie=cookie, flow=flow, payload=payload(cookie, flow.dport) if udp else b"")
        for cookie in cookies(seed, count)
    )


def _far_places(
    source: Source, resolution: Resolution, documents: Documents, crew: Crew
) -> tuple[Place, ...]:
    """Every other place that the packet can reach: the backends' pods and nodes, and the node that
    the address belongs to. Rules may name backends that the API does not know (stale ones), so the
    near node's own rules are asked too.
    """
    snapshots = _snapshots(facts_of(crew.words()))
    predicted = _predict(source, resolution, documents, snapshots)
    addresses = [b.backend.address for b in predicted.branches if b.backend]
    backends = resolution.endpoints[:MOST_BACKEND_PODS]
    nodes = [
        *(e.node for e in backends),
        *(_node_of(address, documents) for address in (*addresses, resolution.address)),
    ]
    wanted = [Place(node=node) for node in nodes if node]
    wanted += [Place(node=e.node, pod=e.pod) for e in backends if e.node and e.pod]
    hosted = {pod.key for pod in documents.pods if pod.host_network}
    near = (Place(node=source.place.node), source.place)
    reached: dict[str, bool] = {source.place.node: True}
    places = []
    for place in _unique(wanted):
        if place in near or place.pod in hosted:
            continue
        if place.node not in reached:
            few = len(reached) < MOST_NODES
            reached[place.node] = few and crew.may_have(place.node) is not None
        if reached[place.node]:
            places.append(place)
    return tuple(places)


def _node_of(address: str, documents: Documents) -> str:
    """The node that owns an address or the pod range that it is in; empty: none does."""
    wanted = ip_address(address)
    for node in documents.nodes:
        if address in node.addresses or any(
            wanted in ip_network(cidr, strict=False) for cidr in node.pod_cidrs
        ):
            return node.name
    return ""


def _predict(
    source: Source,
    resolution: Resolution,
    documents: Documents,
    snapshots: Mapping[Place, Snapshot],
) -> Prediction:
    if not resolution.address:
        return Prediction()
    flow = _flow(source, resolution, documents)
    packet = Packet(flow=flow, flags="S" if flow.protocol == "tcp" else "")
    return predict(packet, source.place, _world(documents, snapshots))


def _world(documents: Documents, snapshots: Mapping[Place, Snapshot]) -> World:
    services = documents.services
    known = (
        None
        if "services.json" in documents.missing
        else frozenset(
            address
            for service in services
            for address in (
                *service.cluster_ips,
                *service.external_ips,
                *service.load_balancer_ips,
            )
        )
    )
    return World(
        snapshots=snapshots,
        endpoints=tuple(e for behind in documents.endpoints.values() for e in behind),
        services=known,
        node_ports=frozenset(p.node_port for s in services for p in s.ports if p.node_port),
    )


def _snapshots(texts: Mapping[Place, Mapping[str, str]]) -> dict[Place, Snapshot]:
    return {place: read_snapshot(place, files) for place, files in texts.items()}


# --- the proof ----------------------------------------------------------------------------------


def _prove(
    crew: Crew,
    source: Source,
    resolution: Resolution,
    places: tuple[Place, ...],
    probes: tuple[Probe, ...],
    timeout: float,
) -> None:
    """Arm every tap, send, wait until it is known what became of it, ask conntrack, disarm."""
    backends = tuple({(e.protocol, e.address, e.port): None for e in resolution.endpoints})
    watches = []
    for node in crew.nodes:
        there = tuple(place for place in places if place.node == node)
        watch = partial(Watch, places=there, probes=probes, backends=backends)
        watches.append(crew.send(node, watch))
    wait_all(watches, ARM_SECONDS, "arming")
    near, sending = crew.send(
        source.place.node, partial(Inject, place=source.place, probes=probes, timeout=timeout)
    )
    _await_fate(crew, near, sending, len(probes), timeout)
    _look_up(crew, source.place.node)
    stops = [crew.send(agent.node, partial(Stop, of=id)) for agent, id in watches]
    wait_all(stops, DRAIN_SECONDS, "draining")


def _await_fate(crew: Crew, near: Agent, sending: int, count: int, timeout: float) -> None:
    """Until the sender has heard of every probe, or the kernel has said that it dropped them."""
    slices = int((timeout + GRACE_SECONDS) / SLICE_SECONDS) + 1
    for _ in range(slices):
        if near.wait(sending, SLICE_SECONDS):
            return
        if _dropped(crew.words()) >= count:
            break
    if not near.wait(sending, GRACE_SECONDS):
        _, stopping = crew.send(near.node, partial(Stop, of=sending))
        wait_all([(near, stopping), (near, sending)], DRAIN_SECONDS, "sending")


def _dropped(replies: Iterable[Reply]) -> int:
    """How many probes the kernel reported as dropped on their way out (a copy that a bridge
    flooded and nobody wanted is not the probe: those carry no reason worth ending for).
    """
    ports = set()
    for reply in replies:
        if isinstance(reply, Drop) and reply.packet is not None:
            inner = reply.packet.innermost
            if inner.icmp is None and inner.flags in ("", "S"):
                ports.add((inner.flow.src, inner.flow.sport))
    return len(ports)


def _look_up(crew: Crew, near: str) -> None:
    """Ask conntrack for the probes' entries: first where they started, then, by the tuples that
    these entries translate to, on every other node.
    """
    flows = _unique(r.flow for r in crew.words() if isinstance(r, Returned))
    for node in (near, *(n for n in crew.nodes if n != near)):
        entries = [r for r in crew.words() if isinstance(r, ConntrackEntry)]
        asked = _unique((*flows, *(entry.reply.reverse for entry in entries)))
        lookup = partial(Lookup, place=Place(node=node), flows=asked)
        wait_all([crew.send(node, lookup)], ARM_SECONDS, "conntrack lookup")


T = TypeVar("T", bound=Hashable)


def _unique(values: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))

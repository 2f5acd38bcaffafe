"""The nouns of kptrace, immutable; every room speaks in these and this file imports none of ours.

Addresses are text as the kernel prints them (``10.96.0.10``, ``fd00::1``), protocols lower case
(``tcp``), times nanoseconds of CLOCK_REALTIME on the node that reports them. A pod is
``namespace/name``. Unknown is ``None`` (or an empty text where a text is optional), never a guess.

The order below is the order in which data flows: where a packet is, what it is, what the user
asked for, what the cluster says, what the rules imply, what the kernel saw, what we make of it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, dataclass_transform

import msgspec

API_VERSION = "kptrace.io/v1alpha1"


# msgspec passes frozen and kw_only on to subclasses; type checkers learn it from the decorator.
@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Value(msgspec.Struct, frozen=True, kw_only=True):
    """A value: compared by content, never changed; ``msgspec.structs.replace`` makes a new one."""


# --- where ------------------------------------------------------------------------------------


class Place(Value, order=True):
    """A network namespace: a node's own (``pod`` empty) or a pod's."""

    node: str
    pod: str = ""

    @property
    def netns(self) -> str:
        """The name that reports use: ``host`` for the node's own, else ``namespace/pod``."""
        return self.pod or "host"


# --- packets ----------------------------------------------------------------------------------


class Flow(Value):
    """The 5-tuple. Ports are 0 where the protocol has none."""

    protocol: str
    src: str
    dst: str
    sport: int = 0
    dport: int = 0

    @property
    def reverse(self) -> Flow:
        return Flow(
            protocol=self.protocol, src=self.dst, dst=self.src, sport=self.dport, dport=self.sport
        )

    @property
    def ipv6(self) -> bool:
        return ":" in self.dst


class Tunnel(Value):
    """How ``Packet.inner`` is carried. ``vni``: of GRE its key, where it has one."""

    kind: Literal["vxlan", "geneve", "ipip", "gre", "wireguard"]
    vni: int | None = None


class Packet(Value):
    """One IP packet. With ``tunnel`` set, ``flow`` is the outer one and ``inner`` what it carries.

    length:  the IP total length in bytes (0: not known, as in a prediction)
    flags:   TCP flags as letters in the order F S R P A U (``S``, ``SA``, ``RA``)
    icmp:    (type, code) of an ICMP or ICMPv6 packet; ``quoted`` is the packet it complains about
    """

    flow: Flow
    ttl: int = 64
    ip_id: int | None = None
    length: int = 0
    flags: str = ""
    seq: int | None = None
    ack: int | None = None
    mark: int = 0
    icmp: tuple[int, int] | None = None
    quoted: Packet | None = None
    tunnel: Tunnel | None = None
    inner: Packet | None = None

    @property
    def innermost(self) -> Packet:
        """The packet with every encapsulation taken off."""
        return self.inner.innermost if self.inner else self


# --- the question -----------------------------------------------------------------------------

TargetKind = Literal["service", "pod", "name", "address"]


class Target(Value):
    """What the user named: a Service, a pod, a DNS name or an address, and maybe a port.

    port: a number or a port's name, as typed; empty: to be chosen.
    """

    kind: TargetKind
    text: str
    name: str
    namespace: str = ""
    port: str = ""
    protocol: str = ""


class SourceRef(Value):
    """What the user named after ``--from``: a pod, a node or an outside address."""

    kind: Literal["pod", "node", "outside"]
    text: str
    name: str = ""
    namespace: str = ""
    address: str = ""


class Source(Value):
    """Where the packet starts: a pod or a node (``place`` says which), or an outside address."""

    kind: Literal["pod", "node", "outside"]
    place: Place
    address: str = ""
    why: str = ""


Entrance = Literal["clusterIP", "nodePort", "externalIP", "loadBalancer"]


class Question(Value):
    """One run: what to trace and how.

    source:  as typed after ``--from``; empty: to be chosen
    via:     by which of a Service's addresses; ``node`` says whose for a node port
    family:  4 or 6; 0: the Service's first
    count:   flows to send; timeout: seconds to wait for each
    trace_rule: a TRACE rule for the probe may be set where nothing else tells of rules
    """

    target: Target
    source: str = ""
    namespace: str = "default"
    via: Entrance = "clusterIP"
    node: str = ""
    family: Literal[0, 4, 6] = 0
    count: int = 1
    timeout: float = 4.0
    expect: tuple[Outcome, ...] = ()
    trace_rule: bool = False


# --- what the cluster says --------------------------------------------------------------------


class ServicePort(Value):
    name: str
    protocol: str
    port: int
    target_port: str
    node_port: int = 0
    app_protocol: str = ""


class Service(Value):
    """A Service as the API gives it. ``cluster_ips`` is empty for a headless one.

    load_balancer_ips: those the proxy rewrites (``ipMode`` VIP or absent); an address with
    ``ipMode: Proxy`` is the load balancer's own and stands in ``load_balancer_proxy_ips``
    """

    namespace: str
    name: str
    type: str
    cluster_ips: tuple[str, ...] = ()
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()
    source_ranges: tuple[str, ...] = ()
    ports: tuple[ServicePort, ...] = ()
    headless: bool = False
    external_name: str = ""
    selector: tuple[tuple[str, str], ...] = ()
    affinity_seconds: int = 0
    internal_policy: str = "Cluster"
    external_policy: str = "Cluster"
    proxy_name: str = ""
    load_balancer_proxy_ips: tuple[str, ...] = ()
    health_check_node_port: int = 0
    traffic_distribution: str = ""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


class Endpoint(Value):
    """One address of an EndpointSlice with its port. ``zones`` and ``nodes`` are topology hints."""

    address: str
    port: int
    protocol: str = "tcp"
    port_name: str = ""
    node: str = ""
    pod: str = ""
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    zones: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()


class ContainerPort(Value):
    """A port that a container declares; ``targetPort`` may name it."""

    name: str
    port: int
    protocol: str = "tcp"
    host_port: int = 0


class Pod(Value):
    """A pod as the API gives it. ``ready`` is its Ready condition, not a guess from its phase."""

    namespace: str
    name: str
    node: str = ""
    ips: tuple[str, ...] = ()
    host_network: bool = False
    phase: str = ""
    ready: bool = False
    terminating: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    ports: tuple[ContainerPort, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


class Node(Value):
    """A node as the API gives it. ``addresses``: the InternalIPs first, no host names.

    kubelet, kernel: their versions, as the kubelet reports them
    """

    name: str
    addresses: tuple[str, ...] = ()
    pod_cidrs: tuple[str, ...] = ()
    zone: str = ""
    ready: bool = False
    annotations: tuple[tuple[str, str], ...] = ()
    kubelet: str = ""
    kernel: str = ""


class DnsAnswer(Value):
    """One DNS question as the source asked it, and what came back.

    records: (type, text) in the order of the answer; status: the rcode's name, or ``TIMEOUT``,
    ``CLOSED`` (nobody serves the port), ``UNREACHABLE`` where no answer came.
    """

    name: str
    type: str
    server: str
    transport: str = "udp"
    status: str = ""
    records: tuple[tuple[str, str], ...] = ()
    elapsed_us: int = 0


class Resolution(Value):
    """What the target means: where the packet will be sent, and what stands behind it."""

    address: str
    port: int
    protocol: str
    service: Service | None = None
    service_port: ServicePort | None = None
    endpoints: tuple[Endpoint, ...] = ()
    search: tuple[str, ...] = ()
    ndots: int = 1
    dns: tuple[DnsAnswer, ...] = ()


# --- what the rules imply ---------------------------------------------------------------------


class RuleRef(Value):
    """A rule that matched. ``number`` is its 1-based place in the chain, 0 the chain's policy."""

    backend: Literal["legacy", "nft", "ipvs", "bpf"]
    family: str
    table: str
    chain: str
    number: int
    text: str
    words: str = ""


class Outcome(StrEnum):
    """What became of the packet (DESIGN section 2)."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    REJECTED = "rejected"
    DROPPED = "dropped"
    NO_ENDPOINTS = "no-endpoints"
    NOT_PROGRAMMED = "not-programmed"
    UNRESOLVED = "unresolved"
    INCONCLUSIVE = "inconclusive"


StepAction = Literal[
    "sent",
    "seen",
    "rule",
    "mark",
    "dnat",
    "snat",
    "route",
    "neighbour",
    "encap",
    "decap",
    "delivered",
    "rejected",
    "dropped",
    "reply",
]


class Step(Value):
    """One thing that the snapshots say will be done to the packet, and the packet afterwards.

    ``seen`` is a crossing of ``interface`` in ``direction`` at which a capture would show it.
    ``certain`` is false from the first match on that nobody here can evaluate, and while the
    packet's mark is one that nobody here can compute.
    """

    place: Place
    action: StepAction
    packet: Packet
    interface: str = ""
    direction: Literal["", "in", "out"] = ""
    hook: str = ""
    rule: RuleRef | None = None
    words: str = ""
    certain: bool = True


class Branch(Value):
    """One way the packet can go. ``weight`` is its probability; the weights of all sum to 1.

    blame: the object that ends an undelivered branch (a rule, a route, a sysctl), for findings;
    cause: the stable id of what that is, where the walk itself knows it (``ip-forward-off``).
    """

    weight: float
    steps: tuple[Step, ...]
    outcome: Outcome
    certain: bool = True
    backend: Endpoint | None = None
    cause: str = ""
    blame: str = ""
    words: str = ""


class Prediction(Value):
    """All branches, the likeliest first."""

    branches: tuple[Branch, ...] = ()
    missing: tuple[str, ...] = ()


# --- what the kernel saw ----------------------------------------------------------------------


class Probe(Value):
    """One packet or connection that we send.

    The cookie is the TCP sequence number of the SYN or stands in the first 21 bytes of the UDP
    payload (wire/cookie.py), so the packet is known again after NAT and encapsulation.

    ttl: the initial TTL (0: the kernel's own)
    """

    cookie: int
    flow: Flow
    ttl: int = 0
    payload: bytes = b""


class Sighting(Value, tag="sighting"):
    """A packet tap saw the probe or its reply. ``frame``: what was captured, from the IP header."""

    place: Place
    interface: str
    ifindex: int
    direction: Literal["in", "out"]
    packet: Packet
    time_ns: int
    cookie: int
    other_host: bool = False
    dst_mac: str = ""
    frame: bytes = b""


class RuleHit(Value, tag="rule-hit"):
    """The kernel's rule trace: this rule (or policy) was met by the probe.

    kind: ``rule``; ``return`` (fell off the end or returned); ``policy``
    verdict: accept, drop, jump, goto, return, continue, stolen, queue; empty for legacy rules
    sequence: order of arrival on this place's trace socket
    packet: only on the first event of a base chain's walk (nft) or on every event (legacy)
    """

    place: Place
    backend: Literal["legacy", "nft"]
    family: str
    table: str
    chain: str
    number: int
    kind: Literal["rule", "return", "policy"]
    sequence: int
    time_ns: int
    handle: int | None = None
    verdict: str = ""
    target: str = ""
    mark: int = 0
    iif: str = ""
    oif: str = ""
    trace_id: int = 0
    packet: Packet | None = None


class Drop(Value, tag="drop"):
    """The kernel threw the probe away: reason and function as the kernel names them.

    place: where, when the report says it (a BPF report does, tracefs knows only the node)
    """

    node: str
    reason: str
    location: str
    time_ns: int
    place: Place | None = None
    interface: str = ""
    packet: Packet | None = None


_PASSING = ("SYN_SENT", "FIN_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "CLOSE_WAIT")


class ConntrackEntry(Value, tag="conntrack"):
    """A conntrack entry of the probe: ``reply.src`` tells the DNAT, ``reply.dst`` the SNAT."""

    place: Place
    original: Flow
    reply: Flow
    status: tuple[str, ...] = ()
    state: str = ""
    mark: int = 0

    @property
    def lasts(self) -> bool:
        """Neither ending by itself nor, if it is TCP, a question that nobody answered."""
        return self.state not in _PASSING and "DYING" not in self.status


class Lost(Value, tag="lost"):
    """A source of reports lost some: what it did not tell must not be read as "did not happen"."""

    place: Place
    layer: str
    count: int


class Returned(Value, tag="returned"):
    """What the sender itself experienced.

    result: connected, replied, refused, unreachable, timeout, sent, failed
    """

    cookie: int
    flow: Flow
    result: Literal["connected", "replied", "refused", "unreachable", "timeout", "sent", "failed"]
    sent_ns: int
    elapsed_us: int
    error: str = ""
    data: bytes = b""


# --- what we make of it -----------------------------------------------------------------------

HopAction = Literal[
    "sent",
    "seen",
    "dnat",
    "snat",
    "route",
    "encap",
    "decap",
    "delivered",
    "reply",
    "rejected",
    "dropped",
]


class Hop(Value):
    """One place on the path, in causal order. ``offset_us`` counts from the moment of sending.

    rule: the rule that did it; ``via`` the rules that led there; ``words`` in plain English;
    observed: false where the hop is inferred (from conntrack, from how the packet looks after it)
    """

    node: str
    netns: str
    interface: str
    direction: str
    action: HopAction
    packet: Packet
    rule: RuleRef | None = None
    via: tuple[RuleRef, ...] = ()
    offset_us: float | None = None
    words: str = ""
    changed: tuple[tuple[str, str, str], ...] = ()
    observed: bool = True


class Finding(Value):
    """Something wrong or odd. ``cause``: a stable id; ``remedy``: what mends it, by line."""

    cause: str
    severity: Literal["error", "warning", "info"]
    node: str
    object: str
    summary: str
    evidence: tuple[str, ...] = ()
    remedy: tuple[str, ...] = ()


class Layer(Value):
    """One source of evidence on one node: how much it told, what it lost, or why it is missing.

    remedy: what would give it; ``manifest``: the objects to be applied for that, where it needs any
    """

    name: str
    node: str
    reports: int = 0
    lost: int = 0
    missing: str = ""
    remedy: str = ""
    manifest: str = ""

    @property
    def hint(self) -> str:
        """As an error has it: the manifest below the remedy."""
        return "\n".join(filter(None, (self.remedy, self.manifest)))


class Share(Value):
    """How often a backend was chosen, beside how often it should be."""

    address: str
    port: int
    node: str
    pod: str
    weight: float
    seen: int
    delivered: int


class Agreement(Value):
    """Prediction against observation: hops predicted, hops of these seen, and where they part."""

    predicted: int
    seen: int
    parted: str = ""


class Evidence(Value):
    """What the report rests on. ``depth``: how deep the sender's node was looked into: on the node
    itself, in the sender's pod alone, or not at all, so that the API alone tells
    """

    depth: Literal["node", "pod", "api"] = "node"
    layers: tuple[Layer, ...] = ()
    conntrack: tuple[ConntrackEntry, ...] = ()
    returned: tuple[Returned, ...] = ()
    drops: tuple[Drop, ...] = ()
    shares: tuple[Share, ...] = ()
    agreement: Agreement | None = None


class Network(Value):
    """What carries pods' packets on a node, as a plugin recognised it (cni.py).

    proxy:   who translates Services there (``iptables``, ``cilium``, ``calico-ebpf``)
    signal:  what it was recognised by; ``limits``: what kptrace cannot tell there
    """

    node: str
    name: str
    proxy: str = ""
    signal: str = ""
    limits: tuple[str, ...] = ()


class Trace(Value):
    """The report of one run: what ``-o json`` prints."""

    target: Target
    source: Source
    outcome: Outcome
    resolution: Resolution | None = None
    prediction: Prediction = Prediction()
    hops: tuple[Hop, ...] = ()
    findings: tuple[Finding, ...] = ()
    evidence: Evidence = Evidence()
    networks: tuple[Network, ...] = ()
    summary: str = ""
    elapsed_us: float | None = None
    apiVersion: str = API_VERSION
    kind: Literal["Trace"] = "Trace"


# --- what one node's rules make of a Service ----------------------------------------------------

Proxy = Literal["iptables", "nftables", "ipvs", "cilium", "none"]
Sender = Literal["pod", "node", "outside"]


class MetRule(Value):
    """A rule that a packet to the Service matches, at ``hook``. ``number`` as in RuleRef.

    packets, bytes: its counters, None where nobody told them
    """

    table: str
    chain: str
    number: int
    text: str
    words: str = ""
    hook: str = ""
    backend: Literal["legacy", "nft", "ipvs", "bpf"] = "nft"
    family: str = ""
    packets: int | None = None
    bytes: int | None = None


class Backend(Value):
    """Where packets are sent. ``weight``: the share of new connections that goes there."""

    address: str
    port: int
    weight: float
    node: str = ""
    pod: str = ""


class Entry(Value, rename={"sender": "from"}):
    """One way in: what the node's rules do with a packet to this address from such a sender.

    source: the address that the packet was taken to come from, and ``becomes`` what a rule changes
    it to (empty: it is kept, ``?``: to an address of the node)
    outcome: ``delivered`` when it is handed to a backend
    certain: false where a rule was met that nobody here can evaluate
    pod: the sender, where it is a pod that the API knows
    denied_by: the policies that keep it from a backend, so that it is lost by intent
    """

    kind: Entrance
    address: str
    port: int
    sender: Sender
    outcome: Outcome
    source: str = ""
    becomes: str = ""
    backends: tuple[Backend, ...] = ()
    rules: tuple[MetRule, ...] = ()
    certain: bool = True
    words: str = ""
    pod: str = ""
    denied_by: str = ""


class ExplainedPort(Value):
    name: str
    port: int
    protocol: str
    entries: tuple[Entry, ...] = ()


class Explanation(Value):
    """What one node does with a Service's packets: what ``explain -o json`` prints.

    nodes: all that could have been asked; ``service``: as the API has it, None where nobody told
    missing: what was not there to be read, so that the answer rests on what is usual
    """

    target: Target
    node: str
    proxy: Proxy
    ports: tuple[ExplainedPort, ...] = ()
    findings: tuple[Finding, ...] = ()
    service: Service | None = None
    nodes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    apiVersion: str = API_VERSION
    kind: Literal["Explanation"] = "Explanation"


# --- what a target means ------------------------------------------------------------------------


class Resolved(Value):
    """What the API says that a target is, beside what DNS says: what ``resolve -o json`` prints.

    servers: of the source's resolver; ``why_not``: why they were not asked
    told_by: who told of the Service, where it was not the API
    missing: what the API was not asked for
    absent: why no agent asked DNS, where one should have
    """

    target: Target
    source: Source
    resolution: Resolution
    servers: tuple[str, ...] = ()
    why_not: str = ""
    told_by: str = ""
    findings: tuple[Finding, ...] = ()
    missing: tuple[str, ...] = ()
    absent: tuple[Layer, ...] = ()
    apiVersion: str = API_VERSION
    kind: Literal["Resolved"] = "Resolved"


# --- what would break Service traffic -----------------------------------------------------------


class CheckedWay(Value):
    """The way from a pod of one node to a pod of another (``goal`` empty: which is not known).

    cause: what ended it; ``policy-drop`` is no fault, somebody wants it so
    """

    start: str
    goal: str
    source: str
    destination: str
    outcome: Outcome
    words: str = ""
    cause: str = ""


class CheckedNode(Value):
    """missing: what was not there to be read"""

    name: str
    proxy: Proxy
    network: str
    services: int = 0
    missing: tuple[str, ...] = ()


class Checkup(Value):
    """What was looked at and what is wrong with it: what ``check -o json`` prints.

    absent: nodes that could not be looked at at all
    """

    nodes: tuple[CheckedNode, ...]
    services: int = 0
    ways: tuple[CheckedWay, ...] = ()
    findings: tuple[Finding, ...] = ()
    absent: tuple[Layer, ...] = ()
    missing: tuple[str, ...] = ()
    apiVersion: str = API_VERSION
    kind: Literal["Checkup"] = "Checkup"

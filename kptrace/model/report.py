"""The report of a trace: hops, findings, evidence."""

from __future__ import annotations

from typing import Literal

from kptrace.model.base import API_VERSION, Value
from kptrace.model.cluster import Resolution
from kptrace.model.events import ConntrackEntry, DropEvent, ProbeResult
from kptrace.model.packet import Packet
from kptrace.model.prediction import Outcome, Prediction, RuleRef
from kptrace.model.request import Source, Target

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

    rule: the rule that did it; ``preceding_rules`` the rules that led there; ``description``: in
    plain English;
    observed: false where the hop is inferred (from conntrack, from how the packet looks after it)
    """

    node: str
    netns: str
    interface: str
    direction: str
    action: HopAction
    packet: Packet
    rule: RuleRef | None = None
    preceding_rules: tuple[RuleRef, ...] = ()
    offset_us: float | None = None
    description: str = ""
    rewrites: tuple[tuple[str, str, str], ...] = ()
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


class EvidenceSource(Value):
    """One source of evidence on one node: how much it told, what it lost, or why it is missing.

    remedy: what would give it; ``manifest``: the objects to be applied for that, where it needs any
    """

    name: str
    node: str
    reports: int = 0
    lost: int = 0
    unavailable: str = ""
    hint: str = ""
    manifest: str = ""


class BackendShare(Value):
    """How often a backend was chosen, beside how often it should be."""

    address: str
    port: int
    node: str
    pod: str
    weight: float
    seen: int
    delivered: int


class PredictionMatch(Value):
    """Prediction against observation: hops predicted, hops of these seen, and where they part."""

    predicted: int
    seen: int
    diverged_at: str = ""


class Evidence(Value):
    """What the report rests on.

    visibility: how deep the sender's node was looked into: on the node
    itself, in the sender's pod alone, or not at all, so that the API alone tells
    """

    visibility: Literal["node", "pod", "api"] = "node"
    sources: tuple[EvidenceSource, ...] = ()
    conntrack: tuple[ConntrackEntry, ...] = ()
    probe_results: tuple[ProbeResult, ...] = ()
    drops: tuple[DropEvent, ...] = ()
    shares: tuple[BackendShare, ...] = ()
    prediction_match: PredictionMatch | None = None


class DetectedNetwork(Value):
    """What carries pods' packets on a node, as a plugin recognised it (plugins/registry.py).

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
    networks: tuple[DetectedNetwork, ...] = ()
    summary: str = ""
    elapsed_us: float | None = None
    api_version: str = API_VERSION
    kind: Literal["Trace"] = "Trace"

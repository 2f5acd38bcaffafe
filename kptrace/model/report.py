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
    """One place on the path, in causal order.

    rule: the rule that did it
    preceding_rules: the rules that led there
    offset_us: from the moment of sending
    description: in plain English
    rewrites: (field, old, new)
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
    """Something wrong or odd. ``cause``: a stable id; ``remedy``: the fix, one line each."""

    cause: str
    severity: Literal["error", "warning", "info"]
    node: str
    object: str
    summary: str
    evidence: tuple[str, ...] = ()
    remedy: tuple[str, ...] = ()


class EvidenceSource(Value):
    """A source of evidence on one node.

    reports, lost: how many events it gave and lost
    unavailable: why it is missing; empty: it is not
    hint: what would give it; ``manifest``: the objects to apply for that
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
    """Prediction against observation: hops predicted, how many of these were seen, and where
    they part.
    """

    predicted: int
    seen: int
    diverged_at: str = ""


class Evidence(Value):
    """What the report rests on.

    visibility: whether the sender's node was looked into, its pod alone, or neither, so that only
    the
        API says something
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

    proxy: who translates Services there (``iptables``, ``cilium``, ``calico-ebpf``)
    signal: what it was recognised by
    limits: what kptrace cannot tell there
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

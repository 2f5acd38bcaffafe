"""The values of kptrace, immutable. Every package uses them, and this package imports none of ours.

Addresses are text as the kernel prints it (``10.96.0.10``, ``fd00::1``), protocols lower case
(``tcp``), times nanoseconds of CLOCK_REALTIME on the node that reports them. A pod is
``namespace/name``. Unknown is ``None`` (or an empty text where a text is optional), never a guess.
"""

from __future__ import annotations

from kptrace.model.base import API_VERSION, ProgressCallback, Value
from kptrace.model.causes import CauseId
from kptrace.model.check_report import CheckReport, NodeReport, PodPath
from kptrace.model.cluster import (
    ContainerPort,
    DnsAnswer,
    Endpoint,
    Node,
    Pod,
    Resolution,
    Service,
    ServicePort,
)
from kptrace.model.events import (
    CapturedPacket,
    ConntrackEntry,
    DropEvent,
    EventsLost,
    Probe,
    ProbeResult,
    RuleTraceEvent,
)
from kptrace.model.explanation import (
    ClientKind,
    ExplainedPort,
    Explanation,
    MatchedRule,
    Proxy,
    ServiceEntrypoint,
    WeightedBackend,
)
from kptrace.model.netns import Netns
from kptrace.model.packet import Flow, Packet, Tunnel
from kptrace.model.prediction import (
    Branch,
    BranchNote,
    NoteKind,
    Outcome,
    Prediction,
    RuleRef,
    SimulatedStep,
    StepAction,
)
from kptrace.model.report import (
    BackendShare,
    DetectedNetwork,
    Evidence,
    EvidenceSource,
    Finding,
    Hop,
    HopAction,
    PredictionMatch,
    Trace,
)
from kptrace.model.request import AddressKind, Source, SourceSpec, Target, TargetKind, TraceRequest
from kptrace.model.resolve_report import ResolveReport

__all__ = [
    "API_VERSION",
    "AddressKind",
    "BackendShare",
    "Branch",
    "BranchNote",
    "CapturedPacket",
    "CauseId",
    "CheckReport",
    "ClientKind",
    "ConntrackEntry",
    "ContainerPort",
    "DetectedNetwork",
    "DnsAnswer",
    "DropEvent",
    "Endpoint",
    "EventsLost",
    "Evidence",
    "EvidenceSource",
    "ExplainedPort",
    "Explanation",
    "Finding",
    "Flow",
    "Hop",
    "HopAction",
    "MatchedRule",
    "Netns",
    "Node",
    "NodeReport",
    "NoteKind",
    "Outcome",
    "Packet",
    "Pod",
    "PodPath",
    "Prediction",
    "PredictionMatch",
    "Probe",
    "ProbeResult",
    "ProgressCallback",
    "Proxy",
    "Resolution",
    "ResolveReport",
    "RuleRef",
    "RuleTraceEvent",
    "Service",
    "ServiceEntrypoint",
    "ServicePort",
    "SimulatedStep",
    "Source",
    "SourceSpec",
    "StepAction",
    "Target",
    "TargetKind",
    "Trace",
    "TraceRequest",
    "Tunnel",
    "Value",
    "WeightedBackend",
]

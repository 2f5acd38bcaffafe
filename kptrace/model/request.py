"""What the user asked for: target, source and how to trace."""

from __future__ import annotations

from typing import Literal

from kptrace.model.base import Value
from kptrace.model.netns import Netns
from kptrace.model.prediction import Outcome

TargetKind = Literal["service", "pod", "name", "address"]


class Target(Value):
    """What the user named: a Service, a pod, a DNS name or an address, and maybe a port.

    port: a number or a port's name, as typed; empty: to be chosen
    """

    kind: TargetKind
    text: str
    name: str
    namespace: str = ""
    port: str = ""
    protocol: str = ""


class SourceSpec(Value):
    """What the user named after ``--from``: a pod, a node or an outside address."""

    kind: Literal["pod", "node", "outside"]
    text: str
    name: str = ""
    namespace: str = ""
    address: str = ""


class Source(Value):
    """Where the packet starts: a pod or a node (``netns`` says which), or an outside address."""

    kind: Literal["pod", "node", "outside"]
    netns: Netns
    address: str = ""
    why: str = ""


AddressKind = Literal["clusterIP", "nodePort", "externalIP", "loadBalancer"]


class TraceRequest(Value):
    """One run: what to trace and how.

    source: as typed after ``--from``; empty: to be chosen
    via: by which of a Service's addresses; ``node`` says whose for a node port
    family: 4 or 6; 0: the Service's first
    count: flows to send; timeout: seconds to wait for each
    trace_rule: whether a TRACE rule for the probe may be set where no other rule trace works
    """

    target: Target
    source: str = ""
    namespace: str = "default"
    via: AddressKind = "clusterIP"
    node: str = ""
    family: Literal[0, 4, 6] = 0
    count: int = 1
    timeout: float = 4.0
    expect: tuple[Outcome, ...] = ()
    trace_rule: bool = False

"""The report of ``explain``: what one node's rules do with a Service."""

from __future__ import annotations

from typing import Literal

from kptrace.model.base import API_VERSION, Value, json_key
from kptrace.model.cluster import Service
from kptrace.model.prediction import Outcome
from kptrace.model.report import Finding
from kptrace.model.request import AddressKind, Target

Proxy = Literal["iptables", "nftables", "ipvs", "cilium", "none"]
ClientKind = Literal["pod", "node", "outside"]


class MatchedRule(Value):
    """A rule that a packet to the Service matches, at ``hook``. ``number`` as in RuleRef.

    packets, bytes: its counters; None where they were not read
    """

    table: str
    chain: str
    number: int
    text: str
    description: str = ""
    hook: str = ""
    backend: Literal["legacy", "nft", "ipvs", "bpf"] = "nft"
    family: str = ""
    packets: int | None = None
    bytes: int | None = None


class WeightedBackend(Value):
    """Where packets are sent. ``weight``: the share of new connections that goes there."""

    address: str
    port: int
    weight: float
    node: str = ""
    pod: str = ""


def _entrypoint_key(field: str) -> str:
    return "from" if field == "sender" else json_key(field)


class ServiceEntrypoint(Value, rename=_entrypoint_key):
    """What the node's rules do with a packet to one of the Service's addresses from one kind
    of sender.

    source: the address that the packet was taken to come from
    snat_source: what a rule changes the source to (empty: it is kept, ``?``: to an address of the
    node)
    outcome: ``delivered`` when it is handed to a backend
    deterministic: false where a rule cannot be evaluated
    pod: the sender, where it is a pod that the API knows
    denied_by: the policies that keep it from a backend, so that it is lost by intent
    """

    kind: AddressKind
    address: str
    port: int
    sender: ClientKind
    outcome: Outcome
    source: str = ""
    snat_source: str = ""
    backends: tuple[WeightedBackend, ...] = ()
    rules: tuple[MatchedRule, ...] = ()
    deterministic: bool = True
    description: str = ""
    pod: str = ""
    denied_by: str = ""


class ExplainedPort(Value):
    name: str
    port: int
    protocol: str
    entries: tuple[ServiceEntrypoint, ...] = ()


class Explanation(Value):
    """What one node does with a Service's packets: what ``explain -o json`` prints.

    nodes: all that could have been asked
    service: as the API has it; None where it was not read
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
    api_version: str = API_VERSION
    kind: Literal["Explanation"] = "Explanation"

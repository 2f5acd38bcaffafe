"""The report of ``check``: what would break Service traffic."""

from __future__ import annotations

from typing import Literal

from kptrace.model.base import API_VERSION, Value
from kptrace.model.explanation import Proxy
from kptrace.model.prediction import Outcome
from kptrace.model.report import EvidenceSource, Finding


class PodPath(Value):
    """The path from a pod of one node to a pod of another.

    destination_node: empty where it is not known which
    cause: what ends it; ``policy-drop`` is no fault but intended
    """

    source_node: str
    destination_node: str
    source: str
    destination: str
    outcome: Outcome
    description: str = ""
    cause: str = ""


class NodeReport(Value):
    """What was read of one node. ``missing``: files that were not there."""

    name: str
    proxy: Proxy
    network: str
    services: int = 0
    missing: tuple[str, ...] = ()


class CheckReport(Value):
    """What was read and what is wrong with it: what ``check -o json`` prints.

    unavailable: nodes that could not be read, and rules of them that were not
    missing: what the API was not asked for
    """

    nodes: tuple[NodeReport, ...]
    services: int = 0
    paths: tuple[PodPath, ...] = ()
    findings: tuple[Finding, ...] = ()
    unavailable: tuple[EvidenceSource, ...] = ()
    missing: tuple[str, ...] = ()
    api_version: str = API_VERSION
    kind: Literal["CheckReport"] = "CheckReport"

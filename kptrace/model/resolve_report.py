"""The report of ``resolve``: what a target means."""

from __future__ import annotations

from typing import Literal

from kptrace.model.base import API_VERSION, Value
from kptrace.model.cluster import Resolution
from kptrace.model.report import EvidenceSource, Finding
from kptrace.model.request import Source, Target


class ResolveReport(Value):
    """What the API says that a target is, beside what DNS says: what ``resolve -o json`` prints.

    servers: of the source's resolver
    dns_skipped_reason: why they were not asked
    service_source: where the Service was read, if not from the API
    missing: what the API was not asked for
    unavailable: why no agent asked DNS, where one should have
    """

    target: Target
    source: Source
    resolution: Resolution
    servers: tuple[str, ...] = ()
    dns_skipped_reason: str = ""
    service_source: str = ""
    findings: tuple[Finding, ...] = ()
    missing: tuple[str, ...] = ()
    unavailable: tuple[EvidenceSource, ...] = ()
    api_version: str = API_VERSION
    kind: Literal["ResolveReport"] = "ResolveReport"

"""The JSON Schemas of ``-o json``, made from model.py; the ``*.schema.json``
here are their copies.

The copies are committed, so that a change of the contract shows in review; a test compares them
and ``pytest --update-golden`` writes them anew.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kptrace.model import API_VERSION, CheckReport, Explanation, ResolveReport, Trace, Value
from kptrace.verify.results import Verification

SCHEMA_FILE = "trace.schema.json"
SCHEMAS: dict[str, type[Value]] = {
    SCHEMA_FILE: Trace,
    "explanation.schema.json": Explanation,
    "resolve-report.schema.json": ResolveReport,
    "check-report.schema.json": CheckReport,
    "verification.schema.json": Verification,
}


def schema(kind: type[Value] = Trace) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{kind.__name__} {API_VERSION}",
        **msgspec.json.schema(kind),
    }


def schema_text(kind: type[Value] = Trace) -> str:
    return msgspec.json.format(msgspec.json.encode(schema(kind)), indent=2).decode() + "\n"

"""The JSON Schemas of ``-o json``, made from the model; the ``*.schema.json`` here are copies.

The copies are committed, so that a change of the contract shows in review; a test compares them
and ``make schema`` writes them anew.

Whether a committed copy is up to date must not depend on who compares it. msgspec says which types,
names and defaults there are; what differs between its releases and those of Python (the indentation
of docstrings, the order of alternatives) is set here.
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
    """The JSON Schema of one kind of document."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{kind.__name__} {API_VERSION}",
        **_normalised(msgspec.json.schema(kind)),
    }


def _normalised(part: Any) -> Any:  # noqa: ANN401 - any part of a JSON document
    """The same schema in one form: a description on one line, the null of an ``anyOf`` last.

    Releases of msgspec differ in both, and a schema must not change with the library.
    """
    if isinstance(part, list):
        return [_normalised(item) for item in part]
    if not isinstance(part, dict):
        return part
    return {key: _normalised_item(key, item) for key, item in part.items()}


def _normalised_item(key: str, item: Any) -> Any:  # noqa: ANN401
    if key == "description" and isinstance(item, str):
        return " ".join(item.split())
    if key == "anyOf":
        return sorted(_normalised(item), key=lambda choice: choice == {"type": "null"})
    return _normalised(item)


def schema_text(kind: type[Value] = Trace) -> str:
    return msgspec.json.format(msgspec.json.encode(schema(kind)), indent=2).decode() + "\n"

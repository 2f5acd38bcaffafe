"""The JSON Schema of ``-o json``, made from model.py; ``trace.schema.json`` here is its copy.

The copy is committed, so that a change of the contract shows in review; a test compares the two
and ``pytest --update-golden`` writes it anew.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kptrace.model import API_VERSION, Trace

SCHEMA_FILE = "trace.schema.json"


def schema() -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Trace {API_VERSION}",
        **msgspec.json.schema(Trace),
    }


def schema_text() -> str:
    return msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode() + "\n"

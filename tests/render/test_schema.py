"""The committed schema is the model's, and real reports keep to it."""

from __future__ import annotations

import json as stdlib
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

import kptrace.render.schema
from kptrace.model import Trace
from kptrace.render.json import json
from kptrace.render.schema import SCHEMA_FILE, schema_text

COMMITTED = Path(kptrace.render.schema.__file__).parent / SCHEMA_FILE


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = stdlib.loads(COMMITTED.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_committed_schema_is_the_models(golden: Callable[[Path, str], None]) -> None:
    golden(COMMITTED, schema_text())


def test_reports_keep_to_it(
    sample: tuple[str, Trace], validator: jsonschema.Draft202012Validator
) -> None:
    validator.validate(stdlib.loads(json(sample[1])))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("outcome",), "lost"),
        (("hops", 0, "action"), "teleported"),
        (("hops", 0, "packet", "ttl"), "many"),
        (("kind",), "Explanation"),
        (("target",), None),
    ],
)
def test_what_is_no_report_is_told(
    samples: dict[str, Trace],
    validator: jsonschema.Draft202012Validator,
    path: tuple[str | int, ...],
    value: object,
) -> None:
    document = stdlib.loads(json(samples["delivered-vxlan"]))
    *way, last = path
    inner = document
    for step in way:
        inner = inner[step]
    inner[last] = value
    assert not validator.is_valid(document)

"""The contract of ``explain -o json``: the committed schema, and the names that DESIGN fixes."""

from __future__ import annotations

import json as stdlib
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from explanations import SAMPLES

import kptrace.render.schema
from kptrace.model import Explanation
from kptrace.render.json import json, yaml
from kptrace.render.schema import schema_text

COMMITTED = Path(kptrace.render.schema.__file__).parent / "explanation.schema.json"

# the documented names; others may stand beside them
PROMISED = {"apiVersion", "kind", "target", "node", "proxy", "ports", "findings"}
PORT = {"name", "port", "protocol", "entries"}
ENTRY = {"kind", "address", "port", "from", "outcome", "backends", "rules", "deterministic"}
BACKEND = {"address", "port", "weight", "node", "pod"}
RULE = {"table", "chain", "number", "text", "description"}


def test_the_committed_schema_is_the_models(golden: Callable[[Path, str], None]) -> None:
    golden(COMMITTED, schema_text(Explanation))


@pytest.mark.parametrize("name", SAMPLES)
def test_explanations_keep_to_it(name: str) -> None:
    schema = stdlib.loads(COMMITTED.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    document = stdlib.loads(json(SAMPLES[name]()))
    jsonschema.Draft202012Validator(schema).validate(document)
    broken = {**document, "proxy": "haproxy"}
    assert not jsonschema.Draft202012Validator(schema).is_valid(broken)


def test_the_promised_names_are_there() -> None:
    document = stdlib.loads(json(SAMPLES["np-local.iptables"]()))
    assert set(document) >= PROMISED
    assert document["kind"] == "Explanation"
    (port,) = document["ports"]
    assert set(port) >= PORT
    for entry in port["entries"]:
        assert set(entry) >= ENTRY
        assert "sender" not in entry
        assert all(set(one) >= BACKEND for one in entry["backends"])
        assert all(set(one) >= RULE for one in entry["rules"])


def test_yaml_holds_the_same() -> None:
    from yaml import safe_load

    made = SAMPLES["np-local.iptables"]()
    assert safe_load(yaml(made)) == stdlib.loads(json(made))

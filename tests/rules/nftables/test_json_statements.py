"""The parts that nft's statements are, by their JSON."""

from __future__ import annotations

import pytest
from support.nft_json import (
    CASES,
    Json,
    one_rule,
)

from kptrace.rules.model.expressions import Part

IDS = [text for _, text, _ in CASES]
PARTS = [(statement, part) for statement, _, part in CASES]


@pytest.mark.parametrize(("statement", "part"), PARTS, ids=IDS)
def test_statement(statement: Json, part: Part) -> None:
    assert one_rule(statement).body == (part,)

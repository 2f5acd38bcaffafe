"""The text that nft prints for a rule, from its JSON."""

from __future__ import annotations

import pytest
from support.nft_json import (
    CASES,
    Json,
    one_rule,
)

IDS = [text for _, text, _ in CASES]
TEXTS = [(statement, text) for statement, text, _ in CASES]


@pytest.mark.parametrize(("statement", "text"), TEXTS, ids=IDS)
def test_statement(statement: Json, text: str) -> None:
    assert one_rule(statement).text == text


def test_the_default_reject_of_each_family_is_printed_bare() -> None:
    port = {"reject": {"type": "icmp", "expr": "port-unreachable"}}
    assert one_rule(port, family="ip").text == "reject"
    port6 = {"reject": {"type": "icmpv6", "expr": "port-unreachable"}}
    assert one_rule(port6, family="ip6").text == "reject"

"""The rules of several ways as one list, in the kernel's order."""

from __future__ import annotations

from collections.abc import Hashable

from kptrace.simulate.matched_rules import merge


def place(rule: str) -> tuple[int, Hashable, int]:
    """``2SVC4``: hook 2, chain SVC, rule 4."""
    return int(rule[0]), rule[1:-1], int(rule[-1])


def merged(*ways: str) -> str:
    order: list[str] = []
    for way in ways:
        order = merge(order, way.split(), place)
    return " ".join(order)


def test_one_chain_for_each_backend() -> None:
    assert merged("0PRE1 0SVC2 0SEPA1 2POST1", "0PRE1 0SVC3 0SEPB1 2POST1") == (
        "0PRE1 0SVC2 0SEPA1 0SVC3 0SEPB1 2POST1"
    )


def test_a_rule_before_the_ones_that_are_known_of_its_chain() -> None:
    assert merged("0PRE1 0FW4 1FWD1", "0PRE1 0FW2 0EXT1 2POST1") == (
        "0PRE1 0FW2 0EXT1 0FW4 1FWD1 2POST1"
    )


def test_hooks_keep_their_order() -> None:
    assert merged("0PRE1 2POST1", "0OUT1 0SVC1 1FWD1 2POST2") == (
        "0PRE1 0OUT1 0SVC1 1FWD1 2POST1 2POST2"
    )


def test_the_same_way_again_changes_nothing() -> None:
    assert merged("0PRE1 0SVC1", "0PRE1 0SVC1") == "0PRE1 0SVC1"

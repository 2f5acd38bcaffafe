"""Every way a story can go, with its weight."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kptrace.simulate.branching import BranchPoints, enumerate_branches


def test_a_story_without_a_fork_is_told_once() -> None:
    told, left = enumerate_branches(lambda choices: "end")
    assert [(one.weight, one.certain, one.result) for one in told] == [(1.0, True, "end")]
    assert left == 0


def test_forks_inside_forks() -> None:
    def story(choices: BranchPoints) -> str:
        first = choices.pick([0.25, 0.75])
        return f"{first}" + (f"{choices.pick([1, 1])}" if first else "")

    told, _ = enumerate_branches(story)
    assert [(one.result, one.weight) for one in told] == [("0", 0.25), ("10", 0.375), ("11", 0.375)]


def test_what_cannot_be_is_not_told() -> None:
    told, _ = enumerate_branches(lambda choices: choices.pick([0.0, 1.0, 0.0]))
    assert [(one.result, one.weight) for one in told] == [(1, 1.0)]


def test_a_guess_is_uncertain_and_stays_the_same() -> None:
    def story(choices: BranchPoints) -> tuple[int, int, int]:
        return choices.guess("x"), choices.guess("x"), choices.guess("y")

    told, _ = enumerate_branches(story)
    assert sorted(one.result for one in told) == [(0, 0, 0), (0, 0, 1), (1, 1, 0), (1, 1, 1)]
    assert not any(one.certain for one in told)


def test_beyond_the_limit_is_weight() -> None:
    def story(choices: BranchPoints) -> int:
        return sum(choices.pick([1, 1]) for _ in range(10))

    told, left = enumerate_branches(story, limit=256)
    assert len(told) == 256
    assert left == pytest.approx(0.75)


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any), max_size=4))
def test_the_weights_sum_to_one(forks: list[list[int]]) -> None:
    def story(choices: BranchPoints) -> tuple[int, ...]:
        return tuple(choices.pick([float(w) for w in fork]) for fork in forks)

    told, left = enumerate_branches(story)
    assert sum(one.weight for one in told) + left == pytest.approx(1)
    assert len({one.result for one in told}) == len(told)

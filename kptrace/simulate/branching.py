"""Branches: where the kernel chooses by chance or a match cannot be evaluated.

A simulation is a plain function that asks ``BranchPoints.pick`` at each fork.
``enumerate_branches`` runs it again for every sequence of choices, depth first, so nothing has to
be copied or undone. The cost is the common beginning of the branches, which the ruleset has parsed
by then.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from kptrace.model import Value

T = TypeVar("T")

# more ways than a person or a probe can tell apart; what is left over is returned as weight
BRANCH_LIMIT = 4096


class BranchPoints:
    """The choices of one branch.

    weight: the probability of the choices so far
    certain: whether none of them was a guess
    """

    def __init__(self, script: Sequence[int] = ()) -> None:
        self._script = script
        self._memory: dict[Hashable, int] = {}
        self.taken: list[tuple[int, Sequence[float]]] = []
        self.weight = 1.0
        self.certain = True

    def pick(self, weights: Sequence[float]) -> int:
        """Return the index of one option; each option is taken in one branch, with its weight.

        Options of weight 0 are never taken.
        """
        total = sum(weights)
        position = len(self.taken)
        possible = [index for index, weight in enumerate(weights) if weight > 0]
        if len(possible) == 1:
            return possible[0]
        index = self._script[position] if position < len(self._script) else possible[0]
        self.taken.append((index, weights))
        self.weight *= weights[index] / total
        return index

    def guess(self, about: Hashable, options: int = 2) -> int:
        """Choose between options of which nobody can tell the right one; the branch is not certain.

        about: what is guessed; asked again with the same value, the answer is the same
        """
        self.certain = False
        if about not in self._memory:
            self._memory[about] = self.pick([1 / options] * options)
        return self._memory[about]

    def next_script(self) -> list[int] | None:
        """Return the choices of the next branch; None after the last one."""
        for position in range(len(self.taken) - 1, -1, -1):
            index, weights = self.taken[position]
            later = [i for i in range(index + 1, len(weights)) if weights[i] > 0]
            if later:
                return [*(choice for choice, _ in self.taken[:position]), later[0]]
        return None


class ExploredBranch(Value, Generic[T]):
    """The result of one branch, its probability, and whether no choice in it was a guess."""

    weight: float
    certain: bool
    result: T


def enumerate_branches(
    walk: Callable[[BranchPoints], T], limit: int = BRANCH_LIMIT
) -> tuple[list[ExploredBranch[T]], float]:
    """Run ``walk`` once for every branch.

    walk: called with the choices of one branch; its result is kept
    limit: the number of branches after which the rest is given up

    Returns the branches in the order of their choices, and the weight of those beyond the limit.
    """
    explored: list[ExploredBranch[T]] = []
    script: list[int] | None = []
    while script is not None and len(explored) < limit:
        choices = BranchPoints(script)
        result = walk(choices)
        explored.append(
            ExploredBranch(weight=choices.weight, certain=choices.certain, result=result)
        )
        script = choices.next_script()
    left = 0.0 if script is None else max(0.0, 1.0 - sum(branch.weight for branch in explored))
    return explored, left

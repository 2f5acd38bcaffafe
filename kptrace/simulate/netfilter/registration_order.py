"""The order of nat chains at one priority: the one registered later is asked first.

Its answer stands, so the order decides where two nat tables would both translate a packet. A saved
text does not tell which chain was registered later (legacy against nft), so where that matters,
both orders are simulated and the branch is uncertain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto

from kptrace.rules.model.ruleset import Chain


class ChainEffect(Enum):
    """What a nat chain would do with a packet, whichever way its own choices go."""

    NONE = auto()  # no rule matches
    MATCHES = auto()  # rules match, but the packet stays as it is
    DECIDES = auto()  # it translates or drops the packet in at least one branch


def in_order(
    chains: Sequence[Chain],
    effect_of: Callable[[Chain], ChainEffect],
    choose: Callable[[Sequence[Chain], Sequence[Chain]], int],
) -> list[Chain]:
    """Return the chains in the order in which the kernel asks them, without those that do nothing.

    chains: sorted by priority, the later registered first where their age is known
    effect_of: simulates a chain apart from the others; asked only where the age is not known
    choose: guesses which of the matching chains comes first; called with them and those of them
        that decide, where the order makes a difference
    """
    ordered: list[Chain] = []
    rest = [chain for chain in chains if len(chain.rules)]
    while rest:
        same = [chain for chain in rest if chain.priority == rest[0].priority]
        rest = rest[len(same) :]
        ordered += same if _age_is_known(same) else _guessed(same, effect_of, choose)
    return ordered


def _guessed(
    same: Sequence[Chain],
    effect_of: Callable[[Chain], ChainEffect],
    choose: Callable[[Sequence[Chain], Sequence[Chain]], int],
) -> list[Chain]:
    """The order matters where one chain decides and another one matches, too."""
    effects = [(chain, effect_of(chain)) for chain in same]
    matching = [chain for chain, effect in effects if effect is not ChainEffect.NONE]
    deciding = [chain for chain, effect in effects if effect is ChainEffect.DECIDES]
    if not deciding or len(matching) < 2:
        return matching
    first = choose(matching, deciding)
    return matching[first:] + matching[:first]


def _age_is_known(chains: Sequence[Chain]) -> bool:
    ages = {chain.age for chain in chains}
    nft = all(chain.table.backend == "nft" for chain in chains)
    return len(chains) == 1 or (nft and (0, 0) not in ages and len(ages) == len(chains))

"""What a rule's statement does beyond changing the packet: the effects that the hooks act on."""

from __future__ import annotations

import msgspec

from kptrace.model import StepAction, Value
from kptrace.rules.model.expressions import Verdict


class RejectEffect(Value):
    """REJECT: the packet ends here and its sender gets ``reply`` (``tcp reset``)."""

    reply: str


class NftBreak(Value):
    """A map has no such key: the rule ends as if a match had been false (NFT_BREAK)."""


Effect = Verdict | RejectEffect | NftBreak | None
ACCEPT = Verdict(kind="accept")


class RuleEffects(msgspec.Struct):
    """The most telling thing that the rule did; ``via_map``: names of the verdict maps it
    went by.
    """

    action: StepAction = "rule"
    via_map: tuple[str, ...] = ()

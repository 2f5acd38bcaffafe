"""What a rule's statement does beyond changing the packet: the effects that the walk acts on."""

from __future__ import annotations

import msgspec

from kptrace.model import StepAction, Value
from kptrace.rules.model.expressions import Verdict


class RejectEffect(Value):
    """REJECT: the packet ends here and its sender is told."""

    reply: str


class NftBreak(Value):
    """A map had no such key: the rule ends as if a match had been false (NFT_BREAK)."""


Effect = Verdict | RejectEffect | NftBreak | None
ACCEPT = Verdict(kind="accept")


class RuleEffects(msgspec.Struct):
    """The most telling thing that the rule did; ``via_map``: names of verdict maps it went by."""

    action: StepAction = "rule"
    via_map: tuple[str, ...] = ()

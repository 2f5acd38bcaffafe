"""Random cases: rules for one or several backends, and packets.

In: a seed. Out: rules by loader (as ``ground.LOADERS`` names them) and packets. The same seed gives
the same case on every machine.
"""

from __future__ import annotations

from random import Random

from differential import random_ipsets, random_iptables, random_nft
from differential.packets import Sent
from differential.random_packets import packet
from differential.words import Dice

# what stands in the namespace at the same time
_MIXES = (
    ("legacy",),
    ("nft-variant",),
    ("nft",),
    ("nft",),
    ("nft", "nft-variant"),
    ("legacy", "nft-variant"),
    ("legacy", "nft"),
    ("legacy", "nft-variant", "nft"),
)
_LOADERS = {
    ("legacy", 4): "iptables-legacy",
    ("legacy", 6): "ip6tables-legacy",
    ("nft-variant", 4): "iptables-nft",
    ("nft-variant", 6): "ip6tables-nft",
}


def rules(seed: int) -> tuple[dict[str, str], tuple[int, ...]]:
    """The rules, and the IP versions that they are about."""
    dice = Dice(Random(seed))
    mix = dice.random.choice(_MIXES)
    versions = dice.random.choice(((4,), (4,), (6,), (4, 6)))
    made: dict[str, str] = {}
    sets: dict[str, str] = {}
    for version in versions:
        if "nft" not in mix or len(mix) > 1:
            text, kinds = random_ipsets.sets(dice, version)
            made["ipset"] = made.get("ipset", "") + text
            sets |= kinds
        for part in mix:
            if part != "nft":
                made[_LOADERS[part, version]] = random_iptables.text(dice, version, sets)
    if "nft" in mix:
        made["nft"] = random_nft.text(dice, versions)
    return {loader: text for loader, text in made.items() if text}, versions


def packets(seed: int, versions: tuple[int, ...], count: int) -> list[Sent]:
    dice = Dice(Random(f"packets {seed}"))
    return [packet(dice, dice.number(versions)) for _ in range(count)]

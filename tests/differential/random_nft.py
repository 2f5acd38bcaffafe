"""Random rules in nft's own words, one command a line.

In: dice and the families of the packets. Out: a text for ``nft -f``. A table's sets and maps come
before its chains, chains before rules; user chains are of a side (``dst``, ``src``, ``filter``,
``edge``), so that what stands in them may stand there.
"""

from __future__ import annotations

from collections.abc import Sequence

from differential.nft_matches import MATCHES
from differential.nft_parts import Home, Spot, add_map, add_set
from differential.nft_statements import statement as statement_of
from differential.words import Dice

_SIDES = {
    "prerouting": "dst",
    "output": "dst",
    "input": "src",
    "postrouting": "src",
}
_NAT_PRIORITIES = {"dst": (-100, -101, -90, -100, -150), "src": (100, 101, 90, 100, 50)}
_FILTER_PRIORITIES = (-310, -300, -190, -150, -110, -10, 0, 0, 0, 10, 50, 150, 300)
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")


def text(dice: Dice, versions: Sequence[int]) -> str:
    lines: list[str] = []
    for number in range(dice.number((1, 1, 2, 3))):
        families = [
            *(("ip",) if 4 in versions else ()),
            *(("ip6",) if 6 in versions else ()),
            "inet",
        ]
        lines += _table(Home(dice.one(families), f"t{number}", dice))
    return "\n".join([*lines, ""])


def _table(home: Home) -> list[str]:
    dice, at = home.dice, f"{home.family} {home.name}"
    lines = [f"add table {at}"]
    for number in range(dice.random.randint(0, 5)):
        home.chains.append((f"u{number}", dice.one(("dst", "src", "filter", "filter", "edge"))))
    lines += [f"add chain {at} {name}" for name, _ in home.chains]
    for number in range(dice.random.randint(0, 4)):
        lines += add_set(home, f"s{number}")
    for number in range(dice.random.randint(0, 3)):
        lines += add_map(home, f"m{number}")
    if dice.chance(0.3):
        version = home.version()
        home.growing.append(("g0", version))
        lines.append(f"add set {at} g0 {{ type ipv{version}_addr; flags dynamic; size 1000; }}")
    rules: list[str] = []
    for number in range(dice.random.randint(1, 6)):
        hook, kind = dice.one(_HOOKS), dice.one(("filter", "filter", "nat", "nat", "route"))
        side = _SIDES.get(hook, "filter")
        if kind == "nat" and hook == "forward":
            kind = "filter"
        if kind == "route":
            hook, side = "output", "filter"
        if kind == "nat":
            priority = dice.number(_NAT_PRIORITIES[side])
        else:
            side = "edge" if hook in ("prerouting", "postrouting") else "filter"
            priority = dice.number(_FILTER_PRIORITIES)
        policy = "drop" if dice.chance(0.05) and kind != "nat" else "accept"
        name = f"b{number}"
        lines.append(
            f"add chain {at} {name} {{ type {kind} hook {hook} priority {priority}; "
            f"policy {policy}; }}"
        )
        later = [chain for chain, theirs in home.chains if theirs == side]
        rules += _rules(Spot(home, side, hook, later), name)
    for index, (name, side) in enumerate(home.chains):
        later = [chain for chain, theirs in home.chains[index + 1 :] if theirs == side]
        rules += _rules(Spot(home, side, "", later), name)
    return lines + rules


def _rules(spot: Spot, chain: str) -> list[str]:
    dice, at = spot.home.dice, f"{spot.home.family} {spot.home.name}"
    count = dice.number((1, 2, 3, 4))
    return [f"add rule {at} {chain} {rule(spot)}" for _ in range(count)]


def rule(spot: Spot) -> str:
    dice = spot.home.dice
    version = spot.home.version()
    protocol = dice.one(("", "", "tcp", "udp", "icmp"))
    drawn = dice.random.sample(MATCHES, dice.number((0, 1, 1, 2, 2, 3)))
    words = [made for make in dict.fromkeys(drawn) if (made := make(spot, version, protocol))]
    statement = statement_of(spot, version, protocol)
    if statement.startswith(("dnat", "snat")) and spot.home.family == "inet":
        words.insert(0, f"meta nfproto ipv{version}")
    if any(raw in f"{words} {statement}" for raw in (" th ", "'th ", "@th")) and dice.chance(0.9):
        words.insert(0, "meta l4proto { tcp, udp }")
    counts = dice.chance(0.2) or not words + [statement][: bool(statement)]
    return " ".join([*words, *(["counter"] if counts else []), statement]).strip()

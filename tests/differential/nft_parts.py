"""A table of nft's and a chain in it while they are made, and the keys of sets and maps."""

from __future__ import annotations

from collections.abc import Sequence

from differential.words import DEVICES, Dice


class Home:
    """A table while it is made.

    sets: name -> key types; maps: name -> (key types, data type); chains: name -> side
    """

    def __init__(self, family: str, name: str, dice: Dice) -> None:
        self.family, self.name, self.dice = family, name, dice
        self.sets: dict[str, tuple[str, ...]] = {}
        self.growing: list[tuple[str, int]] = []  # sets that rules add to, and nobody asks
        self.maps: dict[str, tuple[tuple[str, ...], str]] = {}
        self.chains: list[tuple[str, str]] = []

    def version(self) -> int:
        """The IP version of a rule."""
        if self.family == "inet":
            return self.dice.number((4, 6))
        return 6 if self.family == "ip6" else 4


class Spot:
    """A chain while its rules are made. later: chains of its own side that it may jump to."""

    def __init__(self, home: Home, side: str, hook: str, later: Sequence[str]) -> None:
        self.home, self.side, self.hook, self.later = home, side, hook, later


KEYS = (
    ("addr",),
    ("addr",),
    ("inet_service",),
    ("ifname",),
    ("mark",),
    ("inet_proto",),
    ("addr", "inet_proto", "inet_service"),
    ("addr", "inet_service"),
    ("addr", "addr"),
    ("inet_proto", "inet_service"),
)


def typed(types: tuple[str, ...], version: int) -> tuple[str, ...]:
    return tuple(f"ipv{version}_addr" if one == "addr" else one for one in types)


def add_set(home: Home, name: str) -> list[str]:
    dice, at = home.dice, f"{home.family} {home.name}"
    types = typed(dice.random.choice(KEYS), home.version())
    wide = dice.chance(0.4) and "ifname" not in types
    flags = (["interval"] if wide else []) + (["timeout"] if dice.chance(0.2) else [])
    options = f" flags {','.join(flags)};" if flags else ""
    options += " auto-merge;" if wide else ""
    home.sets[name] = types
    elements = distinct(
        [key(dice, types, wide and dice.chance(0.6)) for _ in range(dice.random.randint(0, 6))]
    )
    lines = [f"add set {at} {name} {{ type {' . '.join(types)};{options} }}"]
    for element in elements:
        timed = " timeout 1h" if "timeout" in flags and dice.chance(0.6) else ""
        lines.append(f"add element {at} {name} {{ {element}{timed} }}")
    return lines


def add_map(home: Home, name: str) -> list[str]:
    dice, at = home.dice, f"{home.family} {home.name}"
    version = home.version()
    types = typed(dice.random.choice(KEYS), version)
    data = dice.one(("verdict", "verdict", f"ipv{version}_addr", "mark", "inet_service", "both"))
    if data == "both":
        data = f"ipv{version}_addr . inet_service"
    home.maps[name] = (types, data)
    lines = [f"add map {at} {name} {{ type {' . '.join(types)} : {data}; }}"]
    for element in distinct([key(dice, types, False) for _ in range(dice.random.randint(0, 6))]):
        lines.append(f"add element {at} {name} {{ {element} : {_datum(home, data, version)} }}")
    return lines


def _datum(home: Home, data: str, version: int) -> str:
    dice = home.dice
    if data == "verdict":
        chains = [name for name, side in home.chains if side == "filter"]
        ways = ["accept", "drop", "return", "continue"]
        return dice.one([*ways, *(f"{dice.one(('jump', 'goto'))} {one}" for one in chains)])
    if data == "mark":
        return hex(dice.mark())
    if data == "inet_service":
        return str(dice.port())
    if " . " in data:
        return f"{dice.backend(version)} . {dice.port()}"
    return dice.backend(version)


def distinct(keys: list[str]) -> list[str]:
    return list(dict.fromkeys(keys))


def key(dice: Dice, types: tuple[str, ...], wide: bool) -> str:
    return " . ".join(_part(dice, one, wide) for one in types)


def _part(dice: Dice, kind: str, wide: bool) -> str:
    if kind.endswith("_addr"):
        version = 6 if kind == "ipv6_addr" else 4
        return dice.prefix(version) if wide else dice.address(version)
    if kind == "inet_service":
        low, high = dice.ports()
        return f"{low}-{high}" if wide and low < high else str(dice.port())
    if kind == "ifname":
        return f'"{dice.one(DEVICES)}"'
    if kind == "mark":
        return hex(dice.mark())
    return dice.one(("tcp", "udp"))

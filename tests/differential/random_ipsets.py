"""Random ipsets, as ``ipset restore`` takes them."""

from __future__ import annotations

from differential.words import CLIENTS, PODS, PORTS, SERVERS, SERVICES, Dice

_TYPES = (
    "hash:ip",
    "hash:net",
    "hash:ip,port",
    "hash:net,port",
    "hash:ip,port,ip",
    "hash:ip,port,net",
    "hash:net,iface",
    "bitmap:port",
)


def sets(dice: Dice, family: int) -> tuple[str, dict[str, str]]:
    """The text, and the type of each set by name."""
    lines, made = [], {}
    for number in range(dice.number((0, 1, 1, 2, 3))):
        kind, name = dice.one(_TYPES), f"s{family}-{number}"
        options = "" if kind.startswith("bitmap") else f" family inet{6 if family == 6 else ''}"
        if kind.startswith("bitmap"):
            options = " range 0-65535"
        if kind == "hash:ip" and dice.chance(0.2):
            options += f" netmask {24 if family == 4 else 64}"
        if dice.chance(0.2):
            options += " timeout 3600"
        lines.append(f"create {name} {kind}{options}")
        made[name] = kind
        for _ in range(dice.random.randint(0, 6)):
            lines.append(f"add {name} {_element(dice, family, kind)} -exist")
    if len(made) > 1 and dice.chance(0.3):
        same = [name for name, kind in made.items() if kind == next(iter(made.values()))]
        name = f"s{family}-list"
        lines.append(f"create {name} list:set size 8")
        lines += [f"add {name} {one}" for one in same]
        made[name] = made[same[0]]
    return "\n".join([*lines, ""]) if lines else "", made


def _element(dice: Dice, family: int, kind: str) -> str:
    storage, _, dimensions = kind.partition(":")
    parts, options = [], ""
    for dimension in dimensions.split(","):
        if dimension == "ip":
            parts.append(_address(dice, family))
        elif dimension == "net":
            parts.append(dice.prefix(family).replace("0.0.0.0/1", "10.0.0.0/9"))
        elif dimension == "iface":
            parts.append(dice.device())
        elif storage == "bitmap":
            low, high = dice.ports()
            parts.append(dice.one((str(dice.port()), f"{low}-{min(high, low + 500)}")))
        else:
            parts.append(f"{dice.one(('tcp', 'udp'))}:{dice.number(PORTS)}")
    if "net" in dimensions and dice.chance(0.2):
        options = " nomatch"
    return ",".join(parts) + options


def _address(dice: Dice, family: int) -> str:
    return dice.one(dice.random.choice((CLIENTS, SERVERS, PODS, SERVICES))[family])

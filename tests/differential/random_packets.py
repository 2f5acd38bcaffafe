"""Random packets through the ground, to it and from it."""

from __future__ import annotations

from differential.packets import Sent
from differential.plan import ENDS, ROUTER
from differential.words import ASTRAY, OWN, PODS, PORTS, SERVERS, SERVICES, Dice

_STARTS = ("client",) * 4 + ("pod-a", "pod-b", "server") + (ROUTER,) * 3
_FLAGS = ("",) * 12 + ("A", "SA", "FA", "RA", "PA")
_POOLS = (SERVICES,) * 5 + (SERVERS,) * 3 + (PODS, OWN, OWN, ASTRAY)


def packet(dice: Dice, family: int) -> Sent:
    start = dice.one(_STARTS)
    own = addresses(start, family)
    dst = dice.one(dice.random.choice(_POOLS)[family])
    while start != ROUTER and dst in own:
        dst = dice.one(dice.random.choice(_POOLS)[family])
    protocol = dice.one(("tcp", "tcp", "udp", "udp", "icmp" if family == 4 else "icmpv6"))
    return Sent(
        start=start,
        protocol=protocol,
        src=dice.one(own),
        dst=dst,
        sport=dice.sport(),
        dport=dice.number((*PORTS, 53)),
        mark=dice.mark() if start == ROUTER and dice.chance(0.2) else 0,
        ttl=64 if dice.chance(0.9) else dice.number((1, 2, 32, 255)),
        flags=dice.one(_FLAGS) if protocol == "tcp" and start != ROUTER else "",
        size=8 if dice.chance(0.7) else dice.number((20, 100, 500)),
    )


def addresses(start: str, family: int) -> list[str]:
    """What a packet from there can have as its source."""
    if start == ROUTER:
        return list(OWN[family])
    texts = [text.split("/")[0] for text in ENDS[start].addresses]
    return [text for text in texts if (":" in text) == (family == 6)]

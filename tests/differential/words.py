"""What random rules and packets are made of: few addresses, ports and marks, so that they meet.

In: a random generator. Out: words. Both languages and the packets draw from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from differential.plan import ENDS

CLIENTS = {4: ("10.1.0.2", "10.1.0.3", "192.0.2.9"), 6: ("fd01::2", "fd01::3")}
SERVERS = {
    4: ("10.2.0.2", "10.2.0.3", "10.2.0.4", "10.2.0.5"),
    6: ("fd02::2", "fd02::3", "fd02::4", "fd02::5"),
}
PODS = {4: ("10.3.0.2", "10.3.0.3"), 6: ("fd03::2", "fd03::3")}
OWN = {4: ("10.1.0.1", "10.2.0.1", "10.2.0.7", "10.3.0.1"), 6: ("fd01::1", "fd02::1", "fd03::1")}
SERVICES = {4: ("10.96.0.1", "10.96.0.2", "10.96.0.3"), 6: ("fd96::1", "fd96::2", "fd96::3")}
ASTRAY = {4: ("198.51.100.1", "203.0.113.1"), 6: ("2001:db8::1",)}
PORTS = (80, 443, 5353, 8080, 9090, 30080)
SPORTS = tuple(range(20000, 20016))
MARKS = (0x1, 0x2, 0x3, 0x10, 0x20, 0x21, 0x4000, 0x8000, 0xC000)
MASKS = (0x1, 0x3, 0xF, 0xFF, 0x20, 0x4000, 0xC000, 0xFFFF, 0xFFFFFFFF)
DEVICES = ("vc", "vs", "br0", "lo", "pa", "pb")
PREFIXES = {
    4: ("10.1.0.0/16", "10.2.0.0/24", "10.3.0.0/24", "10.96.0.0/12", "10.0.0.0/8", "10.2.0.4/31",
        "192.0.2.0/24", "0.0.0.0/1", "10.2.0.2/32"),
    6: ("fd01::/64", "fd02::/16", "fd03::/64", "fd96::/112", "fc00::/7", "fd02::4/127", "::/1"),
}  # fmt: skip
POOLS = (CLIENTS, SERVERS, SERVERS, PODS, OWN, SERVICES, SERVICES, SERVICES)


class Dice:
    """Random, with the words of a language."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def one(self, choices: Sequence[str]) -> str:
        return self.random.choice(choices)

    def number(self, choices: Sequence[int]) -> int:
        return self.random.choice(choices)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def some(self, choices: Sequence[str], least: int = 1, most: int = 3) -> list[str]:
        count = min(len(choices), self.random.randint(least, most))
        return self.random.sample(list(choices), count)

    def address(self, family: int) -> str:
        return self.one(self.random.choice(POOLS)[family])

    def prefix(self, family: int) -> str:
        return self.one(PREFIXES[family])

    def backend(self, family: int) -> str:
        """Where a packet can be sent and is answered."""
        return self.one((SERVERS, SERVERS, PODS, OWN)[self.random.randrange(4)][family])

    def source(self, family: int) -> str:
        """What a packet's source can become so that the answer still finds the router."""
        return self.one(OWN[family])

    def span(self, family: int) -> tuple[str, str]:
        pool = self.random.choice((SERVERS, SERVICES))[family]
        low = self.random.randrange(len(pool))
        return pool[low], pool[self.random.randrange(low, len(pool))]

    def port(self) -> int:
        return self.number(PORTS)

    def ports(self) -> tuple[int, int]:
        low, high = sorted((self.number(PORTS), self.number((*PORTS, 65535, 1024))))
        return low, high

    def sport(self) -> int:
        return self.number(SPORTS)

    def mark(self) -> int:
        return self.number(MARKS)

    def mask(self) -> int:
        return self.number(MASKS)

    def device(self) -> str:
        return self.one(DEVICES)

    def mac(self) -> str:
        return self.one([end.mac for end in ENDS.values()])

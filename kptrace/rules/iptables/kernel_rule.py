"""One iptables rule as the kernel holds it -> the line that iptables-save prints.

In: what legacy tables and iptables-nft's expressions have in common: the options that every rule
has, matches, a target. Out: the text behind ``-A CHAIN``, in iptables-save's order (print_rule4):
addresses, interfaces, protocol, fragment, then the matches, then the target.

A match or target that is not understood is written with its revision and its bytes,
``-m NAME --revision N --info HEX``; ``parse_rule.py`` keeps that as opaque text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kptrace.rules.byte_reader import ByteReader, TruncatedData, address, prefix_length, unhex
from kptrace.rules.iptables.kernel_matches import is_state, match_words
from kptrace.rules.iptables.kernel_targets import target_words
from kptrace.rules.iptables.options import Unknown
from kptrace.rules.iptables.save_format import IpsetName, Words, option

CORE = ("-s", "-d", "-i", "-o", "-p", "-f")
VERDICTS = {0: "DROP", 1: "ACCEPT", 3: "QUEUE", -5: "RETURN"}
_JUMP, _GOTO = -3, -4


class NotIptablesError(Exception):
    """What iptables would not write, so the rule is not its own."""


class KernelRule:
    """Filled by a reader, then printed. ``chain``: where the target leads, if to a chain."""

    def __init__(self, family: str, ipset: IpsetName) -> None:
        self.family, self._ipset = family, ipset
        self.core: dict[str, Words] = {}
        self.matches: list[Callable[[], Words]] = []
        self.target: Words = []
        self.chain = ""

    def text(self) -> str:
        words = [word for name in CORE for word in self.core.get(name, ())]
        words += [word for match in self.matches for word in match()]
        return " ".join([*words, *self.target])

    def option(self, name: str, value: str, negated: bool) -> None:
        if name in self.core:
            raise NotIptablesError(f"{name} twice")
        self.core[name] = option(negated, name, *([value] if value else []))

    def match(self, given: Mapping[str, Any]) -> None:
        words = self._match(str(given["name"]), int(given["rev"]), str(given["info"]))
        self.matches.append(lambda: words)

    def _match(self, name: str, revision: int, info: str) -> Words:
        try:
            blob = ByteReader(unhex(info), self.family)
            words = match_words(name, revision, blob, self._ipset)
            if name == "conntrack" and is_state(blob):
                name = "state"
            return ["-m", name, *words]
        except (Unknown, TruncatedData, ValueError):
            return ["-m", name, *_raw(revision, info)]

    def jump(self, code: int, chain: str = "") -> None:
        if code in (_JUMP, _GOTO) and chain:
            self.target, self.chain = ["-j" if code == _JUMP else "-g", chain], chain
        elif code in VERDICTS:
            self.target = ["-j", VERDICTS[code]]
        else:
            raise NotIptablesError(f"verdict {code}")

    def call(self, given: Mapping[str, Any]) -> None:
        """A target of its own."""
        name, revision, info = str(given["name"]), int(given["rev"]), str(given["info"])
        try:
            blob = ByteReader(unhex(info), self.family)
            self.target = ["-j", *target_words(name, revision, blob, self._ipset)]
        except (Unknown, TruncatedData, ValueError):
            self.target = ["-j", name, *_raw(revision, info)]


def _raw(revision: int, info: str) -> Words:
    return ["--revision", str(revision), "--info", info]


def protocol_name(number: int) -> str:
    return PROTOCOL_NAMES.get(number, str(number))


# getprotobynumber(3), as /etc/protocols has it everywhere (proto_to_name)
PROTOCOL_NAMES = {
    1: "icmp",
    2: "igmp",
    4: "ipencap",
    6: "tcp",
    17: "udp",
    33: "dccp",
    41: "ipv6",
    43: "ipv6-route",
    44: "ipv6-frag",
    46: "rsvp",
    47: "gre",
    50: "esp",
    51: "ah",
    58: "ipv6-icmp",
    59: "ipv6-nonxt",
    60: "ipv6-opts",
    88: "eigrp",
    89: "ospf",
    94: "ipip",
    97: "etherip",
    98: "encap",
    103: "pim",
    108: "ipcomp",
    112: "vrrp",
    115: "l2tp",
    132: "sctp",
    135: "mobility-header",
    136: "udplite",
    137: "mpls-in-ip",
}


def address_text(raw: bytes, mask: bytes) -> str:
    """``ADDRESS/LENGTH``, or with the whole mask if that has holes."""
    length = prefix_length(mask)
    return f"{address(raw)}/{address(mask) if length is None else length}"

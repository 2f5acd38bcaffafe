"""Write an iptables rule that was read from the kernel as iptables-save prints it.

The readers of legacy tables and of iptables-nft fill a KernelRule; its text has the order of
iptables-save (print_rule4): addresses, interfaces, protocol, fragment, matches, target.

A match or target that is not understood is written with its revision and its bytes,
``-m NAME --revision N --info HEX``; ``parse_rule.py`` keeps that as opaque text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kptrace.rules.byte_reader import (
    ByteReader,
    TruncatedData,
    address_text,
    decode_hex,
    prefix_length,
)
from kptrace.rules.iptables.kernel_matches import is_state, match_args
from kptrace.rules.iptables.kernel_targets import target_args
from kptrace.rules.iptables.options import Unknown
from kptrace.rules.iptables.save_format import Args, IpsetName, option

CORE = ("-s", "-d", "-i", "-o", "-p", "-f")
VERDICTS = {0: "DROP", 1: "ACCEPT", 3: "QUEUE", -5: "RETURN"}
_JUMP, _GOTO = -3, -4


class NotIptablesError(Exception):
    """The expressions are not what iptables-nft writes, so the rule is one of nft's own."""


class KernelRule:
    """A rule that a reader fills part by part. ``chain``: the chain that it jumps to, if any."""

    def __init__(self, family: str, ipset: IpsetName) -> None:
        self.family, self._ipset = family, ipset
        self.core: dict[str, Args] = {}
        self.matches: list[Callable[[], Args]] = []
        self.target: Args = []
        self.chain = ""

    def text(self) -> str:
        """The rule as iptables-save prints it after ``-A CHAIN``."""
        args = [word for name in CORE for word in self.core.get(name, ())]
        args += [word for match in self.matches for word in match()]
        return " ".join([*args, *self.target])

    def option(self, name: str, value: str, negated: bool) -> None:
        if name in self.core:
            raise NotIptablesError(f"{name} twice")
        self.core[name] = option(negated, name, *([value] if value else []))

    def match(self, expression: Mapping[str, Any]) -> None:
        args = self._match(str(expression["name"]), int(expression["rev"]), str(expression["info"]))
        self.matches.append(lambda: args)

    def _match(self, name: str, revision: int, info: str) -> Args:
        try:
            blob = ByteReader(decode_hex(info), self.family)
            args = match_args(name, revision, blob, self._ipset)
            if name == "conntrack" and is_state(blob):
                name = "state"
            return ["-m", name, *args]
        except (Unknown, TruncatedData, ValueError):
            return ["-m", name, *_raw(revision, info)]

    def jump(self, code: int, chain: str = "") -> None:
        if code in (_JUMP, _GOTO) and chain:
            self.target, self.chain = ["-j" if code == _JUMP else "-g", chain], chain
        elif code in VERDICTS:
            self.target = ["-j", VERDICTS[code]]
        else:
            raise NotIptablesError(f"verdict {code}")

    def call(self, expression: Mapping[str, Any]) -> None:
        """Set a target that is no verdict."""
        name, revision, info = (
            str(expression["name"]),
            int(expression["rev"]),
            str(expression["info"]),
        )
        try:
            blob = ByteReader(decode_hex(info), self.family)
            self.target = ["-j", *target_args(name, revision, blob, self._ipset)]
        except (Unknown, TruncatedData, ValueError):
            self.target = ["-j", name, *_raw(revision, info)]


def _raw(revision: int, info: str) -> Args:
    return ["--revision", str(revision), "--info", info]


def protocol_name(number: int) -> str:
    """A protocol's name as iptables prints it, else its number."""
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


def address_and_mask(raw: bytes, mask: bytes) -> str:
    """``ADDRESS/LENGTH``, or with the whole mask if that has holes."""
    length = prefix_length(mask)
    return f"{address_text(raw)}/{address_text(mask) if length is None else length}"

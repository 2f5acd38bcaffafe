"""Rules and elements that may match, told from the others by their bytes.

In: a rule or an element as the kernel sends it. Out: whether it is out of the question. To take
each of 10,000 apart would cost more than all else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address
from struct import pack, unpack_from

from kptrace.agent.netlink import socket as netlink
from kptrace.agent.netlink.socket import attribute_list, be32, text

_PURE = ("meta", "cmp", "payload", "bitwise")


class DestinationPrefilter:
    """Tells rules that begin with a comparison with another single destination address.

    Before it may stand other comparisons (iptables-nft puts interfaces and the protocol first),
    but nothing that acts. Looks at bytes: of 10,000 rules all but a few begin as one that was taken
    apart before.
    """

    def __init__(self, address: str) -> None:
        self._wanted = ip_address(address).packed
        size = len(self._wanted)
        load = be32(2, _NETWORK) + be32(3, _DESTINATIONS[size]) + be32(4, size)
        head = pack("=HH", size + 4, 1)
        self._pattern = re.compile(
            rb"%s.{12}%s.{4}%s.{12}%s%s.{2}%s(.{%d})"
            % (
                re.escape(text(1, "payload")),  # then its data and its register
                re.escape(load),
                re.escape(text(1, "cmp")),
                re.escape(be32(2, _EQUAL)),
                re.escape(pack("=H", size + 8)),
                re.escape(head),
                size,
            ),
            re.DOTALL,
        )
        self._begun: dict[bytes, None] = {}
        self._begins_so: Callable[[bytes], object] = _NEVER

    def elsewhere(self, rule: bytes) -> bool:
        if self._begins_so(rule):
            return True
        match = self._pattern.search(rule)
        if match is None or not _only_compares(rule[_expressions(rule) : match.start() - 4]):
            return False
        if len(self._begun) < _FEW_BEGINNINGS:
            self._begun[_beginning(rule[: match.start(1)])] = None
            other = rb"(?:%s)(?!%s)" % (b"|".join(self._begun), re.escape(self._wanted))
            self._begins_so = re.compile(other, re.DOTALL).match
        return match[1] != self._wanted


_NEVER = re.compile(b"(?!)").match
_BODY = 4  # nfgenmsg
_NETWORK, _EQUAL = 1, 0
_DESTINATIONS = {4: 16, 16: 24}


_FEW_BEGINNINGS = 16
_NUMBERED = (3, 6)  # its own handle, and that of the rule before it


def _beginning(rule: bytes) -> bytes:
    """A pattern for what begins as this does, whatever the handles and the length are."""
    at, parts = _BODY, [re.escape(rule[:_BODY])]
    while at + 4 <= len(rule):
        size, kind = unpack_from("=HH", rule, at)
        if kind & _KIND == _RULE_EXPRESSIONS or size < 4:
            break
        end = at + size + -size % 4
        hole = b".{%d}" % (end - at - 4)
        numbered = kind & _KIND in _NUMBERED
        parts += [re.escape(rule[at : at + 4]), hole if numbered else re.escape(rule[at + 4 : end])]
        at = end
    return b"".join((*parts, b"..", re.escape(rule[at + 2 :])))


def _expressions(rule: bytes) -> int:
    """Where they begin."""
    at = _BODY
    while at + 4 <= len(rule):
        size, kind = unpack_from("=HH", rule, at)
        if kind & _KIND == _RULE_EXPRESSIONS or size < 4:
            break
        at += size + -size % 4
    return at + 4


def _only_compares(before: bytes) -> bool:
    return all(
        netlink.string(netlink.attributes(data).get(1)) in _PURE
        for _, data in attribute_list(before)
    )


_KIND, _RULE_EXPRESSIONS = 0x3FFF, 4


class KeyPrefilter:
    """Tells elements by a key of which some bytes are open: two dots for each of them.

    holding: what all that it may mean have in common
    """

    def __init__(self, key: str) -> None:
        pairs = [key[at : at + 2] for at in range(0, len(key), 2)]
        parts = [b"." if pair == ".." else re.escape(bytes.fromhex(pair)) for pair in pairs]
        self._pattern = re.compile(b"".join(parts), re.DOTALL)
        runs = (bytes.fromhex(run) for run in key.replace("..", " ").split())
        self.holding = max(runs, key=len, default=b"")

    def may_hold(self, element: bytes) -> bool:
        return bool(self._pattern.search(element))

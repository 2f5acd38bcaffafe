"""The kernel's rule trace for nf_tables (nft and iptables-nft): events -> RuleHit.

In: a place. Out: every rule, chain end and policy that a marked packet met, in order.

NFNLGRP_NFTRACE tells only what matched, by table, chain and rule handle. The headers come with
the first event of each base chain's walk only, so whose packet it is is learned there by the
trace id; ids change across DNAT, but then the next base chain shows headers again. The outer
packet of a tunnel shows no inner bytes; it is taken for ours because only our marker traces it.

A handle becomes the rule's place in its chain (the n-th ``-A`` line of iptables-save) by listing
that one chain; the ruleset's generation tells whether that listing still holds.
The end of a chain is type 2 on older kernels and type 3 without a handle on newer ones.
"""

from __future__ import annotations

import errno
import itertools
import socket
import time
from collections.abc import Iterator
from typing import Literal

from kptrace.agent.netlink import socket as netlink
from kptrace.agent.netlink.socket import NetlinkSocket, attributes, messages, number, string
from kptrace.agent.nftables import trace_table
from kptrace.model import Netns, Packet, RuleTraceEvent
from kptrace.packet.headers import GENEVE_PORT, VXLAN_PORTS, dissect
from kptrace.packet.probe_id import ProbeMatcher

_GROUP = 9  # NFNLGRP_NFTRACE
_TRACE, _GETRULE, _NEWRULE, _GETGEN = 0x0A11, 0x0A07, 0x0A06, 0x0A10
_POLICY = 1
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_VERDICTS = {
    0: "drop",
    1: "accept",
    2: "stolen",
    3: "queue",
    -1: "continue",
    -2: "break",
    -3: "jump",
    -4: "goto",
    -5: "return",
}
_RECEIVE = 1 << 16
_MAX_IDS = 65536
_SEQUENCE = itertools.count(1)  # of the process: what one watch told comes before the next's


class HandleToIndex:
    """Rule handles -> 1-based places in their chains."""

    def __init__(self) -> None:
        """To be called inside the namespace."""
        self._conversation = NetlinkSocket()
        self._generation = -1
        self._chains: dict[tuple[int, str, str], dict[int, int]] = {}

    def find(self, family: int, table: str, chain: str, handle: int) -> int:
        """0: the rule is gone."""
        try:
            return self._chain(family, table, chain).get(handle, 0)
        except OSError:
            return 0

    def _chain(self, family: int, table: str, chain: str) -> dict[int, int]:
        key = (family, table, chain)
        while True:
            before = self._current()
            if before != self._generation:
                self._chains.clear()
                self._generation = before
            if key in self._chains:
                return self._chains[key]
            listed = self._list(family, table, chain)
            if self._current() == before:
                self._chains[key] = listed

    def _current(self) -> int:
        answers = self._conversation.ask(_GETGEN, netlink.netfilter(0))
        return number(attributes(answers[0].body[4:]).get(1)) if answers else 0

    def _list(self, family: int, table: str, chain: str) -> dict[int, int]:
        body = netlink.netfilter(family, netlink.text(1, table), netlink.text(2, chain))
        answers = self._conversation.ask(_GETRULE, body, netlink.DUMP)
        rules = [attributes(a.body[4:]) for a in answers if a.type == _NEWRULE]
        return {number(rule.get(3)): n for n, rule in enumerate(rules, 1)}

    def close(self) -> None:
        self._conversation.close()


class NftTracer:
    layer = "rules"

    def __init__(self, netns: Netns) -> None:
        """To be called inside the namespace."""
        self.place = netns
        self._names = dict(socket.if_nameindex())
        self._socket = netlink.listen(_GROUP)
        self._numbers = HandleToIndex()
        self._ours: dict[int, None] = {}
        self._lost = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> list[bytes]:
        """All that is queued."""
        queued: list[bytes] = []
        while True:
            try:
                queued.append(self._socket.recv(_RECEIVE))
            except BlockingIOError:
                return queued
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    return queued
                self._lost += 1  # the kernel does not say how many

    def tell(self, queued: list[bytes], recogniser: ProbeMatcher) -> Iterator[RuleTraceEvent]:
        for event in (event for data in queued for event in messages(data)):
            hit = self._hit(event, recogniser) if event.type == _TRACE else None
            if hit:
                yield hit

    def _hit(self, event: netlink.Message, recogniser: ProbeMatcher) -> RuleTraceEvent | None:
        attrs = attributes(event.body[4:])
        table, chain, trace_id = string(attrs.get(1)), string(attrs.get(2)), number(attrs.get(6))
        packet = self._packet(attrs, trace_id, recogniser)
        if trace_id not in self._ours or trace_table.is_own(table):
            return None
        family = event.body[0]
        handle = number(attrs[3]) if 3 in attrs else None
        verdict = attributes(attrs.get(5, b""))
        code = number(attrs.get(16)) if 16 in attrs else number(verdict.get(1))
        return RuleTraceEvent(
            netns=self.place,
            backend="nft",
            family=_FAMILIES.get(family, str(family)),
            table=table,
            chain=chain,
            number=self._numbers.find(family, table, chain, handle) if handle is not None else 0,
            kind=_kind(number(attrs.get(4)), handle),
            sequence=next(_SEQUENCE),
            time_ns=time.time_ns(),
            handle=handle,
            verdict=_VERDICTS.get(_signed(code), str(code)),
            target=string(verdict.get(2)),
            mark=number(attrs.get(14)),
            iif=self._name(attrs.get(10)),
            oif=self._name(attrs.get(12)),
            trace_id=trace_id,
            packet=packet,
        )

    def _packet(
        self, attrs: dict[int, bytes], trace_id: int, recogniser: ProbeMatcher
    ) -> Packet | None:
        """The packet, where the event shows it; and note the id if it is ours."""
        seen = dissect(attrs[8] + attrs.get(9, b"")) if 8 in attrs else None
        if seen is None:
            return None
        if recogniser.recognise(seen) is not None or _is_tunnel(seen.packet):
            self._ours[trace_id] = None
            if len(self._ours) > _MAX_IDS:
                del self._ours[next(iter(self._ours))]
        return seen.packet

    def _name(self, value: bytes | None) -> str:
        if value is None:
            return ""
        index = number(value)
        return self._names.get(index, str(index))

    def lost(self) -> int:
        return self._lost

    def close(self) -> None:
        self._socket.close()
        self._numbers.close()


def _kind(event: int, handle: int | None) -> Literal["rule", "return", "policy"]:
    if event == _POLICY:
        return "policy"
    return "return" if handle is None else "rule"


def _is_tunnel(packet: Packet) -> bool:
    flow = packet.flow
    return flow.protocol in ("ipip", "ipv6") or (
        flow.protocol == "udp" and (flow.dport in VXLAN_PORTS or flow.dport == GENEVE_PORT)
    )


def _signed(code: int) -> int:
    return code - (1 << 32) if code >> 31 else code

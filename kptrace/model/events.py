"""What the kernel reported of a probe: packets, rules, drops, conntrack entries."""

from __future__ import annotations

from typing import Literal

from kptrace.model.base import Value
from kptrace.model.netns import Netns
from kptrace.model.packet import Flow, Packet


class Probe(Value):
    """A packet or connection that is sent.

    probe_id: the TCP sequence number of the SYN, or in the first 21 bytes of the UDP payload
        (packet/probe_id.py), so the packet is known again after NAT and encapsulation
    ttl: the initial TTL (0: the kernel's own)
    """

    probe_id: int
    flow: Flow
    ttl: int = 0
    payload: bytes = b""


class CapturedPacket(Value, tag="captured-packet"):
    """A packet tap saw the probe or its reply. ``frame``: what was captured, from the IP header."""

    netns: Netns
    interface: str
    ifindex: int
    direction: Literal["in", "out"]
    packet: Packet
    time_ns: int
    probe_id: int
    other_host: bool = False
    dst_mac: str = ""
    frame: bytes = b""


class RuleTraceEvent(Value, tag="rule-trace-event"):
    """A rule (or policy) that the probe matched, by the kernel's rule trace.

    kind: ``rule``; ``return`` (fell off the end or returned); ``policy``
    verdict: accept, drop, jump, goto, return, continue, stolen, queue; empty for legacy rules
    sequence: order of arrival on this namespace's trace socket
    packet: only on the first event of a base chain's walk (nft) or on every event (legacy)
    """

    netns: Netns
    backend: Literal["legacy", "nft"]
    family: str
    table: str
    chain: str
    number: int
    kind: Literal["rule", "return", "policy"]
    sequence: int
    time_ns: int
    handle: int | None = None
    verdict: str = ""
    target: str = ""
    mark: int = 0
    iif: str = ""
    oif: str = ""
    trace_id: int = 0
    packet: Packet | None = None


class DropEvent(Value, tag="drop-event"):
    """The kernel dropped the probe: reason and function as the kernel names them.

    netns, interface: where, if the report says it (a BPF report does, tracefs knows only the node)
    """

    node: str
    reason: str
    location: str
    time_ns: int
    netns: Netns | None = None
    interface: str = ""
    packet: Packet | None = None


_PASSING = ("SYN_SENT", "FIN_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "CLOSE_WAIT")


class ConntrackEntry(Value, tag="conntrack"):
    """A conntrack entry of the probe: ``reply.src`` shows the DNAT, ``reply.dst`` the SNAT."""

    netns: Netns
    original: Flow
    reply: Flow
    status: tuple[str, ...] = ()
    state: str = ""
    mark: int = 0

    @property
    def lasts(self) -> bool:
        """Whether it neither ends by itself nor is a TCP connection that nobody answered."""
        return self.state not in _PASSING and "DYING" not in self.status


class EventsLost(Value, tag="events-lost"):
    """A source lost events: what it did not report may have happened."""

    netns: Netns
    source: str
    count: int


class ProbeResult(Value, tag="probe-result"):
    """What the sender itself experienced.

    result: connected, replied, refused, unreachable, timeout, sent, failed
    """

    probe_id: int
    flow: Flow
    result: Literal["connected", "replied", "refused", "unreachable", "timeout", "sent", "failed"]
    sent_ns: int
    elapsed_us: int
    error: str = ""
    data: bytes = b""

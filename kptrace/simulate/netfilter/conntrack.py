"""Connections: what conntrack remembers of the first packet and does to those that follow.

The first packet's translation is applied to the packets of its connection and reversed for the
answers (nf_nat_packet: in the reply's direction the manips change sides, so un-SNAT happens in
prerouting and un-DNAT in postrouting).

``reply`` is the tuple that the answer will carry; NAT changes nothing but that (nf_nat_setup_info).
"""

from __future__ import annotations

import msgspec

from kptrace.model import Flow, Packet


class Connection(msgspec.Struct):
    """A conntrack entry.

    mark: None: not known
    dnat, snat: whether that side is translated
    dnat_done, snat_done: whether the nat chains of that side were asked
    """

    original: Flow
    reply: Flow
    mark: int | None = 0
    zone: int = 0
    dnat: bool = False
    snat: bool = False
    dnat_done: bool = False
    snat_done: bool = False
    confirmed: bool = False
    replied: bool = False

    @property
    def translated(self) -> Flow:
        """The first packet's flow once all its translation is done."""
        return self.reply.reverse

    @property
    def status(self) -> frozenset[str]:
        flags = {
            "snat": self.snat,
            "dnat": self.dnat,
            "confirmed": self.confirmed,
            "seen-reply": self.replied,
        }
        return frozenset(name for name, is_set in flags.items() if is_set)

    def set_destination(self, dst: str, dport: int) -> None:
        self.dnat = self.dnat or (dst, dport) != (self.reply.src, self.reply.sport)
        self.reply = msgspec.structs.replace(self.reply, src=dst, sport=dport)

    def set_source(self, src: str, sport: int) -> None:
        self.snat = self.snat or (src, sport) != (self.reply.dst, self.reply.dport)
        self.reply = msgspec.structs.replace(self.reply, dst=src, dport=sport)


class SkbConntrack(msgspec.Struct):
    """A packet's place in its connection. ``related``: it is an error about a packet of that."""

    connection: Connection
    direction: str = "original"
    related: bool = False

    @property
    def state(self) -> str:
        if self.related:
            return "related"
        if self.direction == "reply" or self.connection.replied:
            return "established"
        return "new"

    def destination(self) -> tuple[str, int]:
        """Return the (address, port) that the packet is sent to after translation, in its
        direction.
        """
        entry = self.connection
        if self.direction == "original":
            return entry.reply.src, entry.reply.sport
        return entry.original.src, entry.original.sport

    def source(self) -> tuple[str, int]:
        """Return the (address, port) that the packet comes from after translation, in its
        direction.
        """
        entry = self.connection
        if self.direction == "original":
            return entry.reply.dst, entry.reply.dport
        return entry.original.dst, entry.original.dport


class Conntrack(msgspec.Struct):
    """The connections of one namespace. Only confirmed ones are found again."""

    entries: list[Connection] = msgspec.field(default_factory=list)

    def track(self, packet: Packet, zone: int = 0) -> SkbConntrack | None:
        """Return the packet's place in its connection, a new one or a known one.

        None where it belongs to no connection and cannot begin one (invalid).
        """
        flow = packet.flow
        for entry in self.entries:
            if entry.zone != zone:
                continue
            # without ports a packet to oneself looks like its answer; ICMP's type tells them apart
            if entry.original == flow and not _is_icmp_reply(packet):
                return SkbConntrack(entry)
            if entry.reply == flow:
                entry.replied = True
                return SkbConntrack(entry, "reply")
        begun = Connection(original=flow, reply=flow.reverse, zone=zone)
        return SkbConntrack(begun) if _may_begin_connection(packet) else None

    def confirm(self, entry: Connection) -> None:
        if not entry.confirmed:
            entry.confirmed = True
            self.entries.append(entry)


def _is_icmp_reply(packet: Packet) -> bool:
    return packet.icmp is not None and packet.icmp[0] in (0, 129)


def _may_begin_connection(packet: Packet) -> bool:
    """Whether the packet may be a connection's first, as tcp_new() and icmp_new() decide.

    These are a SYN, and an ACK of a connection that is older than the table.
    """
    if packet.flow.protocol == "tcp" and packet.flags:
        flags = set(packet.flags)
        return not flags & {"R", "F"} and ("S" in flags) != ("A" in flags)
    if packet.icmp is not None:
        return packet.icmp[0] in _ICMP_REQUESTS.get(packet.flow.protocol, ())
    return True


_ICMP_REQUESTS = {"icmp": (8, 13, 15, 17), "icmpv6": (128, 139)}

"""A packet on its way, with what the kernel keeps beside it (``struct sk_buff``)."""

from __future__ import annotations

import msgspec

from kptrace.model import Flow, Netns, Packet
from kptrace.model.family import Family
from kptrace.simulate.netfilter.conntrack import SkbConntrack
from kptrace.simulate.snapshot.network import Link, Nexthop

_MARK = "meta mark"


class Skb(msgspec.Struct):
    """A packet in one namespace, with what the kernel keeps beside it; the simulation changes it.

    physin, physout: bridge ports, while br_netfilter passes the frame through the IP hooks
    hop: where the route sends it
    mac: the frame's destination; empty: unknown
    inner_mac: the destination of the frame that a tunnel's packet carries
    toward: who has ``mac``, where known
    unseen: it goes to a pod whose namespace was not read
    prerouted: PREROUTING was run on the bridge already
    unknown: fields (``meta mark``) that were set to something that cannot be computed
    socket: the (address, port) that a TPROXY rule hands it to
    ipvs: IPVS gave it its destination and leaves it alone now
    rerouted: the kernel looks for a route anew after a rule of OUTPUT, with ``rerouted_mark``
    zone: of conntrack, as a rule before it said (``CT --zone``)
    owner: the user and group of the socket that sent it; None: not known
    """

    netns: Netns
    packet: Packet
    iif: str = ""
    oif: str = ""
    physin: str = ""
    physout: str = ""
    hop: Nexthop | None = None
    mac: str = ""
    inner_mac: str = ""
    toward: tuple[Netns, Link] | None = None
    unseen: bool = False
    tracked: SkbConntrack | None = None
    untracked: bool = False
    prerouted: bool = False
    unknown: set[str] = msgspec.field(default_factory=set)
    socket: tuple[str, int] | None = None
    ipvs: bool = False
    rerouted: bool = False
    rerouted_mark: int | None = None
    dscp: int = 0
    zone: int | None = None
    owner: int | None = None

    @property
    def flow(self) -> Flow:
        return self.packet.flow

    @property
    def family(self) -> Family:
        return self.packet.flow.family

    @property
    def mark(self) -> int:
        return self.packet.mark

    @property
    def translated(self) -> bool:
        """Whether a rule of this namespace gave it a new destination."""
        return self.ipvs or (self.tracked is not None and self.tracked.connection.dnat)

    @property
    def known_mark(self) -> int | None:
        """The mark; None where a rule set it to something that cannot be computed."""
        return None if _MARK in self.unknown else self.packet.mark

    @property
    def unknown_mark(self) -> set[str]:
        """The unknown fields that a packet inherits with the mark."""
        return self.unknown & {_MARK}

    def set_mark(self, mark: int | None) -> None:
        if mark is None:
            self.unknown.add(_MARK)
        else:
            self.unknown.discard(_MARK)
            self.packet = msgspec.structs.replace(self.packet, mark=mark)

    def reroute(self) -> None:
        self.rerouted, self.rerouted_mark = True, self.known_mark

    def set_ttl(self, ttl: int) -> None:
        self.packet = msgspec.structs.replace(self.packet, ttl=ttl)

    def set_destination(self, dst: str, dport: int) -> None:
        self._set_flow(msgspec.structs.replace(self.flow, dst=dst, dport=dport))

    def set_source(self, src: str, sport: int) -> None:
        self._set_flow(msgspec.structs.replace(self.flow, src=src, sport=sport))

    def _set_flow(self, flow: Flow) -> None:
        self.packet = msgspec.structs.replace(self.packet, flow=flow)

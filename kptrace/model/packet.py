"""A flow, and a packet with what it carries."""

from __future__ import annotations

from typing import Literal

from kptrace.model.base import Value
from kptrace.model.family import Family


class Flow(Value):
    """The 5-tuple. Ports are 0 where the protocol has none."""

    protocol: str
    src: str
    dst: str
    sport: int = 0
    dport: int = 0

    @property
    def reverse(self) -> Flow:
        return Flow(
            protocol=self.protocol, src=self.dst, dst=self.src, sport=self.dport, dport=self.sport
        )

    @property
    def ipv6(self) -> bool:
        return self.family is Family.IPV6

    @property
    def family(self) -> Family:
        return Family.of(self.dst)


class Tunnel(Value):
    """How ``Packet.inner`` is carried. ``vni``: of GRE its key, where it has one."""

    kind: Literal["vxlan", "geneve", "ipip", "gre", "wireguard"]
    vni: int | None = None


class Packet(Value):
    """One IP packet. With ``tunnel`` set, ``flow`` is the outer one and ``inner`` what it carries.

    length:  the IP total length in bytes (0: not known, as in a prediction)
    flags:   TCP flags as letters in the order F S R P A U (``S``, ``SA``, ``RA``)
    icmp:    (type, code) of an ICMP or ICMPv6 packet; ``quoted`` is the packet it complains about
    """

    flow: Flow
    ttl: int = 64
    ip_id: int | None = None
    length: int = 0
    flags: str = ""
    seq: int | None = None
    ack: int | None = None
    mark: int = 0
    icmp: tuple[int, int] | None = None
    quoted: Packet | None = None
    tunnel: Tunnel | None = None
    inner: Packet | None = None

    @property
    def innermost(self) -> Packet:
        """The packet with every encapsulation taken off."""
        return self.inner.innermost if self.inner else self

"""What a rule can ask of a packet: each field by its name in ``rules/model/expressions.py``.

A value is text or a number, a set of names for flags, ABSENT where the packet has no such header,
UNKNOWN where a snapshot cannot tell (who owns the socket, the source port that the kernel will
choose).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from kptrace.model.family import Family
from kptrace.simulate.ip.skb import Skb
from kptrace.simulate.snapshot.snapshot import Snapshot


class MissingField(Enum):
    ABSENT = "absent"
    UNKNOWN = "unknown"


ABSENT = MissingField.ABSENT
UNKNOWN = MissingField.UNKNOWN

Datum = str | int | frozenset[str] | MissingField
Read = Callable[[Skb, Snapshot], Datum]

_WITH_PORTS = frozenset({"tcp", "udp", "sctp", "dccp", "udplite"})
_FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32}


def read_field(key: str, skb: Skb, snapshot: Snapshot) -> Datum:
    """Return the value of a field of the packet; UNKNOWN for a name that is not in the table."""
    if key in skb.unknown:
        return UNKNOWN
    read = _FIELDS.get(key)
    return UNKNOWN if read is None else read(skb, snapshot)


def _ip(family: Family, read: Callable[[Skb], Datum]) -> Read:
    return lambda skb, _: read(skb) if skb.family is family else ABSENT


def _port(side: str, protocol: str = "") -> Read:
    """Read a port; 0 stands for one that the sender or a masquerading node will choose.

    Without a protocol it is what stands at that place, whatever that is (nft_payload).
    """

    def read(skb: Skb, _: Snapshot) -> Datum:
        own = skb.flow.protocol
        if own not in _WITH_PORTS or (protocol and own != protocol):
            return ABSENT if protocol else UNKNOWN
        port: int = getattr(skb.flow, side)
        return port or UNKNOWN

    return read


def _icmp(protocol: str, index: int) -> Read:
    def read(skb: Skb, _: Snapshot) -> Datum:
        if skb.flow.protocol != protocol:
            return ABSENT
        return skb.packet.icmp[index] if skb.packet.icmp else UNKNOWN

    return read


def _tcp_flags(skb: Skb, _: Snapshot) -> Datum:
    if skb.flow.protocol != "tcp":
        return ABSENT
    return sum(_FLAGS.get(letter, 0) for letter in skb.packet.flags or "S")


def _ct_state(skb: Skb, _: Snapshot) -> Datum:
    """Return the states; xt_conntrack counts a translation among them, nft has ``ct status`` for
    that.
    """
    if skb.untracked:
        return frozenset({"untracked"})
    if skb.tracked is None:
        return frozenset({"invalid"}) if skb.zone is None else UNKNOWN
    translated = skb.tracked.connection.status & {"snat", "dnat"}
    return frozenset({skb.tracked.state}) | translated


def _ct(read: Callable[[Skb], Datum]) -> Read:
    """Read a field of the connection.

    With a zone and no connection yet the kernel shows a template, so the value is not known.
    """

    def look(skb: Skb, _: Snapshot) -> Datum:
        if skb.tracked is None:
            return ABSENT if skb.zone is None else UNKNOWN
        return read(skb)

    return look


def _ct_mark(skb: Skb) -> Datum:
    assert skb.tracked is not None
    mark = skb.tracked.connection.mark
    return UNKNOWN if mark is None else mark


def _tuple(which: str, part: str) -> Read:
    def read(skb: Skb) -> Datum:
        assert skb.tracked is not None
        value: str | int = getattr(getattr(skb.tracked.connection, which), part)
        return UNKNOWN if value == 0 else value

    return _ct(read)


def _tuple_address(which: str, side: str, family: Family) -> Read:
    read = _tuple(which, {"saddr": "src", "daddr": "dst"}[side])
    return lambda skb, snapshot: read(skb, snapshot) if skb.family is family else ABSENT


def _owner(skb: Skb, _: Snapshot) -> Datum:
    """Return whose socket sent it; ABSENT when it came in by an interface."""
    if skb.iif:
        return ABSENT
    return UNKNOWN if skb.owner is None else skb.owner


def _cgroup(skb: Skb, _: Snapshot) -> Datum:
    return ABSENT if skb.iif else UNKNOWN


_FIELDS: dict[str, Read] = {
    "ip saddr": _ip(Family.IPV4, lambda skb: skb.flow.src),
    "ip daddr": _ip(Family.IPV4, lambda skb: skb.flow.dst),
    "ip protocol": _ip(Family.IPV4, lambda skb: skb.flow.protocol),
    "ip ttl": _ip(Family.IPV4, lambda skb: skb.packet.ttl),
    "ip dscp": _ip(Family.IPV4, lambda skb: skb.dscp),
    "ip frag-off": _ip(Family.IPV4, lambda skb: 0),
    "ip length": _ip(Family.IPV4, lambda skb: skb.packet.length or UNKNOWN),
    "ip6 saddr": _ip(Family.IPV6, lambda skb: skb.flow.src),
    "ip6 daddr": _ip(Family.IPV6, lambda skb: skb.flow.dst),
    "ip6 nexthdr": _ip(Family.IPV6, lambda skb: skb.flow.protocol),
    "ip6 hoplimit": _ip(Family.IPV6, lambda skb: skb.packet.ttl),
    "ip6 dscp": _ip(Family.IPV6, lambda skb: skb.dscp),
    **{
        f"{protocol} {side}": _port(side, protocol)
        for protocol in _WITH_PORTS
        for side in ("sport", "dport")
    },
    "th sport": _port("sport"),
    "th dport": _port("dport"),
    "tcp flags": _tcp_flags,
    "icmp type": _icmp("icmp", 0),
    "icmp code": _icmp("icmp", 1),
    "icmpv6 type": _icmp("icmpv6", 0),
    "icmpv6 code": _icmp("icmpv6", 1),
    "meta l4proto": lambda skb, _: skb.flow.protocol,
    "meta nfproto": lambda skb, _: f"ipv{skb.family.version}",
    "meta protocol": lambda skb, _: str(skb.family),
    "meta mark": lambda skb, _: skb.mark,
    "meta length": lambda skb, _: skb.packet.length or UNKNOWN,
    "meta iifname": lambda skb, _: skb.iif,
    "meta oifname": lambda skb, _: skb.oif,
    "meta iif": lambda skb, _: skb.iif,
    "meta oif": lambda skb, _: skb.oif,
    "meta iifkind": lambda skb, snapshot: _kind(snapshot, skb.iif),
    "meta oifkind": lambda skb, snapshot: _kind(snapshot, skb.oif),
    "meta pkttype": lambda skb, _: "host",
    "meta skuid": _owner,
    "meta skgid": _owner,
    "meta cgroup": _cgroup,
    "physdev in": lambda skb, _: skb.physin,
    "physdev out": lambda skb, _: skb.physout,
    "physdev is-in": lambda skb, _: int(bool(skb.physin)),
    "physdev is-out": lambda skb, _: int(bool(skb.physout)),
    "physdev is-bridged": lambda skb, _: int(bool(skb.physout)),
    "ct state": _ct_state,
    "ct status": _ct(lambda skb: skb.tracked.connection.status if skb.tracked else ABSENT),
    "ct mark": _ct(_ct_mark),
    "ct protocol": _tuple("original", "protocol"),
    "ct l3proto": _ct(lambda skb: f"ipv{skb.family.version}"),
    "ct zone": _ct(lambda skb: skb.tracked.connection.zone if skb.tracked else 0),
    "ct direction": _ct(lambda skb: skb.tracked.direction if skb.tracked else ABSENT),
    **{
        f"ct {which} {name}": _tuple(which, part)
        for which in ("original", "reply")
        for name, part in (
            ("saddr", "src"),
            ("daddr", "dst"),
            ("protocol", "protocol"),
            ("proto-src", "sport"),
            ("proto-dst", "dport"),
        )
    },
    **{
        f"ct {which} {family} {side}": _tuple_address(which, side, family)
        for which in ("original", "reply")
        for family in Family
        for side in ("saddr", "daddr")
    },
}


def _kind(snapshot: Snapshot, interface: str) -> Datum:
    link = snapshot.link(interface) if interface else None
    if interface and link is None:
        return UNKNOWN
    return (link.kind if link else "") or ABSENT

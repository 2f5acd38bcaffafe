"""What a rule is made of: expressions, matches and statements, one form for every rule language.

The readers of all forms build these. The ordered ``body`` of a Rule runs from left to right: a
match that is false ends the rule, a statement acts at once, a verdict ends the rule.

The form is that of nftables, which is the more general one and can express all matches of iptables
(iptables-translate(8)); what nftables lacks (the probability of ``statistic``, ``recent``,
``physdev``) is added.

**Fields** have nft's names, ``protocol field``. A field of a header that the packet does not have
makes its comparison false, whatever the operator (nft adds that dependency silently, the families
of iptables and ``-p`` do so too)::

    ip saddr, ip daddr, ip ttl, ip dscp, ip protocol, ip length, ip frag-off     IPv4 header
    ip6 saddr, ip6 daddr, ip6 hoplimit, ip6 dscp, ip6 nexthdr                    IPv6 header
    tcp|udp|sctp|dccp|udplite sport, dport; tcp flags (a number)                 that protocol only
    th sport, th dport                             the same bytes, whatever the protocol
    icmp type, icmp code, icmpv6 type, icmpv6 code                               numbers
    ether saddr, ether daddr
    meta l4proto        tcp, udp, sctp, icmp, ... (PROTOCOLS), else the number as text
    meta nfproto        ipv4, ipv6
    meta protocol       ip, ip6, arp, vlan
    meta mark, meta length, meta cgroup, meta skuid, meta skgid, ...
    meta iifname, meta oifname, meta iif, meta oif          names; iif and oif too; empty: none
    meta pkttype        host, broadcast, multicast, other
    physdev in, physdev out                                 names of bridge ports, empty: none
    physdev is-in, physdev is-out, physdev is-bridged       1 or 0
    ct state            flags: invalid, new, established, related, untracked; and, for iptables
                        (xt_conntrack), snat, dnat: this connection is translated so
    ct status           flags: expected, seen-reply, assured, confirmed, snat, dnat, dying
    ct mark, ct zone, ct direction (original, reply), ct expiration
    ct original|reply [ip|ip6] saddr|daddr, protocol|proto-src|proto-dst

**Operators**: ``== != < > <= >=``; against a set ``==`` and ``!=`` mean membership. ``in`` and
``not in`` are for flag fields: any (none) of the named bits is set. On a flag field ``==`` and
``!=`` compare the whole value (nft only; there ct state has one bit).

**Values** of Const: text for addresses (as the kernel prints them), protocols, names and flags;
int for ports, marks, lengths and other numbers.
"""

from __future__ import annotations

from typing import Literal

from kptrace.model import Value

PROTOCOLS: dict[int, str] = {
    0: "ip",
    1: "icmp",
    2: "igmp",
    4: "ipip",
    6: "tcp",
    17: "udp",
    33: "dccp",
    41: "ipv6",
    47: "gre",
    50: "esp",
    51: "ah",
    58: "icmpv6",
    89: "ospf",
    103: "pim",
    112: "vrrp",
    132: "sctp",
    136: "udplite",
    255: "raw",
}

# --- expressions ------------------------------------------------------------------------------


class Field(Value, tag="field"):
    """A field of the packet or its conntrack entry, by the names above."""

    key: str


class Const(Value, tag="const"):
    """One value."""

    value: str | int


class Prefix(Value, tag="prefix"):
    """``address/length``."""

    address: str
    length: int


class Masked(Value, tag="masked"):
    """An address with a mask that is no prefix (``::1/::ffff``): (field & mask) == address."""

    address: str
    mask: str


class Range(Value, tag="range"):
    """All values from ``low`` to ``high``, both included."""

    low: str | int
    high: str | int


class InterfaceWildcard(Value, tag="wild"):
    """An interface name that starts with ``start`` (``cali+``, ``cali*``)."""

    start: str


class Concat(Value, tag="concat"):
    """Several values side by side: the key of a set, or the data of a map."""

    parts: tuple[Expr, ...]


class AnonymousSet(Value, tag="elements"):
    """An anonymous set; with ``in``, a list of flags."""

    items: tuple[Expr, ...]


class SetRef(Value, tag="set-ref"):
    """A named set or map of the rule's own table, or an ipset: ``ruleset.referenced_set(rule,
    ref)``.
    """

    name: str
    ipset: bool = False


class BitwiseExpr(Value, tag="bits"):
    """``left`` and ``right`` combined bit by bit, or shifted."""

    op: Literal["and", "or", "xor", "lshift", "rshift"]
    left: Expr
    right: Expr


class NumGen(Value, tag="numgen"):
    """``random`` (each of ``mod`` values equally likely) or ``inc``; the result adds ``offset``."""

    mode: str
    mod: int
    offset: int = 0


class Hash(Value, tag="hash"):
    """``jhash`` of ``key`` or ``symhash`` (``key`` None), modulo ``mod``, plus ``offset``."""

    kind: str
    mod: int
    key: Expr | None = None
    seed: int | None = None
    offset: int = 0


class Fib(Value, tag="fib"):
    """A route lookup on the node.

    result: ``type`` (local, unicast, broadcast, ...), ``oif``, ``oifname``, ``check`` (1 or 0), or
    ``types``: flags, all types that ip6tables' addrtype gives an address (xt_addrtype.c) flags: the
    fields that it looks up with: saddr daddr mark iif oif; ``saddr . iif`` with ``oif`` is the
    reverse path filter: 0 if the route back leaves by another interface
    """

    result: str
    flags: tuple[str, ...]


class MapElement(Value, tag="entry"):
    """One pair of an anonymous map; ``data`` is a Verdict in a verdict map."""

    key: Expr
    data: Expr | Verdict


class AnonymousMap(Value, tag="entries"):
    """An anonymous map."""

    items: tuple[MapElement, ...]


class MapLookup(Value, tag="lookup"):
    """``key map { ... }``: the data of this key. A key that is not there ends the rule."""

    key: Expr
    map: SetRef | AnonymousMap


class Payload(Value, tag="payload"):
    """Raw bytes: ``@base,offset,length`` in bits."""

    base: str
    offset: int
    length: int


class UnknownExpr(Value, tag="opaque-expr"):
    """An expression that is not understood: its value is unknown."""

    text: str


Expr = (
    Field
    | Const
    | Prefix
    | Masked
    | Range
    | InterfaceWildcard
    | Concat
    | AnonymousSet
    | SetRef
    | BitwiseExpr
    | NumGen
    | Hash
    | Fib
    | MapLookup
    | Payload
    | UnknownExpr
)

# --- matches ----------------------------------------------------------------------------------

Op = Literal["==", "!=", "<", ">", "<=", ">=", "in", "not in"]


class Comparison(Value, tag="test"):
    """``left op right``."""

    left: Expr
    op: Op
    right: Expr


class AnyOf(Value, tag="any"):
    """True when one of the tests is (``-m multiport --ports``: source or destination)."""

    tests: tuple[Comparison, ...]
    negated: bool = False


class RandomMatch(Value, tag="chance"):
    """``-m statistic --mode random``: true with this probability (of those that come this far)."""

    probability: float


class NthMatch(Value, tag="every-nth"):
    """``-m statistic --mode nth``: true for one packet in ``every``."""

    every: int
    packet: int = 0
    negated: bool = False


class Recent(Value, tag="recent"):
    """``-m recent``: a list of addresses that were seen. ``set`` is always true and adds one.

    by: ``saddr`` or ``daddr``, masked with ``mask``; for a fresh flow ``rcheck`` is false.
    """

    action: Literal["set", "rcheck", "update", "remove"]
    list: str
    seconds: int = 0
    hits: int = 0
    reap: bool = False
    by: Literal["saddr", "daddr"] = "saddr"
    mask: str = ""
    negated: bool = False


class Limit(Value, tag="limit"):
    """True for packets within the rate (``over``: beyond it). A single probe is within it."""

    rate: str
    burst: int = 0
    over: bool = False


class Socket(Value, tag="socket"):
    """``-m socket``: true when a local socket takes the packet."""

    transparent: bool = False
    nowildcard: bool = False
    negated: bool = False


# --- statements -------------------------------------------------------------------------------


class Verdict(Value, tag="verdict"):
    """A verdict; ``chain``: of jump and goto."""

    kind: Literal["accept", "drop", "continue", "return", "jump", "goto", "queue"]
    chain: str = ""


class VerdictMap(Value, tag="verdict-map"):
    """``key vmap { ... }``: the verdict of this key; a key that is not there has no effect."""

    key: Expr
    map: SetRef | AnonymousMap


class Reject(Value, tag="reject"):
    """reply: ``icmp|icmpv6|icmpx CODE`` (``port-unreachable``, ...) or ``tcp reset``."""

    reply: str


class Dnat(Value, tag="dnat"):
    """A new destination.

    addr: a map that gives a Concat (``dnat to ... map``) gives the port too
    flags: random, fully-random, persistent, netmap
    family: ip or ip6; for a packet of the other one the next rule follows; empty: any
    """

    addr: Expr | None
    port: Expr | None = None
    flags: tuple[str, ...] = ()
    family: str = ""


class Snat(Value, tag="snat"):
    """A new source; the fields are those of Dnat."""

    addr: Expr | None
    port: Expr | None = None
    flags: tuple[str, ...] = ()
    family: str = ""


class Masquerade(Value, tag="masquerade"):
    """The source becomes the address of the output interface."""

    port: Expr | None = None
    flags: tuple[str, ...] = ()


class Redirect(Value, tag="redirect"):
    """The destination becomes this node."""

    port: Expr | None = None
    flags: tuple[str, ...] = ()


class SetField(Value, tag="assign"):
    """Set a field: ``meta mark``, ``ct mark``, ``meta nftrace``, ``ct zone``, ``ip dscp``, ...

    MARK and CONNMARK are this too: ``--set-xmark V/M`` is mark = (mark & ~M) ^ V.
    tolerant: a packet without the value (no connection) is left unchanged; else it ends the rule
    """

    field: Field
    value: Expr
    tolerant: bool = False


class NoTrack(Value, tag="notrack"):
    """Leave the packet out of conntrack."""


class Tproxy(Value, tag="tproxy"):
    """Hand the packet to a local transparent socket. iptables' TPROXY also ``accepts``, nft's does
    not.
    """

    addr: Expr | None = None
    port: Expr | None = None
    mark: Expr | None = None
    accepts: bool = False


class Log(Value, tag="log"):
    """Log the packet; ``group``: of NFLOG."""

    prefix: str = ""
    group: int | None = None


class Count(Value, tag="count"):
    """``counter`` or an nfacct object (``name``).

    Rule.packets has the numbers of a rule's counter.
    """

    name: str = ""


class SetUpdate(Value, tag="set-update"):
    """Add, update or delete an element of a set or map while the packet passes."""

    op: str
    set: SetRef
    key: Expr
    timeout: int | None = None
    data: Expr | Verdict | None = None


class NoEffect(Value, tag="harmless"):
    """A statement that changes neither the packet's path nor its addresses (TCPMSS, TEE)."""

    text: str


class UnknownStatement(Value, tag="opaque"):
    """A match or statement that is not understood. ``match``: it may end the rule."""

    text: str
    match: bool = True


Match = Comparison | AnyOf | RandomMatch | NthMatch | Recent | Limit | Socket
Statement = (
    Verdict
    | VerdictMap
    | Reject
    | Dnat
    | Snat
    | Masquerade
    | Redirect
    | SetField
    | NoTrack
    | Tproxy
    | Log
    | Count
    | SetUpdate
    | NoEffect
)
Part = Match | Statement | UnknownStatement

"""What a rule is made of: expressions, matches and statements, one form for every rule language.

Comes in: nothing; the readers (``rules/iptables/save.py``, ``rules/nftables/json_ruleset.py``)
build these. Goes out: the ordered ``body`` of a Rule, which the interpreter runs from left to
right: a Match that is false ends the rule, a Statement acts at once, a Verdict leaves.

The form is nftables' own, since it is the more general one and since iptables' matches are all
expressible in it (iptables-translate(8) is the proof); what nftables lacks (``statistic``'s
probability, ``recent``, ``physdev``) is added beside it.

**Fields** are nft's words, ``protocol field``. A field of a header that the packet does not have
makes its Test false, whatever the operator (nft adds that dependency silently, iptables' families
and ``-p`` do it too)::

    ip saddr, ip daddr, ip ttl, ip dscp, ip protocol, ip length, ip frag-off     IPv4 header
    ip6 saddr, ip6 daddr, ip6 hoplimit, ip6 dscp, ip6 nexthdr                    IPv6 header
    tcp|udp|sctp|dccp|udplite sport, dport; tcp flags (a number)                 that protocol only
    th sport, th dport                             what stands there, whatever the protocol
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

**Operators**: ``== != < > <= >=``; against Elements or a set reference ``==`` and ``!=`` mean
membership. ``in`` and ``not in`` are for flag fields: any (none) of the named bits is set. On a
flag field ``==`` and ``!=`` compare the whole value (nft only; there ct state has one bit).

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
    """Something of the packet or its conntrack entry, by the names above."""

    key: str


class Const(Value, tag="const"):
    value: str | int


class Prefix(Value, tag="prefix"):
    address: str
    length: int


class Masked(Value, tag="masked"):
    """An address with a mask that is no prefix (``::1/::ffff``): (field & mask) == address."""

    address: str
    mask: str


class Range(Value, tag="range"):
    """Both ends belong to it."""

    low: str | int
    high: str | int


class InterfaceWildcard(Value, tag="wild"):
    """An interface name that starts with ``start`` (``cali+``, ``cali*``)."""

    start: str


class Concat(Value, tag="concat"):
    parts: tuple[Expr, ...]


class AnonymousSet(Value, tag="elements"):
    """An anonymous set; with ``in``, a list of flags."""

    items: tuple[Expr, ...]


class SetRef(Value, tag="set-ref"):
    """A named set or map of the rule's own table, or an ipset: ``ruleset.named(rule, ref)``."""

    name: str
    ipset: bool = False


class BitwiseExpr(Value, tag="bits"):
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
    """A route lookup on the node. ``flags``: which fields it asks with: saddr daddr mark iif oif.

    result: ``type`` (local, unicast, broadcast, ...), ``oif``, ``oifname``, ``check`` (1, 0);
    ``types``: flags, all that ip6tables' addrtype says of an address (xt_addrtype.c)
    ``fib saddr . iif oif`` is the reverse path filter: 0 where the way back is another one.
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
    """``key map { ... }``: the data of this key. No such key: the rule ends, unmatched."""

    key: Expr
    map: SetRef | AnonymousMap


class Payload(Value, tag="payload"):
    """Raw bytes: ``@base,offset,length`` in bits."""

    base: str
    offset: int
    length: int


class UnknownExpr(Value, tag="opaque-expr"):
    """An expression that we do not know: its value is unknown."""

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
    __test__ = False  # its name looks like a test class to pytest

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
    kind: Literal["accept", "drop", "continue", "return", "jump", "goto", "queue"]
    chain: str = ""


class VerdictMap(Value, tag="verdict-map"):
    """``key vmap { ... }``: the verdict that belongs to the key; no such key: nothing happens."""

    key: Expr
    map: SetRef | AnonymousMap


class Reject(Value, tag="reject"):
    """reply: ``icmp|icmpv6|icmpx CODE`` (``port-unreachable``, ...) or ``tcp reset``."""

    reply: str


class Dnat(Value, tag="dnat"):
    """New destination. An ``addr`` that gives a Concat (``dnat to ... map``) holds the port too.

    flags: random, fully-random, persistent, netmap
    family: ip or ip6; a packet of the other one goes on with the next rule; empty: any
    """

    addr: Expr | None
    port: Expr | None = None
    flags: tuple[str, ...] = ()
    family: str = ""


class Snat(Value, tag="snat"):
    addr: Expr | None
    port: Expr | None = None
    flags: tuple[str, ...] = ()
    family: str = ""


class Masquerade(Value, tag="masquerade"):
    port: Expr | None = None
    flags: tuple[str, ...] = ()


class Redirect(Value, tag="redirect"):
    port: Expr | None = None
    flags: tuple[str, ...] = ()


class SetField(Value, tag="assign"):
    """A field is set: ``meta mark``, ``ct mark``, ``meta nftrace``, ``ct zone``, ``ip dscp``, ...

    MARK and CONNMARK come as this too: ``--set-xmark V/M`` is mark = (mark & ~M) ^ V.
    tolerant: a packet without the value (no connection) is left as it is; else it ends the rule
    """

    field: Field
    value: Expr
    tolerant: bool = False


class NoTrack(Value, tag="notrack"):
    pass


class Tproxy(Value, tag="tproxy"):
    """Hand to a local transparent socket. iptables' TPROXY ``accepts`` too, nft's does not."""

    addr: Expr | None = None
    port: Expr | None = None
    mark: Expr | None = None
    accepts: bool = False


class Log(Value, tag="log"):
    prefix: str = ""
    group: int | None = None


class Count(Value, tag="count"):
    """``counter`` or an nfacct object (``name``). Numbers of a rule's own counter: Rule.packets."""

    name: str = ""


class SetUpdate(Value, tag="set-update"):
    """Add, update or delete an element of a set or map while the packet passes."""

    op: str
    set: SetRef
    key: Expr
    timeout: int | None = None
    data: Expr | Verdict | None = None


class NoEffect(Value, tag="harmless"):
    """A statement that changes neither the packet's way nor its addresses (TCPMSS, TEE, quota)."""

    text: str


class UnknownStatement(Value, tag="opaque"):
    """A match or statement that we do not know. ``match``: it may end the rule."""

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

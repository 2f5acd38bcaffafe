"""The nft table that makes the kernel trace our probes, and only them.

In: the probes (their cookies) and where UDP answers come from. Out: netlink messages for a table
of flag OWNER: the kernel deletes it when the socket that made it closes, also on SIGKILL; nobody
else can delete it; `nft flush ruleset` leaves it. It changes no rule of anybody's.

``meta nftrace set 1`` sets skb->nf_trace, which nf_tables, iptables-nft and legacy ip_tables
honour alike. The kernel clears that bit at veth crossings and on encapsulation, so prerouting
and output of every namespace mark anew, the encapsulated packet too: by a look at what it
carries.

A rule here is a list of conditions, all about fixed places. ``EncapsulationMatch`` says where the
IP packet that holds the cookie stands, from the transport header of the packet that netfilter sees:

    plain                 the packet itself
    vxlan   UDP, VXLAN or Geneve without options, Ethernet: 8 + 8 + 14 bytes further
    ipip    nothing between
    quote   ICMP error: 8 bytes further

nft must be able to print this table while it stands, or `nft list` fails for everybody. After
``meta l4proto 4`` nft 1.0.6 expects an IP header at the transport base and aborts on an
assertion. So what is compared with meta is compared by "at least" and "at most", from which nft
infers nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from struct import pack
from typing import NamedTuple

from kptrace.agent.netlink.socket import (
    ACK,
    APPEND,
    CREATE,
    EXCL,
    REQUEST,
    attribute,
    be32,
    message,
    nested,
    netfilter,
    text,
)
from kptrace.bpf.capture_filter import Source
from kptrace.model import Probe
from kptrace.packet.probe_id import DNS_PORT, ProbeIdBlock, blocks, label, text_mask

SUBSYSTEM = 10
NEWTABLE, NEWCHAIN, NEWRULE = 0, 3, 6
INET, NETDEV = 1, 5
OWNER = 2
_HOOKS = {"prerouting": 0, "output": 3}
_PRIORITY = -350  # before raw (-300), after defragmentation (-400)
NETWORK, TRANSPORT = 1, 2
_EQUAL, _AT_MOST, _AT_LEAST = 0, 3, 5
_NFTRACE, NFPROTO, L4PROTO = 12, 15, 16
_ICMP, _IPIP, _TCP, _UDP, _IPV6, _ICMPV6 = 1, 4, 6, 17, 41, 58
_V4, _V6 = 2, 10


class Meta(NamedTuple):
    key: int
    value: int


class Bytes(NamedTuple):
    """These bytes of the packet, under the mask, have this value."""

    base: int
    offset: int
    value: bytes
    mask: bytes = b""


Condition = Meta | Bytes


class EncapsulationMatch(NamedTuple):
    """ip, l4: (base, offset) of the headers of the packet that holds the cookie."""

    version: int
    conditions: tuple[Condition, ...]
    ip: tuple[int, int]
    l4: tuple[int, int]


def _plain(version: int) -> EncapsulationMatch:
    family = _V4 if version == 4 else _V6
    return EncapsulationMatch(version, (Meta(NFPROTO, family),), (NETWORK, 0), (TRANSPORT, 0))


def _inside(version: int, at: int, *conditions: Condition) -> EncapsulationMatch:
    """An IP packet ``at`` bytes behind the transport header, without options."""
    size = 20 if version == 4 else 40
    if version == 4:
        conditions += (Bytes(TRANSPORT, at, b"\x45"),)
    return EncapsulationMatch(version, conditions, (TRANSPORT, at), (TRANSPORT, at + size))


CARRIERS = (
    _plain(4),
    _plain(6),
    _inside(4, 30, Meta(L4PROTO, _UDP), Bytes(TRANSPORT, 28, b"\x08\x00")),
    _inside(6, 30, Meta(L4PROTO, _UDP), Bytes(TRANSPORT, 28, b"\x86\xdd")),
    _inside(4, 0, Meta(L4PROTO, _IPIP)),
    _inside(6, 0, Meta(L4PROTO, _IPV6)),
    _inside(4, 8, Meta(L4PROTO, _ICMP)),
    _inside(6, 8, Meta(L4PROTO, _ICMPV6)),
)


def table(name: str, probes: Iterable[Probe], sources: Iterable[Source] = ()) -> list[bytes]:
    """The messages of one batch that make the table."""
    rules = [rule(requested, _TRACE) for _, requested in matches(tuple(probes), tuple(sources))]
    chunks = [command(INET, NEWTABLE, text(1, name), be32(2, OWNER))]
    for chain, hook in _HOOKS.items():
        netns = nested(4, be32(1, hook), be32(2, _PRIORITY))
        chunks.append(command(INET, NEWCHAIN, text(1, name), text(3, chain), netns, FILTER))
        chunks += [command(INET, NEWRULE, text(1, name), text(2, chain), rule) for rule in rules]
    return chunks


Match = tuple[EncapsulationMatch, tuple[Condition, ...]]


def matches(probes: tuple[Probe, ...], sources: tuple[Source, ...]) -> Iterator[Match]:
    """What makes a packet one of ours: all conditions of one of these."""
    tcp = blocks(p.probe_id for p in probes if p.flow.protocol == "tcp")
    udp = blocks(p.probe_id for p in probes if p.flow.protocol == "udp")
    dns = udp if any(p.flow.dport == DNS_PORT for p in probes) else ()
    for carrier in CARRIERS:
        for block in tcp:
            yield _match(carrier, _TCP, _word(carrier, 4, block))
            yield _match(carrier, _TCP, _word(carrier, 8, block))
        for block in udp:
            yield _match(carrier, _UDP, _word(carrier, 8 + 4, block))
        for block in dns:
            yield _match(carrier, _UDP, _text(carrier, 8 + 13, block))
        for address, port in sources:
            source = ip_address(address)
            if source.version == carrier.version:
                yield _match(carrier, _UDP, *_from(carrier, source.packed, port))


def _match(carrier: EncapsulationMatch, protocol: int, *requested: Condition) -> Match:
    return carrier, (*carrier.conditions, _protocol(carrier, protocol), *requested)


def _word(carrier: EncapsulationMatch, offset: int, block: ProbeIdBlock) -> Bytes:
    base, at = carrier.l4
    return Bytes(base, at + offset, pack("!I", block.base), pack("!I", block.mask))


def _text(carrier: EncapsulationMatch, offset: int, block: ProbeIdBlock) -> Bytes:
    base, at = carrier.l4
    mask = text_mask(block.mask)
    value = bytes(a & b for a, b in zip(label(block.base), mask, strict=True))
    return Bytes(base, at + offset, value, mask)


def _from(carrier: EncapsulationMatch, address: bytes, port: int) -> tuple[Bytes, Bytes]:
    ip, l4 = carrier.ip, carrier.l4
    source = Bytes(ip[0], ip[1] + (12 if carrier.version == 4 else 8), address)
    return source, Bytes(l4[0], l4[1], pack("!H", port))


def _protocol(carrier: EncapsulationMatch, number: int) -> Condition:
    base, at = carrier.ip
    if base == NETWORK:
        return Meta(L4PROTO, number)
    return Bytes(base, at + (9 if carrier.version == 4 else 6), bytes([number]))


# --- nf_tables expressions --------------------------------------------------------------------


def rule(conditions: Iterable[Condition], statement: Iterable[bytes]) -> bytes:
    """What a packet must be, and the expressions of what is done to it then."""
    expressions = [e for condition in conditions for e in _expressions(condition)]
    return nested(4, *expressions, *statement)


def _expressions(condition: Condition) -> Iterator[bytes]:
    if isinstance(condition, Meta):
        yield expression("meta", be32(1, 1), be32(2, condition.key))
        yield _compare(bytes([condition.value]), _AT_LEAST)
        yield _compare(bytes([condition.value]), _AT_MOST)
        return
    size = len(condition.value)
    yield expression(
        "payload", be32(1, 1), be32(2, condition.base), be32(3, condition.offset), be32(4, size)
    )
    if condition.mask:
        mask, xor = nested(4, _data(condition.mask)), nested(5, _data(bytes(size)))
        yield expression("bitwise", be32(1, 1), be32(2, 1), be32(3, size), mask, xor)
    yield _compare(condition.value)


def _compare(value: bytes, operator: int = _EQUAL) -> bytes:
    return expression("cmp", be32(1, 1), be32(2, operator), nested(3, _data(value)))


def expression(name: str, *attributes: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *attributes))


def _data(value: bytes) -> bytes:
    return attribute(1, value)


FILTER = text(7, "filter")
_TRACE = (
    expression("immediate", be32(1, 1), nested(2, _data(b"\x01"))),
    expression("meta", be32(2, _NFTRACE), be32(3, 1)),
)


def command(family: int, kind: int, *attributes: bytes) -> bytes:
    flags = REQUEST | ACK | CREATE | (APPEND if kind == NEWRULE else EXCL)
    return message(SUBSYSTEM << 8 | kind, flags, netfilter(family, *attributes))


_ours: set[str] = set()


def own_name() -> str:
    """For a table of this process; no rule trace tells of it."""
    name = f"kptrace-{os.getpid()}-{os.urandom(4).hex()}"
    _ours.add(name)
    return name


def is_own(table: str) -> bool:
    return table in _ours

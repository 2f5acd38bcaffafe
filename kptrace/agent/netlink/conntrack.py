"""Conntrack entries, looked up by their original tuple over ctnetlink.

In: a Flow as it was sent. Out: the entry: its reply tuple tells what NAT decided (reply source =
the backend, reply destination = the masqueraded source), or None where there is no such entry, as
when the packet died before it was confirmed. Or all entries of one end's connections to another.
"""

from __future__ import annotations

import errno
import socket
from struct import pack

from kptrace.agent.netlink.socket import (
    DUMP,
    NetlinkSocket,
    attribute,
    attributes,
    nested,
    netfilter,
    number,
)
from kptrace.model import ConntrackEntry, Flow, Netns
from kptrace.packet.headers import PROTOCOLS, ipv4, ipv6

_GET = 0x0101
# nf_internals.h, CTA_FILTER_F_*: source and destination address, protocol, destination port
_FILTER, _ORIGINAL_FLAGS, _ALL_BUT_THE_SOURCE_PORT = 25, 1, 0b101011
_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _PROTOINFO, _MARK = 1, 2, 3, 4, 8
_NUMBERS = {name: number for number, name in PROTOCOLS.items()}
_STATUS_WORDS = {
    0: "EXPECTED",
    1: "SEEN_REPLY",
    2: "ASSURED",
    3: "CONFIRMED",
    4: "SRC_NAT",
    5: "DST_NAT",
    6: "SEQ_ADJUST",
    7: "SRC_NAT_DONE",
    8: "DST_NAT_DONE",
    9: "DYING",
    10: "FIXED_TIMEOUT",
    11: "TEMPLATE",
    13: "HELPER",
    14: "OFFLOAD",
    15: "HW_OFFLOAD",
}
_TCP_STATES = (
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
)


def lookup(netns: Netns, flow: Flow) -> ConntrackEntry | None:
    """To be called inside the namespace."""
    conversation = NetlinkSocket()
    family = flow.family.socket_family
    try:
        answers = conversation.ask(_GET, netfilter(family, _tuple(flow)))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    finally:
        conversation.close()
    return entry(netns, answers[0].body[4:]) if answers else None


def recall(netns: Netns, flow: Flow) -> list[ConntrackEntry]:
    """All from ``flow.src``, by any port, to the flow's end. To be called inside the namespace.

    The kernel leaves the others out since 5.8 (CTA_FILTER, nf_conntrack_netlink.c); an older one
    gives all, so they are compared here, too: by their bytes before they are taken apart.
    """
    family = flow.family.socket_family
    requested = nested(_FILTER, attribute(_ORIGINAL_FLAGS, pack("=I", _ALL_BUT_THE_SOURCE_PORT)))
    address = socket.inet_pton(family, flow.dst)
    with NetlinkSocket() as conversation:
        body = netfilter(family, _tuple(flow), requested)
        entries = [
            entry(netns, answer.body[4:])
            for answer in conversation.listen(_GET, body, DUMP)
            if address in answer.body
        ]
    end = (flow.protocol, flow.src, flow.dst, flow.dport)
    return [
        entry
        for entry in entries
        if (entry.original.protocol, entry.original.src, entry.original.dst, entry.original.dport)
        == end
    ]


def entry(netns: Netns, data: bytes) -> ConntrackEntry:
    attrs = attributes(data)
    status = number(attrs.get(_STATUS))
    tcp = attributes(attributes(attrs.get(_PROTOINFO, b"")).get(1, b""))
    state = number(tcp.get(1))
    return ConntrackEntry(
        netns=netns,
        original=_flow(attrs.get(_TUPLE_ORIG, b"")),
        reply=_flow(attrs.get(_TUPLE_REPLY, b"")),
        status=tuple(word for bit, word in _STATUS_WORDS.items() if status >> bit & 1),
        state=_TCP_STATES[state] if 1 in tcp and state < len(_TCP_STATES) else "",
        mark=number(attrs.get(_MARK)),
    )


def _tuple(flow: Flow) -> bytes:
    family = flow.family.socket_family
    src, dst = (socket.inet_pton(family, a) for a in (flow.src, flow.dst))
    first = 3 if flow.ipv6 else 1
    addresses = nested(1, attribute(first, src), attribute(first + 1, dst))
    protocol = nested(
        2,
        attribute(1, bytes([_NUMBERS[flow.protocol]])),
        attribute(2, pack("!H", flow.sport)),
        attribute(3, pack("!H", flow.dport)),
    )
    return nested(_TUPLE_ORIG, addresses, protocol)


def _flow(data: bytes) -> Flow:
    parts = attributes(data)
    ip, ports = attributes(parts.get(1, b"")), attributes(parts.get(2, b""))
    protocol = number(ports.get(1))
    return Flow(
        protocol=PROTOCOLS.get(protocol, str(protocol)),
        src=_address(ip.get(1), ip.get(3)),
        dst=_address(ip.get(2), ip.get(4)),
        sport=number(ports.get(2)),
        dport=number(ports.get(3)),
    )


def _address(v4: bytes | None, v6: bytes | None) -> str:
    if v4 and len(v4) == 4:
        return ipv4(v4)
    return ipv6(v6) if v6 and len(v6) == 16 else ""

"""A DNS server without its sockets: a query's bytes in, the answer's bytes out.

It stands in for CoreDNS where no ``coredns`` binary is installed: authoritative for
``cluster.local`` (NXDOMAIN and empty answers carry the zone's SOA), and since the lab's world ends
there, NXDOMAIN for everything else, so that a resolver's search comes to an end. An answer that is
too long for what the asker takes over UDP is truncated to nothing with TC set, so that the asker
comes back over TCP.
"""

from __future__ import annotations

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from kptrace.lab.dns_zone import DOMAIN, SOA, TTL, Zone

PLAIN_UDP_SIZE = 512


def answer(zone: Zone, query: bytes, transport: str) -> bytes | None:
    """None: not a query that can be answered at all."""
    try:
        asked = dns.message.from_wire(query)
    except dns.exception.DNSException:
        return _format_error(query)
    if asked.flags & dns.flags.QR:
        return None
    reply = dns.message.make_response(asked)
    if asked.opcode() != dns.opcode.QUERY or len(asked.question) != 1:
        reply.set_rcode(dns.rcode.NOTIMP)
    else:
        _fill(reply, zone, asked.question[0])
    limit = 65535 if transport == "tcp" else max(asked.payload, PLAIN_UDP_SIZE)
    return _to_wire(reply, limit)


def _fill(reply: dns.message.Message, zone: Zone, request: dns.rrset.RRset) -> None:
    name = request.name.to_text(omit_final_dot=True).lower()
    if name != DOMAIN and not name.endswith(f".{DOMAIN}"):
        reply.set_rcode(dns.rcode.NXDOMAIN)
        return
    reply.flags |= dns.flags.AA
    kinds = zone.records.get(name)
    if kinds is None:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    record_type = dns.rdatatype.to_text(request.rdtype)
    records = [
        dns.rrset.from_text(request.name, TTL, dns.rdataclass.IN, kind, *texts)
        for kind, texts in (kinds or {}).items()
        if kind == "CNAME" or record_type in (kind, "ANY")
    ]
    if records:
        reply.answer.extend(records)
    else:
        reply.authority.append(
            dns.rrset.from_text(f"{DOMAIN}.", TTL, dns.rdataclass.IN, "SOA", SOA)
        )


def _to_wire(reply: dns.message.Message, limit: int) -> bytes:
    try:
        return reply.to_wire(max_size=limit)
    except dns.exception.TooBig:
        reply.flags |= dns.flags.TC
        reply.answer.clear()
        reply.authority.clear()
        return reply.to_wire(max_size=limit)


def _format_error(query: bytes) -> bytes | None:
    """The header alone, sent back as FORMERR; silence for what is no query."""
    if len(query) < 12 or query[2] & 0x80:
        return None
    return query[:2] + bytes((0x80, dns.rcode.FORMERR)) + bytes(8)

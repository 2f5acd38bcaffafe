"""DNS as a pod's resolver speaks it: resolv.conf and a name in, questions and answers out. Pure.

The order of questions is glibc's (resolv/res_query.c, ``__res_context_search``): a name with at
least ``ndots`` dots is asked as it is first and then with each search domain, any other with the
search domains first and as it is last; a last dot makes it absolute, and only it is asked. With the
``ndots:5`` that Kubernetes writes, ``web.shop`` is so asked as ``web.shop.NAMESPACE.svc.DOMAIN``
before ``web.shop.svc.DOMAIN``. musl differs in one point: it never searches for a name with
``ndots`` dots. glibc goes on to the next name after NXDOMAIN, an empty answer or SERVFAIL, and
stops at a server that says nothing.

dnspython is imported inside the functions: it costs 100 ms that few commands need.
"""

from __future__ import annotations

import re

from kptrace.model import DnsAnswer, Value
from kptrace.model.addresses import is_address
from kptrace.protocol import DnsResponse

# glibc's limits (resolv.h); the defaults when a file does not say
MAX_SERVERS = 3
MAX_NDOTS = 15
MAX_TIMEOUT = 30
DEFAULT_NDOTS = 1
DEFAULT_TIMEOUT = 5.0

# A name that can be asked: 253 characters in labels of 1 to 63, nothing that text would escape.
ASKABLE = re.compile(r"(?=.{1,253}$)[!#-\-/-\[\]-~]{1,63}(\.[!#-\-/-\[\]-~]{1,63})*")


class Resolver(Value):
    """What a resolv.conf says. ``servers`` is empty when it names none that can be read."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    ndots: int = DEFAULT_NDOTS
    timeout: float = DEFAULT_TIMEOUT


def parse_resolv_conf(text: str) -> Resolver:
    """As glibc reads it: the last ``search`` or ``domain`` line wins, what is odd is skipped."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: dict[str, str] = {}
    for line in text.split("\n"):
        keyword, *values = line.split() or [""]
        if line[:1] in ("#", ";") or not values:
            continue
        if keyword == "nameserver" and is_address(values[0]):
            servers.append(values[0])
        elif keyword in ("search", "domain"):
            domains = values if keyword == "search" else values[:1]
            search = tuple(domain.rstrip(".") for domain in domains)
        elif keyword == "options":
            options |= {name: value for name, _, value in (v.partition(":") for v in values)}
    return Resolver(
        servers=tuple(servers[:MAX_SERVERS]),
        search=search,
        ndots=_number(options.get("ndots"), DEFAULT_NDOTS, MAX_NDOTS),
        timeout=float(_number(options.get("timeout"), int(DEFAULT_TIMEOUT), MAX_TIMEOUT)),
    )


def questions(name: str, resolver: Resolver) -> tuple[str, ...]:
    """The absolute names to ask for, in order, written without the last dot."""
    bare = name.rstrip(".")
    texts = [f"{bare}.{domain}" if domain else bare for domain in resolver.search]
    if name.endswith("."):
        texts = [bare]
    elif bare.count(".") >= resolver.ndots:
        texts = [bare, *texts]
    else:
        texts = [*texts, bare]
    return tuple(name for name in dict.fromkeys(texts) if ASKABLE.fullmatch(name))


def query(name: str, rrtype: str, id: int) -> bytes:
    """The question in wire format, as glibc sends it: recursion desired, no EDNS."""
    import dns.message
    import dns.name

    return dns.message.make_query(
        dns.name.from_text(name), rrtype, id=id & 0xFFFF, use_edns=False
    ).to_wire()


def read_answer(answer: DnsResponse, name: str, rrtype: str) -> tuple[DnsAnswer, bool]:
    """What came back, and whether it was cut short so that it must be asked again over TCP.

    A message that cannot be read, or answers another question, has the status MALFORMED.
    """
    status, records, truncated = (
        (answer.error, (), False) if answer.error else _read(answer.message, name, rrtype)
    )
    return (
        DnsAnswer(
            name=name,
            type=rrtype,
            server=answer.server,
            transport=answer.transport,
            status=status,
            records=records,
            elapsed_us=answer.elapsed_us,
        ),
        truncated,
    )


Records = tuple[tuple[str, str], ...]


def _read(wire: bytes, name: str, rrtype: str) -> tuple[str, Records, bool]:
    import dns.flags
    import dns.message
    import dns.name
    import dns.rcode
    import dns.rdatatype

    malformed: tuple[str, Records, bool] = ("MALFORMED", (), False)
    try:
        message = dns.message.from_wire(wire, one_rr_per_rrset=True, ignore_trailing=True)
        if not message.flags & dns.flags.QR or not isinstance(message, dns.message.QueryMessage):
            return malformed
        for asked in message.question:  # some servers leave the section out; none may change it
            if asked.name != dns.name.from_text(name) or asked.rdtype != dns.rdatatype.from_text(
                rrtype
            ):
                return malformed
        records = tuple(
            (dns.rdatatype.to_text(rrset.rdtype), rdata.to_text())
            for rrset in message.answer
            for rdata in rrset
        )
    except Exception:  # a server may send anything; no message of its may end the trace
        return malformed
    truncated = bool(message.flags & dns.flags.TC)
    return dns.rcode.to_text(message.rcode()), records, truncated


def _number(text: str | None, default: int, most: int) -> int:
    if text is None or not (text.isascii() and text.isdigit()):
        return default
    return min(int(text[:9]), most)

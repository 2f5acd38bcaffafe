"""``ipvsadm -Ln``: how many connections each server of IPVS has, which ``ipvsadm -Sn`` omits.

In: its text and the services of ``ipvsadm -Sn``. Out: these services, their servers counted. A
server or a service that only one of the two knows stays as it is: they were read one after the
other. Lines of another form are passed over.

/proc/net/ip_vs tells the same without a program, but not all of it: a Linux 6.1 was seen to stop at
the end of the first page.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from msgspec.structs import replace

from kptrace.rules.ipvs.ipvsadm import RealServer, VirtualService

End = tuple[str, int]
# service (protocol and address, or mark) and server -> active and inactive connections
Counts = dict[tuple[str, End, End], tuple[int, int]]
_FWMARK = "fwmark"


def counted(services: Iterable[VirtualService], text: str) -> tuple[VirtualService, ...]:
    counts = _read(text)
    return tuple(
        replace(one, servers=tuple(_counted(one, server, counts) for server in one.servers))
        for one in services
    )


def _counted(service: VirtualService, server: RealServer, counts: Counts) -> RealServer:
    where = ("", service.fwmark) if service.protocol == _FWMARK else (service.address, service.port)
    found = counts.get((service.protocol, where, (server.address, server.port)))
    return replace(server, active=found[0], inactive=found[1]) if found else server


def _read(text: str) -> Counts:
    found: Counts = {}
    service: tuple[str, End] | None = None
    for line in text.splitlines():
        words = line.split()
        try:
            if words[:1] == ["->"] and service:
                active, inactive = int(words[4]), int(words[5])
                found[(*service, _end(words[1]))] = active, inactive
            elif words[:1] == ["FWM"]:
                service = _FWMARK, ("", int(words[1]))
            elif words[:1] in (["TCP"], ["UDP"], ["SCTP"]):
                service = words[0].lower(), _end(words[1])
        except (ValueError, IndexError):
            continue
    return found


def _end(text: str) -> End:
    """``10.96.1.1:80``, ``[fd00:10:96::112]:80``"""
    address, _, port = text.rpartition(":")
    return str(ip_address(address.removeprefix("[").removesuffix("]"))), int(port)

"""/proc/net/ip_vs, the only place that tells how many connections each server of IPVS has.

In: its text and the services of ``ipvsadm -Sn``. Out: these services, their servers counted. A
server or a service that only one of the two knows stays as it is: they were read one after the
other. Addresses and ports are hexadecimal, those of IPv6 as text (ip_vs_info_seq_show in
net/netfilter/ipvs/ip_vs_ctl.c); lines of another form are passed over.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, ip_address

from msgspec.structs import replace

from kptrace.rules.ipvs import RealServer, VirtualService

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
                service = _FWMARK, ("", int(words[1], 16))
            elif words[:1] in (["TCP"], ["UDP"], ["SCTP"]):
                service = words[0].lower(), _end(words[1])
        except (ValueError, IndexError):
            continue
    return found


def _end(text: str) -> End:
    """``0A600101:0050``, ``[fd00:0010:...]:0050``"""
    address, _, port = text.rpartition(":")
    told = ip_address(address[1:-1]) if address[:1] == "[" else IPv4Address(int(address, 16))
    return str(told), int(port, 16)

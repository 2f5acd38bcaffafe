"""``/proc/net/ip_vs_conn``: which clients of a persistent service IPVS has bound to a server.

In: its text and the services of ``ipvsadm -Sn``. Out: these services with the clients that are
bound. Such an entry is a template: a connection from port 0 of the client's network, which every
connection of theirs takes its server from, until it is as old as the persistence says
(ip_vs_sched_persist, ip_vs_conn_seq_show). All other lines are passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, ip_address

from msgspec.structs import replace

from kptrace.rules.ipvs.ipvsadm import PersistentClient, VirtualService

_FIELDS = 9
_PROTOCOLS = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp"}
# service (protocol, address, port), and the clients
Key = tuple[str, str, int]


def bound(services: Iterable[VirtualService], text: str) -> tuple[VirtualService, ...]:
    services = tuple(services)
    if not text or not any(one.persistent for one in services):
        return services
    found: dict[Key, list[PersistentClient]] = {}
    for key, one in _templates(text):
        found.setdefault(key, []).append(one)
    return tuple(_with(service, found) for service in services)


def _with(service: VirtualService, found: dict[Key, list[PersistentClient]]) -> VirtualService:
    own = found.get((service.protocol, service.address, service.port), ())
    return replace(service, bound=tuple(own)) if service.persistent and own else service


def _templates(text: str) -> Iterator[tuple[Key, PersistentClient]]:
    for line in text.splitlines():
        words = line.split()
        if len(words) < _FIELDS or words[2] != "0000" or words[0] not in _PROTOCOLS:
            continue
        try:
            client, virtual, server = (_address(words[n]) for n in (1, 3, 5))
            ports, seconds = (int(words[4], 16), int(words[6], 16)), int(words[8])
        except ValueError:
            continue
        key = (_PROTOCOLS[words[0]], virtual, ports[0])
        yield key, PersistentClient(client=client, address=server, port=ports[1], seconds=seconds)


def _address(text: str) -> str:
    return str(ip_address(text) if ":" in text else IPv4Address(int(text, 16)))

"""Read ``/proc/net/ip_vs_conn``: which clients of a persistent service IPVS keeps at a server.

Such an entry is a template: a connection from port 0 of the client's network. Each connection of
these clients takes its server from it, until the template is as old as the persistence time says
(ip_vs_sched_persist, ip_vs_conn_seq_show).
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


def with_persistent_clients(
    services: Iterable[VirtualService], text: str
) -> tuple[VirtualService, ...]:
    """The services with their persistent clients in ``text``, of which other lines are ignored."""
    services = tuple(services)
    if not text or not any(service.persistent for service in services):
        return services
    clients: dict[Key, list[PersistentClient]] = {}
    for key, client in _templates(text):
        clients.setdefault(key, []).append(client)
    return tuple(_with_clients(service, clients) for service in services)


def _with_clients(
    service: VirtualService, clients: dict[Key, list[PersistentClient]]
) -> VirtualService:
    own_clients = clients.get((service.protocol, service.address, service.port))
    if not service.persistent or not own_clients:
        return service
    return replace(service, persistent_clients=tuple(own_clients))


def _templates(text: str) -> Iterator[tuple[Key, PersistentClient]]:
    for line in text.splitlines():
        columns = line.split()
        if len(columns) < _FIELDS or columns[2] != "0000" or columns[0] not in _PROTOCOLS:
            continue
        try:
            client, virtual, server = (_address(columns[n]) for n in (1, 3, 5))
            ports, seconds = (int(columns[4], 16), int(columns[6], 16)), int(columns[8])
        except ValueError:
            continue
        key = (_PROTOCOLS[columns[0]], virtual, ports[0])
        yield key, PersistentClient(client=client, address=server, port=ports[1], seconds=seconds)


def _address(text: str) -> str:
    return str(ip_address(text) if ":" in text else IPv4Address(int(text, 16)))

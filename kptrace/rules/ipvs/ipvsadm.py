"""Read virtual services and their servers from ``ipvsadm -Sn`` and ``ipvsadm -Ln`` (ipvsadm(8)).

``-Sn``: each service is one ``-A`` line, its servers follow as ``-a`` lines that name it again. A
service without servers refuses everything: kube-proxy leaves it so when there are no endpoints.
``-Ln`` adds the number of connections.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_network

from msgspec.structs import replace

from kptrace.model import Value
from kptrace.model.errors import ParseError

_HINT = "take it again with: ipvsadm -Sn"


class RealServer(Value):
    """One server of a virtual service.

    method: ``masq``, ``route`` (gatewaying) or ``tunnel``
    weight: 0 takes no new connections
    active, inactive: number of connections; None: not known
    """

    address: str
    port: int
    method: str = "masq"
    weight: int = 1
    active: int | None = None
    inactive: int | None = None


class PersistentClient(Value):
    """A client, or its network, that a persistent service keeps at one server.

    address, port: of the server
    seconds: until the entry expires; a new connection of the client restarts it
    """

    client: str
    address: str
    port: int
    seconds: int


class VirtualService(Value):
    """One virtual service.

    protocol: tcp, udp, sctp, or ``fwmark`` (then ``fwmark`` is the key and address is empty)
    persistent: seconds of ClientIP affinity, 0: none
    netmask: of the clients that are kept together
    flags: of the scheduler (``sh-fallback``, ``sh-port``), and ``ops`` for one-packet scheduling
    bound: clients that are kept at a server
    """

    protocol: str
    address: str
    port: int
    scheduler: str
    servers: tuple[RealServer, ...] = ()
    fwmark: int = 0
    family: str = "ip"
    persistent: int = 0
    netmask: str = ""
    flags: tuple[str, ...] = ()
    persistent_clients: tuple[PersistentClient, ...] = ()

    def client_binding(self, client: str) -> PersistentClient | None:
        """The entry that keeps this client at a server, if any."""
        if not self.persistent_clients or not client:
            return None
        width = self.netmask or ("128" if ":" in client else "32")
        try:
            start = str(ip_network(f"{client}/{width}", strict=False).network_address)
        except ValueError:  # no mask of its family
            return None
        return next(
            (client_ for client_ in self.persistent_clients if client_.client == start), None
        )


_PROTOCOLS = {
    "-t": "tcp",
    "--tcp-service": "tcp",
    "-u": "udp",
    "--udp-service": "udp",
    "--sctp-service": "sctp",
    "-f": "fwmark",
    "--fwmark-service": "fwmark",
}
_METHODS = {"-m": "masq", "-g": "route", "-i": "tunnel"}
_WITHOUT_VALUE = frozenset({"-A", "-a", "-m", "-g", "-i", "-o", "--ops", "-6"})


def read_ipvs_save(text: str, name: str) -> tuple[VirtualService, ...]:
    """The services of ``ipvsadm -Sn`` text.

    ``name``: what to call the text in errors. Raises ParseError for a line of another form.
    """
    services: dict[tuple[str, str, str], VirtualService] = {}
    servers: dict[tuple[str, str, str], list[RealServer]] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            options = _options(line.split())
            key = _key(options)
            if "-A" in options and key not in services:
                services[key] = _service(options, key)
                servers[key] = []
            elif "-a" in options and key in services:
                servers[key].append(_server(options))
            else:
                raise ValueError("neither a new service nor a server of a known one")
        except (ValueError, KeyError, StopIteration) as error:
            raise ParseError(name, number, f"{line[:60]!r}: {error}", _HINT) from error
    return tuple(replace(service, servers=tuple(servers[key])) for key, service in services.items())


def _options(args: Sequence[str]) -> dict[str, str]:
    """The options of a line by name; an option without a value has an empty one."""
    options: dict[str, str] = {}
    remaining = iter(args)
    for word in remaining:
        if not word.startswith("-"):
            raise ValueError(f"{word!r} is no option")
        options[word] = "" if word in _WITHOUT_VALUE else next(remaining)
    return options


def _key(options: dict[str, str]) -> tuple[str, str, str]:
    """The service that a line names: (protocol, address and port or mark, family)."""
    flag = next(flag for flag in _PROTOCOLS if flag in options)
    return _PROTOCOLS[flag], options[flag], "ip6" if "-6" in options else "ip"


def _service(options: dict[str, str], key: tuple[str, str, str]) -> VirtualService:
    protocol, endpoint, family = key
    mark = protocol == "fwmark"
    address, port = ("", 0) if mark else _endpoint(endpoint)
    flags = options.get("-b", "").split(",") if "-b" in options else []
    return VirtualService(
        protocol=protocol,
        address=address,
        port=port,
        scheduler=options.get("-s", "wlc"),
        fwmark=int(endpoint) if mark else 0,
        family="ip6" if ":" in address else family,
        persistent=int(options.get("-p", 0)),
        netmask=options.get("-M", ""),
        flags=(*flags, *(("ops",) if {"-o", "--ops"} & set(options) else ())),
    )


def _server(options: dict[str, str]) -> RealServer:
    address, port = _endpoint(options["-r"])
    method = next((name for flag, name in _METHODS.items() if flag in options), "route")
    return RealServer(address=address, port=port, method=method, weight=int(options.get("-w", 1)))


def _endpoint(text: str) -> tuple[str, int]:
    """Parse ``10.0.0.1:80`` or ``[fd00::1]:80``."""
    address, _, port = text.rpartition(":")
    address = address.removeprefix("[").removesuffix("]")
    return str(ip_address(address)), int(port)


# --- ipvsadm -Ln -------------------------------------------------------------------------------

End = tuple[str, int]
# service (protocol and address, or mark) and server -> active and inactive connections
Counts = dict[tuple[str, End, End], tuple[int, int]]
_FWMARK = "fwmark"


def with_connection_counts(
    services: Iterable[VirtualService], text: str
) -> tuple[VirtualService, ...]:
    counts = _read_counts(text)
    return tuple(
        replace(
            service,
            servers=tuple(_with_counts(service, server, counts) for server in service.servers),
        )
        for service in services
    )


def _with_counts(service: VirtualService, server: RealServer, counts: Counts) -> RealServer:
    service_key = (
        ("", service.fwmark) if service.protocol == _FWMARK else (service.address, service.port)
    )
    active_inactive = counts.get((service.protocol, service_key, (server.address, server.port)))
    return (
        replace(server, active=active_inactive[0], inactive=active_inactive[1])
        if active_inactive
        else server
    )


def _read_counts(text: str) -> Counts:
    counts: Counts = {}
    service: tuple[str, End] | None = None
    for line in text.splitlines():
        columns = line.split()
        try:
            if columns[:1] == ["->"] and service:
                active, inactive = int(columns[4]), int(columns[5])
                counts[(*service, _endpoint(columns[1]))] = active, inactive
            elif columns[:1] == ["FWM"]:
                service = _FWMARK, ("", int(columns[1]))
            elif columns[:1] in (["TCP"], ["UDP"], ["SCTP"]):
                service = columns[0].lower(), _endpoint(columns[1])
        except (ValueError, IndexError):
            continue
    return counts

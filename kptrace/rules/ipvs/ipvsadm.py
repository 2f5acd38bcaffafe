"""Read virtual services and their servers from ``ipvsadm -Sn`` and ``ipvsadm -Ln`` (ipvsadm(8)).

``-Sn``: each service is one ``-A`` line, its servers follow as ``-a`` lines that name it again. A
service without servers refuses everything: kube-proxy leaves it so when there are no endpoints.
``-Ln`` adds the number of connections.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
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


# --- ipvsadm -Ln --------------------------------------------------------------------------------

End = tuple[str, int]
# a service: protocol, its address and port, or the mark
ServiceKey = tuple[str, End]
_FWMARK = "fwmark"
_FORWARDING = {"masq": "masq", "route": "route", "local": "route", "tunnel": "tunnel"}
_LIST_HINT = "take it with: ipvsadm -Ln"
_LIST_HEADERS = ("IP Virtual Server version", "Prot LocalAddress:Port", "-> RemoteAddress:Port")


def with_connection_counts(
    services: Iterable[VirtualService], text: str
) -> tuple[VirtualService, ...]:
    """The services of ``ipvsadm -Sn``, their servers with the counts of ``ipvsadm -Ln`` text.

    A server or a service that only one of the two has stays as it is: they were read one after the
    other. Lines of another form are ignored.
    """
    counts = {
        (*_key_of(service), server.address, server.port): server
        for service in _listed(text, lambda number, line: None)
        for server in service.servers
    }

    def counted(service: VirtualService, server: RealServer) -> RealServer:
        listed = counts.get((*_key_of(service), server.address, server.port))
        if listed is None or listed.active is None:
            return server
        return replace(server, active=listed.active, inactive=listed.inactive)

    return tuple(
        replace(service, servers=tuple(counted(service, server) for server in service.servers))
        for service in services
    )


def read_ipvs_list(text: str, name: str) -> tuple[VirtualService, ...]:
    """The services of ``ipvsadm -Ln`` text, also with ``--stats``, ``--rate`` and the like.

    ``--stats`` and ``--rate`` list neither scheduler nor weight: the scheduler is then empty, the
    weight 1.

    ``name``: what to call the text in errors. Raises ParseError for a line of another form.
    """

    def refuse(number: int, line: str) -> None:
        raise ParseError(name, number, f"{line[:60]!r} is no line of ipvsadm -Ln", _LIST_HINT)

    return tuple(_listed(text, refuse))


def _key_of(service: VirtualService) -> ServiceKey:
    if service.protocol == _FWMARK:
        return _FWMARK, ("", service.fwmark)
    return service.protocol, (service.address, service.port)


def _listed(text: str, refuse: Callable[[int, str], None]) -> list[VirtualService]:
    """The services of a list; ``refuse`` is called for a line of another form."""
    services: list[VirtualService] = []
    servers: list[RealServer] = []
    columns: Sequence[str] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        try:
            if not fields or fields[0].startswith("#"):
                continue
            if line.strip().startswith(_LIST_HEADERS):
                columns = fields if fields[0] != "->" or "Forward" in fields else columns
            elif fields[0] == "->" and services:
                servers = [*services[-1].servers, _listed_server(fields[1:], columns)]
                services[-1] = replace(services[-1], servers=tuple(servers))
            else:
                services.append(_listed_service(fields))
        except (ValueError, IndexError, KeyError):
            refuse(number, line)
    return services


_LISTED_PROTOCOLS = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp", "FWM": _FWMARK}


def _listed_service(fields: Sequence[str]) -> VirtualService:
    """``TCP  10.96.0.1:443 rr (flags) persistent 10800 mask 255.255.255.0 ops``"""
    protocol, rest = _LISTED_PROTOCOLS[fields[0]], list(fields[2:])
    mark = protocol == _FWMARK
    address, port = ("", 0) if mark else _endpoint(fields[1])
    family = "ip6" if ":" in address else "ip"
    if mark and rest[:1] == ["IPv6"]:
        family, rest = "ip6", rest[1:]
    scheduler = rest[0] if rest and not rest[0][:1].isdigit() else ""
    options = rest[1:] if scheduler else []
    persistent = options.index("persistent") + 1 if "persistent" in options else 0
    mask = options.index("mask") + 1 if "mask" in options else 0
    flags = [flag for word in options if word.startswith("(") for flag in word[1:-1].split(",")]
    return VirtualService(
        protocol=protocol,
        address=address,
        port=port,
        scheduler=scheduler,
        fwmark=int(fields[1]) if mark else 0,
        family=family,
        persistent=int(options[persistent]) if persistent else 0,
        netmask=options[mask] if mask else "",
        flags=(*flags, *(("ops",) if "ops" in options else ())),
    )


def _listed_server(fields: Sequence[str], columns: Sequence[str]) -> RealServer:
    """``10.244.1.5:8080  Masq  1  3  0``; with other options the columns are others."""
    address, port = _endpoint(fields[0])
    method = _FORWARDING.get(fields[1].lower()) if len(fields) > 1 else None
    if method is None:
        return RealServer(address=address, port=port, weight=_weight_of(fields, columns))
    counts = [int(word) for word in fields[3:5]]
    return RealServer(
        address=address,
        port=port,
        method=method,
        weight=int(fields[2]),
        active=counts[0] if len(counts) == 2 else None,
        inactive=counts[1] if len(counts) == 2 else None,
    )


def _weight_of(fields: Sequence[str], columns: Sequence[str]) -> int:
    """The weight that ``--persistent-conn`` lists; other options list none."""
    return int(fields[1]) if "Weight" in columns and len(fields) > 1 else 1


def looks_like_save(text: str) -> bool:
    """Whether a text has a line that ``ipvsadm -Sn`` prints."""
    return _SAVE_LINE.search(text) is not None


def looks_like_list(text: str) -> bool:
    """Whether a text has a service with a server as ``ipvsadm -Ln`` prints them."""
    return _LIST_LINES.search(text) is not None


_SAVE_LINE = re.compile(
    r"^[^\S\n]*-[Aa] (?:-[tuf]|--(?:tcp|udp|sctp|fwmark)-service) \S+ -[rs] ", re.MULTILINE
)
_LIST_LINES = re.compile(
    r"^[^\S\n]*(?:IP Virtual Server version|(?:TCP|UDP|SCTP|FWM) +\S+ [^\n]*\n\s*-> )", re.MULTILINE
)

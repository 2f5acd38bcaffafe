"""``ipvsadm -Sn`` text -> virtual services and their servers (ipvsadm(8)).

Each service is one ``-A`` line, its servers follow as ``-a`` lines that name it again. A service
without servers refuses everything: kube-proxy leaves it so when there are no endpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network

from msgspec.structs import replace

from kptrace.model import Value
from kptrace.model.errors import ParseError

_HINT = "take it again with: ipvsadm -Sn"


class RealServer(Value):
    """method: ``masq``, ``route`` (gatewaying) or ``tunnel``; weight 0 takes no new connections.

    active, inactive: connections when it was looked at; None: not told
    """

    address: str
    port: int
    method: str = "masq"
    weight: int = 1
    active: int | None = None
    inactive: int | None = None


class PersistentClient(Value):
    """A client (or the network of one) that a persistent service keeps at this server.

    seconds: that it lasted yet when it was looked at; a connection of the client's begins it anew
    """

    client: str
    address: str
    port: int
    seconds: int


class VirtualService(Value):
    """protocol: tcp, udp, sctp, or ``fwmark`` (then ``fwmark`` is its key and address is empty).

    persistent: seconds of ClientIP affinity, 0 none; ``netmask``: of the clients kept together
    flags: of the scheduler (``sh-fallback``, ``sh-port``, ``ops`` for one-packet scheduling, ...)
    bound: clients of which it remembers their server
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
    bound: tuple[PersistentClient, ...] = ()

    def binding(self, client: str) -> PersistentClient | None:
        """The one that holds for this client."""
        if not self.bound or not client:
            return None
        width = self.netmask or ("128" if ":" in client else "32")
        try:
            start = str(ip_network(f"{client}/{width}", strict=False).network_address)
        except ValueError:  # no mask of its family
            return None
        return next((one for one in self.bound if one.client == start), None)


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


def read_ipvs(text: str, name: str) -> tuple[VirtualService, ...]:
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


def _options(words: Sequence[str]) -> dict[str, str]:
    """Options by name; those of schedulers and tunnels that do not matter here are among them."""
    options: dict[str, str] = {}
    turn = iter(words)
    for word in turn:
        if not word.startswith("-"):
            raise ValueError(f"{word!r} is no option")
        options[word] = "" if word in _WITHOUT_VALUE else next(turn)
    return options


def _key(options: dict[str, str]) -> tuple[str, str, str]:
    """(protocol, address and port or mark, family)"""
    flag = next(flag for flag in _PROTOCOLS if flag in options)
    return _PROTOCOLS[flag], options[flag], "ip6" if "-6" in options else "ip"


def _service(options: dict[str, str], key: tuple[str, str, str]) -> VirtualService:
    protocol, where, family = key
    mark = protocol == "fwmark"
    address, port = ("", 0) if mark else _endpoint(where)
    flags = options.get("-b", "").split(",") if "-b" in options else []
    return VirtualService(
        protocol=protocol,
        address=address,
        port=port,
        scheduler=options.get("-s", "wlc"),
        fwmark=int(where) if mark else 0,
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
    """``10.0.0.1:80``, ``[fd00::1]:80``"""
    address, _, port = text.rpartition(":")
    address = address.removeprefix("[").removesuffix("]")
    return str(ip_address(address)), int(port)

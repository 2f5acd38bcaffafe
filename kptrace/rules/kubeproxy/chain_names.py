"""The names that kube-proxy gives to the chains and sets of a Service port.

iptables mode (proxier.go, ``portProtoHash``): a chain name may hold 28 characters, so it is a
prefix and the first 16 characters of base32(SHA-256(TEXT)), where TEXT is ``namespace/name:port``
(without ``:port`` when the port has no name), the protocol, and for an endpoint its address. The
hash cannot be read back; it can only be computed from a Service and compared.

nftables mode (``hashAndTruncate``): names may be long, so a name is a prefix, the first 8
characters of the same kind of hash, and then what was hashed: ``namespace/name/protocol/port`` and
for an endpoint ``__address/port``, the colons of IPv6 as dots. What follows the prefix is cut to
240 characters. The name can be read back.
"""

from __future__ import annotations

import re
from typing import Literal

from kptrace.model import Endpoint, Service, ServicePort, Value

IptablesKind = Literal["SVC", "SVL", "EXT", "FW"]
NftablesKind = Literal["service", "local", "external", "firewall"]

# room for the longest prefix in the 256 bytes of a name (chainNameBaseLengthMax)
NFTABLES_BASE_MAX = 240

_NFTABLES_NAME = re.compile(
    r"(?P<kind>service|local|external|firewall|endpoint|affinity)-(?P<hash>[A-Z2-7]{8})-"
    r"(?P<namespace>[^/]*)/(?P<name>[^/]*)/(?P<protocol>[^/]*)/(?P<port>[^/_]*)"
    r"(?:__(?P<address>[^/]*)/(?P<endpoint_port>\d+))?"
)


class PortName(Value):
    """The Service port, and the endpoint if any, that a name of nftables mode holds.

    address: of the endpoint, with the ``:`` of IPv6 restored; empty for a Service's own chain
    """

    kind: str
    namespace: str
    name: str
    protocol: str
    port: str
    address: str = ""
    endpoint_port: int = 0


def service_port_name(service: Service, port: ServicePort) -> str:
    """``namespace/name:port`` as in comments and hashes (ServicePortName.String)."""
    return f"{service.key}:{port.name}" if port.name else service.key


def endpoint_text(endpoint: Endpoint) -> str:
    """``address:port``, IPv6 in brackets, as in comments, hashes and DNAT."""
    if ":" in endpoint.address:
        return f"[{endpoint.address}]:{endpoint.port}"
    return f"{endpoint.address}:{endpoint.port}"


def iptables_chain(kind: IptablesKind, service: Service, port: ServicePort) -> str:
    """``KUBE-SVC-…`` of a Service port, and its chains for Local, external and source ranges."""
    return f"KUBE-{kind}-{_hash(service_port_name(service, port) + port.protocol)[:16]}"


def iptables_endpoint_chain(service: Service, port: ServicePort, endpoint: Endpoint) -> str:
    """``KUBE-SEP-…`` of an endpoint; the ``recent`` list of session affinity has the same name."""
    text = service_port_name(service, port) + port.protocol + endpoint_text(endpoint)
    return f"KUBE-SEP-{_hash(text)[:16]}"


def nftables_chain(kind: NftablesKind, service: Service, port: ServicePort) -> str:
    """The chain of a Service port in nftables mode (servicePortChainNameBase)."""
    return f"{kind}-{_nftables_base(_nftables_port(service, port))}"


def nftables_endpoint_name(
    kind: Literal["endpoint", "affinity"],
    service: Service,
    port: ServicePort,
    endpoint: Endpoint,
) -> str:
    """An endpoint's chain or affinity set; kube-proxy 1.36 writes them only with affinity."""
    address = endpoint.address.replace(":", ".")
    return f"{kind}-" + _nftables_base(
        f"{_nftables_port(service, port)}__{address}/{endpoint.port}"
    )


def read_nftables_name(text: str) -> PortName | None:
    """Parse a name of nftables mode; None for any other name and for one that was cut."""
    match = _NFTABLES_NAME.fullmatch(text)
    if match is None:
        return None
    kind, prefixed = text.split("-", 1)
    hashed, name = prefixed.split("-", 1)
    if _hash(name)[:8] != hashed:
        return None
    return PortName(
        kind=kind,
        namespace=match["namespace"],
        name=match["name"],
        protocol=match["protocol"],
        port=match["port"],
        address=_colons(match["address"] or ""),
        endpoint_port=int(match["endpoint_port"] or 0),
    )


def _hash(text: str) -> str:
    from base64 import b32encode  # with hashlib 5 ms, which few need
    from hashlib import sha256

    return b32encode(sha256(text.encode()).digest()).decode()


def _nftables_port(service: Service, port: ServicePort) -> str:
    return f"{service.key}/{port.protocol}/{port.name}"


def _nftables_base(text: str) -> str:
    base = f"{_hash(text)[:8]}-{text}"
    return base if len(base) <= NFTABLES_BASE_MAX else base[: NFTABLES_BASE_MAX - 3] + "..."


def _colons(address: str) -> str:
    """An address with its colons restored: three dots between digits are IPv4, else IPv6."""
    return address if re.fullmatch(r"\d+\.\d+\.\d+\.\d+", address) else address.replace(".", ":")

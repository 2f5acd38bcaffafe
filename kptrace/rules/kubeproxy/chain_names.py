"""The names kube-proxy gives to chains and sets: a Service port in, a name out, and back.

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
    """What a name of nftables mode says: which Service port, and which endpoint of it if any.

    address: as the endpoint has it, ``:`` of IPv6 restored; empty for a Service's own chain
    """

    kind: str
    namespace: str
    name: str
    protocol: str
    port: str
    address: str = ""
    endpoint_port: int = 0


def service_port_name(service: Service, port: ServicePort) -> str:
    """``namespace/name:port``, as comments and hashes have it (ServicePortName.String)."""
    return f"{service.key}:{port.name}" if port.name else service.key


def endpoint_text(endpoint: Endpoint) -> str:
    """``address:port``, IPv6 in brackets, as comments, hashes and DNAT have it."""
    if ":" in endpoint.address:
        return f"[{endpoint.address}]:{endpoint.port}"
    return f"{endpoint.address}:{endpoint.port}"


def iptables_chain(kind: IptablesKind, service: Service, port: ServicePort) -> str:
    """``KUBE-SVC-…`` of a Service port, and its siblings for Local, external, source ranges."""
    return f"KUBE-{kind}-{_hash(service_port_name(service, port) + port.protocol)[:16]}"


def iptables_endpoint_chain(service: Service, port: ServicePort, endpoint: Endpoint) -> str:
    """``KUBE-SEP-…``; session affinity's ``recent`` list has the same name."""
    text = service_port_name(service, port) + port.protocol + endpoint_text(endpoint)
    return f"KUBE-SEP-{_hash(text)[:16]}"


def nftables_chain(kind: NftablesKind, service: Service, port: ServicePort) -> str:
    return f"{kind}-{_nftables_base(_nftables_port(service, port))}"


def nftables_endpoint_name(
    kind: Literal["endpoint", "affinity"],
    service: Service,
    port: ServicePort,
    endpoint: Endpoint,
) -> str:
    """The endpoint's chain or its affinity set; kube-proxy 1.36 has them only with affinity."""
    address = endpoint.address.replace(":", ".")
    return f"{kind}-" + _nftables_base(
        f"{_nftables_port(service, port)}__{address}/{endpoint.port}"
    )


def read_nftables_name(text: str) -> PortName | None:
    """What the name says; ``None`` for any other name and for one that was cut."""
    found = _NFTABLES_NAME.fullmatch(text)
    if found is None:
        return None
    kind, prefixed = text.split("-", 1)
    hashed, name = prefixed.split("-", 1)
    if _hash(name)[:8] != hashed:
        return None
    return PortName(
        kind=kind,
        namespace=found["namespace"],
        name=found["name"],
        protocol=found["protocol"],
        port=found["port"],
        address=_colons(found["address"] or ""),
        endpoint_port=int(found["endpoint_port"] or 0),
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
    """IPv4 has three dots and nothing but digits between; anything else had colons."""
    return address if re.fullmatch(r"\d+\.\d+\.\d+\.\d+", address) else address.replace(".", ":")

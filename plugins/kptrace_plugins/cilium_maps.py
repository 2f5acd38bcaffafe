"""Cilium's load-balancing maps, from their bytes (pkg/loadbalancer/maps/types.go).

``cilium-lb.json`` holds the pinned maps as the agent read them: hexadecimal keys and values, and
the byte order of the node.

A service has an entry for each slot: slot 0 says how many backends there are, slots 1 to n their
ids. Addresses and ports are big-endian, slots and counts in the node's order. A frontend has two
scopes if its traffic policies differ for outside (0) and inside (1) the cluster; a socket is inside
(bpf/lib/lb.h, lb4_lookup_service with east_west). The protocol was 0 for any before Cilium 1.17.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from struct import Struct, error
from typing import Any, Literal

import msgspec

from kptrace.diagnose.phrases import end
from kptrace.model import Value
from kptrace.model.errors import ParseError
from kptrace.simulate.bpf.programs import Frontend

FILE = "cilium-lb.json"
SERVICES = {4: "cilium_lb4_services_v2", 6: "cilium_lb6_services_v2"}
BACKENDS = {4: "cilium_lb4_backends_v3", 6: "cilium_lb6_backends_v3"}
PROTOCOLS = {0: "", 6: "tcp", 17: "udp", 132: "sctp"}
OUTSIDE, INSIDE = 0, 1

EXTERNAL_IP, NODE_PORT, HOST_PORT, AFFINITY, LOAD_BALANCER = 0x1, 0x2, 0x8, 0x10, 0x20
SEVENTH_LAYER, TWO_SCOPES = 0x4, 0x20  # of the second byte of flags
# the first that is set tells what kind of address it is
KINDS = (
    (EXTERNAL_IP, "external IP"),
    (NODE_PORT, "NodePort"),
    (HOST_PORT, "HostPort"),
    (LOAD_BALANCER, "load balancer IP"),
)
# what sock4_skip_xlate (bpf/bpf_sock.c) leaves to the programs on devices
LEFT = (
    (EXTERNAL_IP, "Cilium translates external IPs on devices, not at connect()"),
    (HOST_PORT, "Cilium translates host ports on devices, not at connect()"),
)

ORDERS: dict[Literal["little", "big"], str] = {"little": "<", "big": ">"}


class PinnedMap(msgspec.Struct):
    entries: list[tuple[str, str]]


class PinnedMaps(msgspec.Struct):
    byteorder: Literal["little", "big"]
    maps: dict[str, PinnedMap]


class Key(Value):
    address: str
    port: int
    protocol: int
    scope: int
    slot: int = 0


class Service(Value):
    """The value of a service's slot.

    backend: an id; in slot 0 something else
    flags: both bytes of them
    """

    backend: int
    count: int
    flags: tuple[int, int]


def frontends(text: str) -> tuple[Frontend, ...] | None:
    """Return the frontends as a socket on the node meets them; None: no map was read."""
    try:
        pinned_maps = msgspec.json.decode(text, type=PinnedMaps)
        if not any(name in pinned_maps.maps for name in SERVICES.values()):
            return None
        return tuple(
            frontend for family in SERVICES for frontend in _frontends(pinned_maps, family)
        )
    except (msgspec.DecodeError, ValueError, error) as problem:
        raise ParseError(FILE, 0, f"not what an agent reads of Cilium's maps: {problem}") from None


def _frontends(pinned_maps: PinnedMaps, family: int) -> Iterator[Frontend]:
    size, order = (4 if family == 4 else 16), ORDERS[pinned_maps.byteorder]
    services = {
        _key(key, size, order): _service(value, order)
        for key, value in _entries(pinned_maps, SERVICES[family])
    }
    backends = {
        int.from_bytes(key[:4], pinned_maps.byteorder): (
            _address(value[:size]),
            _port(value[size:]),
        )
        for key, value in _entries(pinned_maps, BACKENDS[family])
    }
    for key, service in services.items():
        if key.slot == 0 and key.scope == OUTSIDE:
            yield _frontend(key, service, services, backends)


def _frontend(
    key: Key,
    service: Service,
    services: Mapping[Key, Service],
    backends: Mapping[int, tuple[str, int]],
) -> Frontend:
    if service.flags[1] & TWO_SCOPES:
        key = msgspec.structs.replace(key, scope=INSIDE)
        service = services.get(key, service)
    slots = (msgspec.structs.replace(key, slot=slot + 1) for slot in range(service.count))
    ids = [services[slot].backend for slot in slots if slot in services]
    kind = next((text for flag, text in KINDS if service.flags[0] & flag), "ClusterIP")
    lost = [str(id) for id in ids if id not in backends]
    protocol = PROTOCOLS.get(key.protocol, str(key.protocol))
    text = f"{end(key.address, key.port)}/{(protocol or 'any').upper()} [{kind}]"
    return Frontend(
        address=key.address,
        port=key.port,
        protocol=protocol,
        backends=tuple(backends[id] for id in ids if id in backends),
        text=text + (f", backends {', '.join(lost)} not in the map" if lost else ""),
        left=_left(service),
        remembers=bool(service.flags[0] & AFFINITY),
    )


def _left(service: Service) -> str:
    if service.flags[1] & SEVENTH_LAYER:
        return "Cilium hands it to its proxy (L7 load balancing)"
    return next((text for flag, text in LEFT if service.flags[0] & flag), "")


def _entries(pinned_maps: PinnedMaps, name: str) -> Iterator[tuple[bytes, bytes]]:
    pinned: Any = pinned_maps.maps.get(name)
    for key, value in pinned.entries if pinned else ():
        yield bytes.fromhex(key), bytes.fromhex(value)


def _key(key: bytes, size: int, order: str) -> Key:
    slot, protocol, scope = Struct(f"{order}HBB").unpack_from(key, size + 2)
    return Key(
        address=_address(key[:size]),
        port=_port(key[size:]),
        protocol=protocol,
        scope=scope,
        slot=slot,
    )


def _service(value: bytes, order: str) -> Service:
    backend, count, _, first, second = Struct(f"{order}IHHBB").unpack_from(value)
    return Service(backend=backend, count=count, flags=(first, second))


def _address(packed: bytes) -> str:
    return str(ip_address(packed))


def _port(rest: bytes) -> int:
    return int.from_bytes(rest[:2])

"""What Cilium's own tools print as JSON: services, load-balancing maps, and what Hubble saw.

These are ``cilium-dbg service list -o json``, ``cilium-dbg bpf lb list -o json``, ``hubble observe
-o json`` and ``cilium-dbg monitor -j`` (the last two print one object a line). The forms differ
between versions in what they leave out, so nothing but what is used must be there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

from kptrace.diagnose.phrases import end
from kptrace.model import Flow, Value
from kptrace.model.errors import ParseError
from kptrace.simulate.bpf.programs import Frontend

SERVICES = "cilium-service-list.json"
LB_LIST = "cilium-bpf-lb-list.json"

Raw = TypeVar("Raw")


def _read(text: str, source: str, type: type[Raw]) -> Raw:
    try:
        return msgspec.json.decode(text, type=type)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ParseError(
            source, 0, str(error), "it must hold what the tool printed, unchanged"
        ) from None


# --- cilium-dbg service list ------------------------------------------------------------------


class Address(msgspec.Struct, frozen=True):
    ip: str = ""
    port: int = 0
    protocol: str = ""
    scope: str = ""
    state: str = "active"


class Flags(msgspec.Struct, frozen=True):
    type: str = "ClusterIP"
    name: str = ""
    namespace: str = ""


class Realized(msgspec.Struct, frozen=True, rename="kebab"):
    frontend_address: Address = Address()
    backend_addresses: list[Address] | None = None
    flags: Flags = Flags()


class Status(msgspec.Struct, frozen=True):
    realized: Realized = Realized()


class Listed(msgspec.Struct, frozen=True):
    status: Status = Status()


def services(text: str) -> tuple[Frontend, ...]:
    """Read ``cilium-dbg service list -o json``: what is realized, not what is wished (spec).

    Of two scopes the internal one is what a socket inside the cluster meets. Raises ParseError.
    """
    frontends: dict[tuple[str, int, str], Frontend] = {}
    listed = [listed.status.realized for listed in _read(text, SERVICES, list[Listed])]
    for realized in sorted(listed, key=lambda item: item.frontend_address.scope == "internal"):
        front = realized.frontend_address
        frontend = _frontend(front, realized.flags, realized.backend_addresses or [])
        frontends[front.ip, front.port, frontend.protocol] = frontend
    return tuple(frontends.values())


def _frontend(front: Address, flags: Flags, backends: list[Address]) -> Frontend:
    named = f" {flags.namespace}/{flags.name}" if flags.name else ""
    protocol = _protocol(front.protocol)
    return Frontend(
        address=front.ip,
        port=front.port,
        protocol=protocol,
        backends=tuple(
            (backend.ip, backend.port) for backend in backends if backend.state in ("", "active")
        ),
        text=f"{end(front.ip, front.port)}/{(protocol or 'any').upper()} [{flags.type}]{named}",
        left=LEFT.get(flags.type, ""),
    )


LEFT = {
    "ExternalIPs": "Cilium translates external IPs on devices, not at connect()",
    "HostPort": "Cilium translates host ports on devices, not at connect()",
}


def _protocol(text: str) -> str:
    lower = text.lower()
    return "" if lower in ("", "any", "none") else lower


# --- cilium-dbg bpf lb list -------------------------------------------------------------------

# ``10.0.0.1:80``, ``[fd00::1]:80/TCP``, each maybe with ``/i`` (internal scope) and `` (3)`` (slot)
FRONT = re.compile(
    r"(?P<ip>\[[^\]]*\]|[0-9.]+):(?P<port>\d+)(/(?P<protocol>[A-Za-z]+))?"
    r"(?P<inside>/i)?( \((?P<slot>\d+)\))?"
)
# ``10.0.1.7:8080 (12) (1)``, and of the frontend itself ``0.0.0.0:0 (12) (0) [ClusterIP, ...]``
ROW = re.compile(
    r"(?P<ip>\[[^\]]*\]|[0-9a-fA-F.:]+):(?P<port>\d+)(/(?P<protocol>[A-Za-z]+))?"
    r" \((?P<revnat>\d+)\) \((?P<slot>\d+)\)( \[(?P<flags>[^\]]*)\])?"
)


def lb_list(text: str) -> tuple[Frontend, ...]:
    """Read ``cilium-dbg bpf lb list -o json``: a frontend's text and its rows."""
    backends: dict[tuple[str, int, str], tuple[bool, list[re.Match[str]]]] = {}
    for front, rows in _read(text, LB_LIST, dict[str, list[str]]).items():
        head = FRONT.fullmatch(front.strip())
        if head is None:
            continue
        key = (head["ip"].strip("[]"), int(head["port"]), _protocol(head["protocol"] or ""))
        inside = bool(head["inside"])
        seen = [row for text in rows if (row := ROW.match(text.strip()))]
        known = backends.get(key)
        if known is None or inside > known[0]:
            backends[key] = inside, seen
        elif inside == known[0]:  # a version that prints each slot as a key of its own
            known[1].extend(seen)
    return tuple(_of_rows(key, rows) for key, (_, rows) in backends.items())


def _of_rows(key: tuple[str, int, str], rows: list[re.Match[str]]) -> Frontend:
    ip, port, protocol = key
    flags = next((row["flags"] for row in rows if row["slot"] == "0" and row["flags"]), "")
    kind = flags.split(",")[0].strip() or "ClusterIP"
    backends = (
        (int(row["slot"]), row["ip"].strip("[]"), int(row["port"]))
        for row in rows
        if row["slot"] != "0"
    )
    return Frontend(
        address=ip,
        port=port,
        protocol=protocol,
        backends=tuple((ip, port) for _, ip, port in sorted(backends)),
        text=f"{end(ip, port)}/{(protocol or 'any').upper()} [{kind}]",
        left=LEFT.get(kind, ""),
        remembers="sessionAffinity" in flags,
    )


FRONTENDS: dict[str, Callable[[str], tuple[Frontend, ...]]] = {
    SERVICES: services,
    LB_LIST: lb_list,
}

# --- hubble observe, cilium-dbg monitor -------------------------------------------------------


class Seen(Value):
    """An event of a packet or of a socket.

    verdict: FORWARDED, DROPPED, TRANSLATED ..., as Hubble names them
    point: ``to-endpoint`` ...
    reason: why it was dropped
    source, destination: pods, where Hubble knew them
    """

    verdict: str
    flow: Flow
    point: str = ""
    reason: str = ""
    source: str = ""
    destination: str = ""
    node: str = ""
    reply: bool | None = None


def hubble(text: str) -> tuple[Seen, ...]:
    """Read ``hubble observe -o json`` (or ``jsonpb``): one flow a line. Raises ParseError."""
    return tuple(seen for line in _lines(text, "hubble") if (seen := _hubble(line)))


def monitor(text: str) -> tuple[Seen, ...]:
    """Read the drops and traces of ``cilium-dbg monitor -j``, one a line. Raises ParseError."""
    return tuple(seen for line in _lines(text, "monitor") if (seen := _monitor(line)))


def _lines(text: str, source: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield msgspec.json.decode(line, type=dict[str, Any])
            except (msgspec.DecodeError, RecursionError) as error:
                raise ParseError(source, number, str(error)) from None


def _hubble(event: dict[str, Any]) -> Seen | None:
    flow = event.get("flow", event)
    ip = _object(flow, "IP")
    if not ip:
        return None
    protocol, ports = _ports(_object(flow, "l4"))
    point = flow.get("sock_xlate_point") or flow.get("trace_observation_point") or ""
    reason = flow.get("drop_reason_desc") or ""
    return Seen(
        verdict=str(flow.get("verdict", "")),
        flow=_flow(protocol, ip.get("source"), ip.get("destination"), *ports),
        point=_plain(str(point)),
        reason="" if reason == "DROP_REASON_UNKNOWN" else str(reason),
        source=_pod(_object(flow, "source")),
        destination=_pod(_object(flow, "destination")),
        node=str(flow.get("node_name") or event.get("node_name") or ""),
        reply=flow.get("is_reply"),
    )


def _monitor(event: dict[str, Any]) -> Seen | None:
    kind = event.get("type")
    summary = _object(event, "summary")
    third = _object(summary, "l3")
    if kind not in ("drop", "trace") or not third:
        return None
    fourth = _object(summary, "l4")
    protocol = "tcp" if summary.get("tcp") else "udp" if summary.get("udp") else ""
    return Seen(
        verdict="DROPPED" if kind == "drop" else "FORWARDED",
        flow=_flow(
            protocol, third.get("src"), third.get("dst"), fourth.get("src"), fourth.get("dst")
        ),
        point=str(event.get("observationPoint", "")),
        reason=str(event.get("reason", "")),
        reply=event.get("state") == "reply" if kind == "trace" else None,
    )


def _object(document: dict[str, Any], key: str) -> dict[str, Any]:
    member = document.get(key)
    return member if isinstance(member, dict) else {}


def _ports(fourth: dict[str, Any]) -> tuple[str, tuple[Any, Any]]:
    for protocol, ports in fourth.items():
        if isinstance(ports, dict):
            layer4 = ports.get("source_port"), ports.get("destination_port")
            return protocol.lower(), layer4
    return "", (0, 0)


def _flow(protocol: str, src: object, dst: object, sport: object, dport: object) -> Flow:
    return Flow(
        protocol=protocol,
        src=str(src or ""),
        dst=str(dst or ""),
        sport=_number(sport),
        dport=_number(dport),
    )


def _number(text: object) -> int:
    return int(str(text)) if str(text or "").isdigit() else 0


def _pod(end: dict[str, Any]) -> str:
    name = end.get("pod_name")
    return f"{end.get('namespace', '')}/{name}" if name else ""


def _plain(point: str) -> str:
    """Return ``TO_ENDPOINT`` of newer versions as ``to-endpoint``, which monitor prints."""
    return point.lower().replace("_", "-").removeprefix("sock-xlate-point-")


# file of a bundle, who recorded it, how it is read
RECORDINGS: tuple[tuple[str, str, Callable[[str], tuple[Seen, ...]]], ...] = (
    ("hubble.json", "Hubble", hubble),
    ("cilium-monitor.json", "cilium-dbg monitor", monitor),
)

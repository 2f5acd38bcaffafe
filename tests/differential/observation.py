"""What a kernel did with one packet, and which of the packets about it is which.

``Observation`` holds two ``Seen``: of the packet and of the answer to it.
"""

from __future__ import annotations

from differential.packets import Sent
from differential.plan import ENDS

from kptrace.model import Flow, Packet, Value
from kptrace.packet.headers import dissect


class Exit(Value):
    """Where the packet left the router, and how it looked then."""

    end: str
    flow: Flow
    ttl: int


class Seen(Value):
    """legacy, nft: the rules that it met, in order; marks: after each of nft's (None: not told)

    left: None where it stayed; ``stayed``: the translated flow of one that the router itself took
    refusals: what the router told the sender
    """

    legacy: tuple[str, ...] = ()
    nft: tuple[str, ...] = ()
    marks: tuple[int | None, ...] = ()
    left: Exit | None = None
    stayed: Flow | None = None
    refusals: tuple[str, ...] = ()


class Observation(Value):
    """answerable: it begins a connection, so there is an answer to look at."""

    there: Seen
    back: Seen | None = None
    lost: bool = False
    answerable: bool = True


class NotSent(Exception):
    """The router's own stack would not send it; there is nothing to compare."""


def role(packet: Packet, sent: Sent, phase: str) -> str:
    """Whether it is the packet, its answer, a refusal, or none of these."""
    flow = packet.flow
    if flow.protocol == sent.protocol == "tcp" and packet.flags == (sent.flags or "S"):
        return "there"
    if packet.quoted is not None or (flow.protocol == "tcp" and "R" in packet.flags):
        return "refusal"
    if flow.protocol != sent.protocol:
        return ""
    if flow.protocol == "tcp":
        return "back" if packet.flags == "SA" else ""
    if flow.protocol == "udp":
        return phase
    return {8: "there", 128: "there", 0: "back", 129: "back"}.get((packet.icmp or (255, 0))[0], "")


def kind(packet: Packet) -> str:
    if packet.flow.protocol == "tcp":
        return "tcp reset"
    number, code = packet.icmp or (0, 0)
    return f"{packet.flow.protocol} {number}/{code}"


def received(end: str, data: bytes) -> Packet | None:
    """The packet of a frame that was meant for this end."""
    if data[:6].hex(":") != ENDS[end].mac or data[12:14] not in (b"\x08\x00", b"\x86\xdd"):
        return None
    found = dissect(data[14:])
    return found.packet if found else None


def exit_of(end: str, data: bytes) -> Exit | None:
    packet = received(end, data)
    return Exit(end=end, flow=packet.flow, ttl=packet.ttl) if packet else None

"""One Watch: every source of reports in every place, armed, read and ended together.

In: a Watch and the doors. Out: Ready with what could not be armed and why; then Sighting, RuleHit
and Drop as they come; at the end Lost for each layer of a place that lost some.

Whenever any source has something, all are read: frames first, in the order of their time stamps,
so that the flow of a UDP probe is known (wire/cookie.py) before its answer is looked at.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import ip_address
from typing import Protocol

from kptrace.model import Lost, Place, Sighting
from kptrace.node import marker
from kptrace.node.capture import Frame, Tap, tap_all
from kptrace.node.namespace import within
from kptrace.node.netlink import Conversation
from kptrace.node.nftrace import Tracer
from kptrace.protocol import Door, Ready, Reply, Unarmed, Watch
from kptrace.wire import bpf
from kptrace.wire.cookie import Recogniser
from kptrace.wire.headers import dissect

_NEEDS = {
    "capture": "CAP_NET_RAW",
    "rules": "CAP_NET_ADMIN",
    "drops": "CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN)",
}


class Source(Protocol):
    @property
    def place(self) -> Place: ...
    @property
    def layer(self) -> str: ...
    def fileno(self) -> int: ...
    def lost(self) -> int: ...
    def close(self) -> None: ...


class Watching:
    def __init__(self, request: Watch, doors: dict[Place, Door]) -> None:
        self._request = request
        self._recogniser = Recogniser(request.probes)
        self._sources = _udp_sources(request)
        self._taps: list[Tap] = []
        self._tracers: list[Tracer] = []
        self._marks: list[Conversation] = []
        self._unarmed: list[Unarmed] = []
        self._open = True
        self._arm([doors[place] for place in request.places])

    @property
    def sources(self) -> list[Source]:
        return [*self._taps, *self._tracers]

    def ready(self) -> Ready:
        armed = dict.fromkeys(source.layer for source in self.sources)
        return Ready(id=self._request.id, armed=tuple(armed), unarmed=tuple(self._unarmed))

    # --- arming -------------------------------------------------------------------------------

    def _arm(self, doors: list[Door]) -> None:
        layers = {"capture": self._arm_capture, "rules": self._arm_rules}
        for door in doors:
            for layer in self._request.layers:
                if layer in layers:
                    self._try(door, layer, layers[layer])

    def _try(self, door: Door, layer: str, arm: Callable[[Place], None]) -> None:
        try:
            within(door.netns, partial(arm, door.place))
        except OSError as error:
            remedy = f"grant {_NEEDS[layer]}" if error.errno in (errno.EPERM, errno.EACCES) else ""
            self._refuse(door.place, layer, str(error.strerror or error), remedy)

    def _refuse(self, place: Place, layer: str, why: str, remedy: str) -> None:
        self._unarmed.append(Unarmed(place=place, layer=layer, why=why, remedy=remedy))

    def _arm_capture(self, place: Place) -> None:
        program = bpf.program([p.cookie for p in self._request.probes], self._sources)
        self._taps += tap_all(place, bpf.assemble(program))

    def _arm_rules(self, place: Place) -> None:
        name = f"kptrace-{os.getpid()}-{secrets.token_hex(4)}"
        tracer = Tracer(place, name)
        mark = Conversation()
        try:
            mark.apply(marker.SUBSYSTEM, marker.table(name, self._request.probes, self._sources))
        except OSError:
            tracer.close()
            mark.close()
            raise
        self._marks.append(mark)
        self._tracers.append(tracer)

    # --- reading ------------------------------------------------------------------------------

    def read(self) -> list[Reply]:
        """All that is queued anywhere."""
        if not self._open:
            return []
        frames = sorted((f for tap in self._taps for f in tap.read()), key=_time)
        replies: list[Reply] = [s for f in frames if (s := self._sighting(f))]
        for tracer in self._tracers:
            replies += tracer.read(self._recogniser)
        return replies

    def _sighting(self, frame: Frame) -> Sighting | None:
        seen = dissect(frame.data)
        cookie = self._recogniser.recognise(seen) if seen else None
        if seen is None or cookie is None:
            return None
        return Sighting(
            place=frame.tap.place,
            interface=frame.tap.interface,
            ifindex=frame.tap.ifindex,
            direction="out" if frame.outgoing else "in",
            packet=seen.packet,
            time_ns=frame.time_ns,
            cookie=cookie,
            other_host=frame.other_host,
            dst_mac=frame.dst_mac,
            frame=frame.data,
        )

    # --- ending -------------------------------------------------------------------------------

    def drain(self) -> Iterator[Reply]:
        """What is still queued, until there is nothing, then what was lost."""
        while replies := self.read():
            yield from replies
        lost: Counter[tuple[Place, str]] = Counter()
        for source in self.sources:
            lost[source.place, source.layer] += source.lost()
        for (place, layer), count in lost.items():
            if count:
                yield Lost(place=place, layer=layer, count=count)

    def close(self) -> None:
        self._open = False
        for mark in self._marks:
            mark.close()
        for source in self.sources:
            source.close()


def _time(frame: Frame) -> int:
    return frame.time_ns


def _udp_sources(request: Watch) -> tuple[bpf.Source, ...]:
    """Where UDP answers may come from: the backends, and, in the sender's eyes, the Service."""
    backends = {(a, port) for protocol, a, port in request.backends if protocol == "udp"}
    targets = {(p.flow.dst, p.flow.dport) for p in request.probes if p.flow.protocol == "udp"}
    return tuple(sorted((str(ip_address(a)), port) for a, port in backends | targets))

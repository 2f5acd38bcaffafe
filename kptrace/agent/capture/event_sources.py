"""One Watch: every source of reports in every place, armed, read and ended together.

In: StartCapture and the handles. Out: CaptureStarted with what could not be armed and why; then
Sighting, RuleHit and Drop as they come; at the end Lost for each layer of a place that lost some.

Replies come about in the order of time, but not quite: sources are read one after the other.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import ip_address
from typing import Protocol

from kptrace.agent.capture.drop_tracer import DropTracer
from kptrace.agent.capture.packet_tap import Frame, Tap
from kptrace.agent.cleanup_guard import Guard
from kptrace.agent.netlink.socket import NetlinkSocket
from kptrace.agent.netns import inode, run_in_netns
from kptrace.agent.nftables import trace_table
from kptrace.agent.nftables.trace_events import NftTracer
from kptrace.agent.probe import sender
from kptrace.agent.xtables.nflog import LegacyTracer, families
from kptrace.agent.xtables.trace_rule import RawTrace
from kptrace.bpf import capture_filter
from kptrace.model import CapturedPacket, EventsLost, Netns
from kptrace.model.errors import ObservationError, UnsupportedError
from kptrace.packet.headers import dissect
from kptrace.packet.probe_id import ProbeMatcher
from kptrace.protocol import CaptureStarted, NetnsHandle, Reply, SourceUnavailable, StartCapture

_ROUNDS = 100  # of draining; a flood from a backend's port must not keep us for ever
# nf_tables is not there at all, or not for the family inet
_NO_NFTABLES = (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EINVAL)
_NEEDS = {
    "capture": "CAP_NET_RAW",
    "rules": "CAP_NET_ADMIN",
}


class EventSource(Protocol):
    @property
    def place(self) -> Netns: ...
    @property
    def layer(self) -> str: ...
    def fileno(self) -> int: ...
    def lost(self) -> int: ...
    def close(self) -> None: ...


class CaptureSession:
    def __init__(
        self,
        request: StartCapture,
        handles: dict[Netns, NetnsHandle],
        guard: Guard,
        rights: str = "",
    ) -> None:
        """rights: how the agent could have more of them, for the remedies"""
        self._request, self._guard, self._rights = request, guard, rights
        self._recogniser = ProbeMatcher(request.probes)
        self._sources = _udp_sources(request)
        self._taps: list[Tap] = []
        self._tracers: list[NftTracer | LegacyTracer | DropTracer] = []
        self._marks: list[NetlinkSocket] = []
        self._raw: dict[Netns, RawTrace] = {}
        self._unarmed: list[SourceUnavailable] = []
        self._unknown: list[Frame] = []
        self._open = True
        try:
            self._arm([handles[netns] for netns in request.namespaces])
        except BaseException:
            self.close()
            raise

    @property
    def sources(self) -> list[EventSource]:
        return [*self._taps, *self._tracers]

    def ready(self) -> CaptureStarted:
        armed = dict.fromkeys(source.layer for source in self.sources)
        return CaptureStarted(id=self._request.id, armed=tuple(armed), unarmed=tuple(self._unarmed))

    # --- arming -------------------------------------------------------------------------------

    def _arm(self, handles: list[NetnsHandle]) -> None:
        layers = self._request.sources
        for handle in handles:
            if "capture" in layers:
                self._try(handle, "capture", self._arm_capture)
            if "rules" in layers:
                self._try(handle, "rules", self._arm_rules)
        if "drops" in layers and handles:
            self._try(handles[0], "drops", partial(self._arm_drops, handles))

    def _try(self, handle: NetnsHandle, layer: str, arm: Callable[[NetnsHandle], None]) -> None:
        try:
            arm(handle)
        except ObservationError as error:
            self._refuse(handle.netns, layer, error.message, error.hint)
        except PermissionError:
            remedy = f"grant {_NEEDS[layer]}, and CAP_SYS_ADMIN to enter a namespace"
            self._refuse(handle.netns, layer, "not permitted", remedy)
        except OSError as error:
            self._refuse(handle.netns, layer, str(error.strerror or error), "")

    def _refuse(self, netns: Netns, layer: str, why: str, remedy: str) -> None:
        if remedy.startswith("grant ") and self._rights:
            remedy = f"{remedy}: {self._rights}"
        self._unarmed.append(SourceUnavailable(netns=netns, source=layer, reason=why, hint=remedy))

    def _arm_capture(self, handle: NetnsHandle) -> None:
        tcp = any(probe.flow.protocol == "tcp" for probe in self._request.probes)
        if tcp and not run_in_netns(handle.ns_path, sender.can_mark):
            raise UnsupportedError(
                "without CAP_NET_ADMIN a connection cannot be marked to be known again",
                "grant CAP_NET_ADMIN and CAP_NET_RAW",
            )
        program = capture_filter.program([p.probe_id for p in self._request.probes], self._sources)
        self._taps.append(
            run_in_netns(
                handle.ns_path, partial(Tap, handle.netns, capture_filter.assemble(program))
            )
        )

    def _arm_rules(self, handle: NetnsHandle) -> None:
        try:
            run_in_netns(handle.ns_path, partial(self._mark, handle.netns))
        except OSError as error:
            if error.errno not in _NO_NFTABLES:
                raise
            self._trace_by_rule(handle)
        legacy = run_in_netns(handle.ns_path, families)
        if legacy:
            before = self._raw[handle.netns].count if handle.netns in self._raw else {}
            tracer = run_in_netns(handle.ns_path, partial(LegacyTracer, handle.netns, before))
            self._tracers.append(tracer)
            tracer.log_to_us(handle, legacy, self._guard)

    def _mark(self, netns: Netns) -> None:
        tracer, mark = NftTracer(netns), NetlinkSocket()
        try:
            table = trace_table.table(trace_table.own_name(), self._request.probes, self._sources)
            mark.apply(trace_table.SUBSYSTEM, table)
        except OSError:
            mark.close()
            tracer.close()
            raise
        self._tracers.append(tracer)
        self._marks.append(mark)

    def _trace_by_rule(self, handle: NetnsHandle) -> None:
        if not run_in_netns(handle.ns_path, families):
            return  # no rules, so nothing to be told of
        if not self._request.raw_trace:
            raise UnsupportedError(
                "this kernel has no nftables for IPv4 and IPv6, so nothing can mark the probe",
                "--trace-rule allows an iptables-legacy rule `-t raw -j TRACE` for the probe alone,"
                " for the time of the trace",
            )
        raw_trace = RawTrace(handle, self._request.probes, self._sources, self._guard)
        self._raw[handle.netns] = raw_trace

    def _arm_drops(self, handles: list[NetnsHandle], handle: NetnsHandle) -> None:
        namespaces = {inode(d.ns_path): d.netns for d in handles}
        self._tracers.append(DropTracer(handle.netns, self._request.probes, namespaces))

    # --- reading ------------------------------------------------------------------------------

    def read(self) -> list[Reply]:
        """All that is queued anywhere.

        A UDP answer that comes without our cookie is known by its flow, once the probe was seen.
        The probe passed first, but perhaps behind our back, at a tap that we had just read. So what
        rule traces and drops say is fetched before the frames and understood after them, and a
        frame that nobody knows is looked at again after the next frames.
        """
        if not self._open:
            return []
        events = [(tracer, tracer.receive()) for tracer in self._tracers]
        fresh = sorted((f for tap in self._taps for f in tap.read()), key=_time)
        before, self._unknown = self._unknown, []
        replies: list[Reply] = []
        for frame in fresh:
            if sighting := self._sighting(frame):
                replies.append(sighting)
            else:
                self._unknown.append(frame)
        replies += (sighting for frame in before if (sighting := self._sighting(frame)))
        for tracer, data in events:
            replies += tracer.tell(data, self._recogniser)
        return replies

    def _sighting(self, frame: Frame) -> CapturedPacket | None:
        seen = dissect(frame.data)
        probe_id = self._recogniser.recognise(seen) if seen else None
        if seen is None or probe_id is None:
            return None
        return CapturedPacket(
            netns=frame.place,
            interface=frame.interface,
            ifindex=frame.ifindex,
            direction="out" if frame.outgoing else "in",
            packet=seen.packet,
            time_ns=frame.time_ns,
            probe_id=probe_id,
            other_host=frame.other_host,
            dst_mac=frame.dst_mac,
            frame=frame.data,
        )

    # --- ending -------------------------------------------------------------------------------

    def drain(self) -> Iterator[Reply]:
        """What is still queued, until there is nothing, then what was lost."""
        for _ in range(_ROUNDS):
            replies = self.read()
            yield from replies
            if not replies and not self._unknown:
                break
        lost: Counter[tuple[Netns, str]] = Counter()
        for source in self.sources:
            lost[source.place, source.layer] += source.lost()
        for (netns, layer), count in lost.items():
            if count:
                yield EventsLost(netns=netns, source=layer, count=count)

    def close(self) -> None:
        self._open = False
        for mark in self._marks:
            mark.close()
        for rules in self._raw.values():
            rules.close()
        for source in self.sources:
            source.close()


def _time(frame: Frame) -> int:
    return frame.time_ns


def _udp_sources(request: StartCapture) -> tuple[capture_filter.Source, ...]:
    """Where UDP answers may come from: the backends, and, in the sender's eyes, the Service."""
    backends = {(a, port) for protocol, a, port in request.backends if protocol == "udp"}
    targets = {(p.flow.dst, p.flow.dport) for p in request.probes if p.flow.protocol == "udp"}
    return tuple(sorted((str(ip_address(a)), port) for a, port in backends | targets))

"""What the kernel says of one packet: the rules that it met, and what came out where.

In: a Sent. Out: Seen, for the packet and for the answer to it. The rule trace is kptrace's own:
the marker table that the kernel owns for us, nftrace and NFLOG. Packets are sent one at a time, and
the process keeps to one processor, so that the kernel is done with a packet when it answers a
question for a link address that was asked behind it; twice, for a packet may pass the loopback.
Every packet begins with an empty conntrack table.
"""

from __future__ import annotations

import os
import select
import socket
import time
from contextlib import suppress
from functools import partial

import msgspec
from differential.ground import Ground
from differential.observation import NotSent, Observation, Seen, exit_of, kind, received, role
from differential.own_sockets import listen, receive, send_own, source_of
from differential.packets import Sent, answer, arp, frame
from differential.plan import ENDS, ROUTER

from kptrace.agent import netns
from kptrace.agent.netlink import conntrack
from kptrace.agent.netlink import socket as netlink
from kptrace.agent.netlink.socket import NetlinkSocket
from kptrace.agent.nftables import trace_table
from kptrace.agent.nftables.trace_events import NftTracer
from kptrace.agent.xtables.nflog import LegacyTracer
from kptrace.model import Flow, Packet, Probe, RuleTraceEvent
from kptrace.packet.headers import Dissection
from kptrace.packet.probe_id import probe_ids

OWN_TABLES = ("kpt-marker", "kpt-icmp")
# the marker knows TCP and UDP; echoes and what complains about them are marked by this. Its ``ct``
# keeps conntrack going: without a rule that asks for it the kernel has none, and no nat chain runs
ICMP_MARKER = """
table inet kpt-icmp {
 chain pre { type filter hook prerouting priority -350;
  icmp type { 0, 3, 8, 11 } meta nftrace set 1
  icmpv6 type { 1, 2, 3, 128, 129 } meta nftrace set 1
  ct state established counter
 }
 chain out { type filter hook output priority -350;
  icmp type { 0, 3, 8, 11 } meta nftrace set 1
  icmpv6 type { 1, 2, 3, 128, 129 } meta nftrace set 1
 }
}
"""
_COOKIES = 4096
_CT_GET, _CT_DELETE = 0x0101, 0x0102
_PATIENCE = 3.0


class _Everything:
    def recognise(self, seen: Dissection) -> int:
        return 0


class Witness:
    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self._numbers = probe_ids(int.from_bytes(os.urandom(4), "big"), _COOKIES)
        self._next = 0
        inside = ground.path()
        self._nft = netns.run_in_netns(inside, lambda: NftTracer(ground.place))
        self._log = netns.run_in_netns(inside, lambda: LegacyTracer(ground.place))
        self._asking = netns.run_in_netns(inside, NetlinkSocket)
        self._marker: NetlinkSocket | None = None
        self._listening = netns.run_in_netns(inside, listen)
        self._datagrams = netns.run_in_netns(inside, receive)
        self._frames: list[tuple[str, bytes]] = []
        self._chains: dict[tuple[str, str, str], int] = {}

    def arm(self) -> None:
        """Not while somebody lists: nft 1.0.6 may fail to print a table that has one flag."""
        if self._marker is None:
            self._marker = netns.run_in_netns(self.ground.path(), self._mark)

    def disarm(self) -> None:
        if self._marker is not None:
            self._marker.close()
            self._marker = None

    def _mark(self) -> NetlinkSocket:
        probe = Flow(protocol="tcp", src="", dst="", dport=1)
        datagram = Flow(protocol="udp", src="", dst="", dport=1)
        probes = [Probe(probe_id=n, flow=f) for n in self._numbers for f in (probe, datagram)]
        owner = NetlinkSocket()
        owner.apply(trace_table.SUBSYSTEM, trace_table.table(OWN_TABLES[0], probes))
        return owner

    def close(self) -> None:
        self.disarm()
        for one in (self._nft, self._log, self._asking):
            one.close()
        for sock in (*self._listening, *self._datagrams):
            sock.close()

    # --- one packet ---------------------------------------------------------------------------

    def watch(self, sent: Sent, lengths: dict[tuple[str, str, str], int]) -> Observation:
        """lengths: of legacy chains (family, table, chain): a number beyond is no rule's."""
        self._chains = lengths
        self._forget()
        cookie = self._cookie()
        sender = self._send(sent, cookie)
        try:
            self._settle()
            told = self._seen(sent, "there", self._collect())
            heard = told.left is None and self._echo()
            stayed = None if told.left else self._stayed(sent, told, heard)
            back = self._answered(sent, cookie, told, heard)
            there = msgspec.structs.replace(told.seen, stayed=stayed)
            return Observation(
                there=there,
                back=back,
                lost=bool(self._lost()),
                answerable=sent.flags in ("", "S"),
            )
        finally:
            if sender is not None:
                sender.close()
            self._hang_up(sent)
            self._settle()
            self._drain()

    def _cookie(self) -> int:
        self._next = (self._next + 1) % _COOKIES
        return self._numbers[self._next]

    def _forget(self) -> None:
        with suppress(FileNotFoundError):
            self._asking.ask(_CT_DELETE, netlink.netfilter(0))

    def _send(self, sent: Sent, cookie: int) -> socket.socket | None:
        if sent.start != ROUTER:
            self.ground.taps[sent.start].send(frame(sent, cookie))
            return None
        try:
            return netns.run_in_netns(self.ground.path(), lambda: send_own(sent, cookie))
        except OSError as error:
            raise NotSent(str(error)) from error

    def _answered(self, sent: Sent, cookie: int, told: _Told, heard: bool) -> Seen | None:
        """The answer's way, if somebody answers."""
        replies = told.replies
        if sent.flags not in ("", "S"):
            return None  # nobody answers what begins no connection
        if told.left is not None:
            end, data = told.captured[-1]
            back = answer(end, data, cookie) if told.left.flow.dst in ENDS[end].own else None
            if back is None:
                return None
            self.ground.taps[end].send(back)
        elif not heard:
            return self._seen(sent, "back", replies).seen if replies.any else None
        self._settle()
        more = self._collect()
        every = _Heap(replies.hits + more.hits, replies.frames + more.frames)
        return self._seen(sent, "back", every).seen

    def _echo(self) -> bool:
        """That of the router's own UDP sockets which got something sends it back, once."""
        for sock in self._datagrams:
            with suppress(BlockingIOError):
                data, extra, _, peer = sock.recvmsg(2048, 256)
                with suppress(OSError):
                    sock.sendmsg([data], [(a, b, source_of(a, c)) for a, b, c in extra], 0, peer)
                return True
        return False

    def _hang_up(self, sent: Sent) -> None:
        """Connections with the router itself end with their sockets, half-open ones too."""
        if sent.protocol == "tcp":
            for sock in self._listening:
                sock.close()
            self._listening = netns.run_in_netns(self.ground.path(), listen)
        for sock in self._datagrams:
            with suppress(BlockingIOError):
                while sock.recv(2048):
                    pass

    # --- reading ------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Until the kernel has done all that was queued before."""
        client = ENDS["client"]
        question = arp(client.mac, client.router_mac, "10.1.0.2", "10.1.0.1")
        for _ in range(2):
            self.ground.taps["client"].send(question)
            self._await_answer()

    def _await_answer(self) -> None:
        tap = self.ground.taps["client"]
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            try:
                data = tap.recv(4096)
            except BlockingIOError:
                select.select([tap], [], [], max(0.0, until - time.monotonic()))
                continue
            if data[12:14] == b"\x08\x06":
                return
            self._frames.append(("client", data))
        raise TimeoutError("the router does not answer a question for its link address")

    def _collect(self) -> _Heap:
        for name, tap in self.ground.taps.items():
            with suppress(BlockingIOError):
                while True:
                    self._frames.append((name, tap.recv(4096)))
        every = _Everything()
        hits = [*self._nft.tell(self._nft.receive(), every)]  # type: ignore[arg-type]
        hits += self._log.tell(self._log.receive(), every)  # type: ignore[arg-type]
        frames, self._frames = self._frames, []
        return _Heap(hits, frames)

    def _drain(self) -> None:
        self._collect()

    def _lost(self) -> int:
        return self._nft.lost() + self._log.lost()

    def _stayed(self, sent: Sent, told: _Told, heard: bool) -> Flow | None:
        """That an own packet's connection is known proves nothing: it was before the loopback."""
        return self._entry(sent) if not sent.own or heard or told.replies.any else None

    def _entry(self, sent: Sent) -> Flow | None:
        """How the connection is translated, where the packet got as far as being confirmed."""
        if not sent.protocol.startswith("icmp"):
            look = partial(conntrack.lookup, self.ground.place, sent.flow)
            known = netns.run_in_netns(self.ground.path(), look)
            return known.reply.reverse if known and known.original == sent.flow else None
        for found in self._asking.ask(_CT_GET, netlink.netfilter(0), netlink.DUMP):
            entry = conntrack.entry(self.ground.place, found.body[4:])
            if entry.original == sent.flow:
                return entry.reply.reverse
        return None

    def _seen(self, sent: Sent, phase: str, heap: _Heap) -> _Told:
        """What concerns the packet itself (``there``) or its answer (``back``)."""
        legacy: list[str] = []
        nft: list[RuleTraceEvent] = []
        replies: list[RuleTraceEvent] = []
        refusals: set[str] = set()
        packets: dict[int, Packet] = {}
        current: Packet | None = None
        for hit in heap.hits:
            if hit.packet is not None:
                packets[hit.trace_id] = current = hit.packet
            packet = packets.get(hit.trace_id, current) if hit.backend == "nft" else hit.packet
            part = role(packet, sent, phase) if packet else ""
            if packet is not None and part == "refusal":
                refusals.add(kind(packet))
            elif part == "back" and phase == "there":
                replies.append(_with(hit, packet))
            elif part == phase and hit.backend == "legacy":
                legacy += [_hit(hit)] if self._is_rule(hit) else []
            elif part == phase and hit.kind == "rule" and hit.table not in OWN_TABLES:
                nft.append(hit)
        captured, answers = [], []
        for end, data in heap.frames:
            packet = received(end, data)
            if packet is None:
                continue
            part = role(packet, sent, phase)
            if part == "refusal":
                refusals.add(kind(packet))
            elif part == phase:
                captured.append((end, data))
            elif part == "back":
                answers.append((end, data))
        left = exit_of(*captured[-1]) if captured else None
        seen = Seen(
            legacy=tuple(legacy),
            nft=tuple(map(_hit, nft)),
            marks=tuple(hit.mark for hit in nft),
            left=left,
            refusals=tuple(sorted(refusals)),
        )
        return _Told(seen, captured, _Heap(replies, answers))

    def _is_rule(self, hit: RuleTraceEvent) -> bool:
        return hit.number <= self._chains.get((hit.family, hit.table, hit.chain), 0)


class _Heap:
    def __init__(self, hits: list[RuleTraceEvent], frames: list[tuple[str, bytes]]) -> None:
        self.hits, self.frames = hits, frames

    @property
    def any(self) -> bool:
        return bool(self.hits or self.frames)


class _Told:
    """Seen, with what is needed to go on."""

    def __init__(self, seen: Seen, captured: list[tuple[str, bytes]], replies: _Heap) -> None:
        self.seen, self.captured, self.replies = seen, captured, replies
        self.left = seen.left


def _with(hit: RuleTraceEvent, packet: Packet | None) -> RuleTraceEvent:
    return msgspec.structs.replace(hit, packet=packet)


def _hit(hit: RuleTraceEvent) -> str:
    return f"{hit.family} {hit.table} {hit.chain} {hit.number}"

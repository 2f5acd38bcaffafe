"""The kernel's rule trace for legacy ip_tables and ip6_tables: NFLOG messages -> RuleHit.

In: a place. Out: every rule, chain end and policy that a marked packet met, in order.

Legacy tables report a traced packet through the namespace's packet logger. For us to hear it,
the sysctl net.netfilter.nf_log.2 (10 for IPv6) must say ``nfnetlink_log``, and we must hold its
group 0, of which there is one in a namespace. So group 0 is taken first; who has it may change
the sysctl, and puts it back (the guard does if we cannot).

The prefix says it: ``TRACE: nat:KUBE-SVC-ABC:rule:3 ``, the number being the n-th ``-A`` line of
the chain. The kernel calls every unconditional verdict a chain's end: ``return`` (in a user's
chain) or ``policy`` then carries that rule's number, or one past the last. There is no verdict
in it.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from struct import pack, unpack
from typing import Literal

from kptrace.agent.cleanup_guard import Guard
from kptrace.agent.netlink.socket import (
    SO_RCVBUFFORCE,
    NetlinkSocket,
    attribute,
    attributes,
    be32,
    messages,
    netfilter,
    number,
    string,
)
from kptrace.agent.xtables.trace_rule import CHAINS
from kptrace.model import Netns, RuleTraceEvent
from kptrace.model.errors import UnsupportedError
from kptrace.packet.headers import dissect
from kptrace.packet.probe_id import ProbeMatcher
from kptrace.protocol import NetnsHandle

_PACKET, _CONFIG = 0x0400, 0x0401
_BIND = 1
_COPY_PACKET = 2
_COPY_RANGE = 512
_BUFFER = 4 << 20
_SEQUENCE = itertools.count(1)  # of the process: what one watch told comes before the next's
_NET = Path("/proc/thread-self/net")
_FAMILIES: dict[int, tuple[str, str]] = {
    socket.AF_INET: ("ip", "ip_tables_names"),
    socket.AF_INET6: ("ip6", "ip6_tables_names"),
}
_LOGGER = "nfnetlink_log"
_PREFIX = re.compile(r"TRACE: ([^:]+):(.+):(rule|return|policy):(\d+) ")


def families() -> list[int]:
    """Those that have legacy tables in this namespace. Looking at this list makes no table."""
    return [f for f, (_, names) in _FAMILIES.items() if _text(_NET / names)]


class LegacyTracer:
    layer = "rules"

    def __init__(self, netns: Netns, before: Mapping[str, int] | None = None) -> None:
        """Takes group 0. To be called inside the namespace. Raises Unsupported if it is taken.

        before: by family, how many rules of ours stand first in the chains of ``raw``
        """
        self.place = netns
        self._before = before or {}
        self._names = dict(socket.if_nameindex())
        self._lost = 0
        self._conversation = NetlinkSocket()
        self._undo: list[int] = []
        self._guard: Guard | None = None
        try:
            self._bind()
        except OSError:
            self._conversation.close()
            raise UnsupportedError(
                f"iptables-legacy rules: NFLOG group 0 is held by {_holder()}",
                "stop that for the time of the trace; nft and iptables-nft rules are traced",
            ) from None

    def _bind(self) -> None:
        mode = pack("!IBB", _COPY_RANGE, _COPY_PACKET, 0)
        settings = (be32(4, 1), be32(5, 1))  # flush after 10 ms, and after each packet
        self._conversation.ask(_CONFIG, netfilter(0, attribute(1, bytes([_BIND]))))
        self._conversation.ask(_CONFIG, netfilter(0, attribute(2, mode), *settings))
        sock = self._conversation.socket
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _BUFFER)
        sock.setblocking(False)

    def log_to_us(self, handle: NetnsHandle, families: list[int], guard: Guard) -> None:
        """Make our group the logger of these families, until ``close``."""
        self._guard = guard
        for family in families:
            path = f"{_writable()}/net/netfilter/nf_log/{int(family)}"
            self._undo.append(guard.change(handle.held_path or handle.ns_path, path, _LOGGER))

    def fileno(self) -> int:
        return self._conversation.socket.fileno()

    def receive(self) -> list[bytes]:
        """All that is queued."""
        queued: list[bytes] = []
        while True:
            try:
                queued.append(self._conversation.socket.recv(1 << 16))
            except BlockingIOError:
                return queued
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    return queued
                self._lost += 1  # the kernel does not say how many

    def tell(self, queued: list[bytes], recogniser: ProbeMatcher) -> Iterator[RuleTraceEvent]:
        for event in (event for data in queued for event in messages(data)):
            hit = self._hit(event.body, recogniser) if event.type == _PACKET else None
            if hit:
                yield hit

    def _hit(self, body: bytes, recogniser: ProbeMatcher) -> RuleTraceEvent | None:
        attrs = attributes(body[4:])
        match = _PREFIX.match(string(attrs.get(10)))
        seen = dissect(attrs.get(9, b""))
        if match is None or seen is None or recogniser.recognise(seen) is None:
            return None
        kind: dict[str, Literal["rule", "return", "policy"]] = {
            "rule": "rule",
            "return": "return",
            "policy": "policy",
        }
        family = _FAMILIES.get(body[0], (str(body[0]), ""))[0]
        ours = self._before.get(family, 0) if match[1] == "raw" and match[2] in CHAINS else 0
        return RuleTraceEvent(
            netns=self.place,
            backend="legacy",
            family=family,
            table=match[1],
            chain=match[2],
            number=int(match[4]) - ours,
            kind=kind[match[3]],
            sequence=next(_SEQUENCE),
            time_ns=_time(attrs.get(3)),
            mark=number(attrs.get(2)),
            iif=self._name(attrs.get(4)),
            oif=self._name(attrs.get(5)),
            packet=seen.packet,
        )

    def _name(self, value: bytes | None) -> str:
        if value is None:
            return ""
        index = number(value)
        return self._names.get(index, str(index))

    def lost(self) -> int:
        return self._lost

    def close(self) -> None:
        if self._guard:
            for id in reversed(self._undo):
                self._guard.undo(id)
        self._conversation.close()


def _time(stamp: bytes | None) -> int:
    """Packets that were made here carry none."""
    if stamp is None or len(stamp) < 16:
        return time.time_ns()
    seconds, micros = unpack("!QQ", stamp[:16])
    return int(seconds * 1_000_000_000 + micros * 1000)


def _holder() -> str:
    """Who has group 0: its netlink port, that port's socket, and the process with that socket."""
    ports = [line.split()[1] for line in _lines("netfilter/nfnetlink_log", 0, "0")]
    for line in _lines("netlink", 2, *ports):
        socket_name = f"socket:[{line.split()[-1]}]"
        for process in Path("/proc").glob("[0-9]*"):
            if socket_name in _open_files(process):
                return f"process {process.name} ({_text(process / 'comm')})"
    return "another process"


def _lines(table: str, column: int, *values: str) -> list[str]:
    lines = _text(_NET / table).splitlines()
    return [line for line in lines if line.split()[column] in values]


def _open_files(process: Path) -> set[str]:
    try:
        return {os.readlink(fd) for fd in (process / "fd").iterdir()}
    except OSError:
        return set()  # it ended, or is none of ours to look into


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _writable() -> str:
    """/proc/sys; a container's is read-only unless it is privileged, its node's is not. Either
    shows the network namespace of who opens it (proc_sys(5)).
    """
    for root in ("/proc/sys", "/proc/1/root/proc/sys"):
        with suppress(OSError):
            if not os.statvfs(root).f_flag & os.ST_RDONLY:
                return root
    raise UnsupportedError(
        "iptables-legacy rules: /proc/sys is read-only here",
        "--profile sysadmin lets the agent tell the kernel to log to it",
    )

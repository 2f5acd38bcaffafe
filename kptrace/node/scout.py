"""Sends scouts: beginnings of connections, to learn where the node would send them.

In: a Scout, and the doors of the source and of its node. Out: Scouted for each probe, with the flow
as it left and what the node's conntrack (or IPVS) made of it.

A scout is an ordinary connect() or datagram that does not arrive: it is dropped where it would
leave the node (node/hold.py) or by the router that its TTL ends at. Nothing answers it, so closing
its socket sends nothing, and its conntrack entry stays unanswered for a while (SYN_SENT 120 s, UDP
30 s). What is sent from the same port meanwhile goes the same way: nat tables are asked once a
flow.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable
from functools import partial

from kptrace.model import ConntrackEntry, Flow, Place, Probe
from kptrace.node import conntrack, inject, ipvs_table
from kptrace.node.cgroup import within_cgroup
from kptrace.node.hold import hold
from kptrace.node.loop import READ, Task, Wait
from kptrace.node.namespace import within
from kptrace.protocol import Done, Door, Reply, Scout, Scouted

_PAUSE = 0.005  # seconds between two looks; the packet mostly has passed when it was sent
_ON_ITS_WAY = (0, errno.EINPROGRESS)
_Look = Callable[[Flow], ConntrackEntry | None]


def tasks(request: Scout, source: Door, node: Door, say: Callable[..., None]) -> list[Task]:
    """Tasks (node/loop.py) that say what became of each probe, and the last of them Done."""
    probes, place = request.probes, node.place
    sockets: list[socket.socket] = []
    try:
        with within_cgroup(source.cgroup):
            within(source.netns, lambda: sockets.extend(map(inject.open_socket, probes)))
        held = within(node.netns, partial(hold, probes, request.bridges)) if request.hold else None
    except OSError as error:
        for sock in sockets:
            sock.close()
        why = error.strerror or str(error)
        said = (Scouted(place=place, cookie=p.cookie, flow=p.flow, error=why) for p in probes)
        say(*said, Done(id=request.id))
        return []
    left = len(probes)

    def tell(word: Reply) -> None:
        nonlocal left
        left -= 1
        say(word)
        if not left:
            if held is not None:
                held.close()
            say(Done(id=request.id))

    look = partial(_look, node)
    pairs = zip(probes, sockets, strict=True)
    return [_scout(place, probe, sock, look, request.timeout, tell) for probe, sock in pairs]


def _look(node: Door, flow: Flow) -> ConntrackEntry | None:
    def find() -> ConntrackEntry | None:
        return conntrack.lookup(node.place, flow) or ipvs_table.lookup(node.place, flow)

    return within(node.netns, find)


def _scout(
    place: Place,
    probe: Probe,
    sock: socket.socket,
    look: _Look,
    timeout: float,
    tell: Callable[[Reply], None],
) -> Task:
    deadline = time.monotonic() + timeout
    flow, entry, error = probe.flow, None, ""
    try:
        refused = sock.connect_ex((flow.dst, flow.dport))
        src, sport = sock.getsockname()[:2]
        flow = Flow(protocol=flow.protocol, src=src, sport=sport, dst=flow.dst, dport=flow.dport)
        if flow.protocol == "udp":
            sock.send(probe.payload)
        over = refused not in _ON_ITS_WAY
        while not (entry := look(flow)) and not over:
            answered = yield Wait(sock, READ, time.monotonic() + _PAUSE)
            over = answered or time.monotonic() > deadline
        if refused not in _ON_ITS_WAY:
            error = os.strerror(refused)
    except OSError as failed:
        error = failed.strerror or str(failed)
    finally:
        sock.close()
    tell(Scouted(place=place, cookie=probe.cookie, flow=flow, entry=entry, error=error))

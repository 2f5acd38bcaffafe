"""Sends preflight probes: beginnings of connections, to learn where the node would send them.

In: SendPreflight, and the handles of the source and of its node. Out: a result for each probe, with
the flow as it left and what the node's conntrack (or IPVS) made of it.

A preflight probe is an ordinary connect() or datagram that does not arrive: it is dropped where it
would leave the node (agent/nftables/egress_block.py) or by the router that its TTL ends at. Nothing
answers it, so closing its socket sends nothing, and its conntrack entry stays unanswered for a
while (SYN_SENT 120 s, UDP 30 s). What is sent from the same port meanwhile goes the same way: nat
tables are asked once a flow.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterable
from functools import partial

from kptrace.agent.cgroup import within_cgroup
from kptrace.agent.loop import READ, Task, Wait
from kptrace.agent.netlink import conntrack
from kptrace.agent.netlink.socket import NetlinkSocket
from kptrace.agent.netns import run_in_netns
from kptrace.agent.nftables.egress_block import block_egress
from kptrace.agent.probe import sender
from kptrace.agent.state import ipvs_table
from kptrace.model import ConntrackEntry, Flow, Netns, Probe
from kptrace.protocol import Done, NetnsHandle, PreflightResult, Reply, SendPreflight

_PAUSE = 0.005  # seconds between two looks; the packet mostly has passed when it was sent
_ON_ITS_WAY = (0, errno.EINPROGRESS)
_Look = Callable[[Flow], ConntrackEntry | None]


class PreflightRun:
    """tasks: (agent/loop.py) they say what became of each probe, and the last of them Done.

    held: to be closed when nothing of the preflight probes can be under way any more. A packet may
    wait for seconds in a neighbour's queue, beyond conntrack and before the device.
    """

    def __init__(self, tasks: Iterable[Task] = (), held: NetlinkSocket | None = None) -> None:
        self.tasks, self._held = tuple(tasks), held

    def close(self) -> None:
        if self._held is not None:
            self._held.close()


def begin(
    request: SendPreflight, source: NetnsHandle, node: NetnsHandle, say: Callable[..., None]
) -> PreflightRun:
    probes, netns, id = request.probes, node.netns, request.id
    sockets: list[socket.socket] = []
    try:
        with within_cgroup(source.cgroup):
            run_in_netns(source.ns_path, lambda: sockets.extend(map(sender.open_socket, probes)))
        held = (
            run_in_netns(node.ns_path, partial(block_egress, probes, request.bridges))
            if request.block_egress
            else None
        )
    except OSError as error:
        for sock in sockets:
            sock.close()
        why = error.strerror or str(error)
        said = (
            PreflightResult(id=id, netns=netns, probe_id=p.probe_id, flow=p.flow, error=why)
            for p in probes
        )
        say(*said, Done(id=id))
        return PreflightRun()
    left = len(probes)

    def tell(word: Reply) -> None:
        nonlocal left
        left -= 1
        say(word)
        if not left:
            say(Done(id=id))

    look = partial(_look, node)
    pairs = zip(probes, sockets, strict=True)
    tasks = (_send(request, probe, sock, look, tell) for probe, sock in pairs)
    return PreflightRun(tasks, held)


def _look(node: NetnsHandle, flow: Flow) -> ConntrackEntry | None:
    def find() -> ConntrackEntry | None:
        return conntrack.lookup(node.netns, flow) or ipvs_table.lookup(node.netns, flow)

    return run_in_netns(node.ns_path, find)


def _send(
    request: SendPreflight,
    probe: Probe,
    sock: socket.socket,
    look: _Look,
    tell: Callable[[Reply], None],
) -> Task:
    deadline = time.monotonic() + request.timeout
    flow, entry = probe.flow, None
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
    except OSError:
        pass  # a rule refused it, or no route leads there: then there is no entry
    finally:
        sock.close()
    netns = Netns(node=request.netns.node)
    tell(
        PreflightResult(id=request.id, netns=netns, probe_id=probe.probe_id, flow=flow, entry=entry)
    )

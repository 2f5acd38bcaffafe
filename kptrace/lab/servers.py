"""The servers of a lab: one background process that answers in every pod's namespace.

    python -m kptrace.lab.servers NAME

A TCP port answers each connection at once, whether the client speaks or not, with a complete HTTP
response whose body is the pod's name: curl reads it as the answer to its request, nc and a bare
``recv`` see the same bytes. ``X-Peer`` is the client's address as the pod saw it, which tells what
was masqueraded. A UDP port answers a datagram with the pod's name, a newline and the datagram.
DNS pods run ``coredns`` with a zone file where that is installed, else ``kptrace.lab.dns``.

Life: the process says ``ready`` on its stdout once every port listens, and stays only if it is told
``stay`` on its stdin. So an ``up`` that is killed before it has written down who we are takes us
with it. Afterwards faults close and open ports by one line of JSON each on ``control.sock``.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from kptrace.agent.netns import run_in_netns
from kptrace.kube.objects.cluster_state import read_folder
from kptrace.lab import coredns, dns, state
from kptrace.lab.address_plan import Plan, PodPlan
from kptrace.lab.dns_zone import Zone, zone
from kptrace.lab.workloads import DNS, Listener
from kptrace.model import Value
from kptrace.model.errors import ObservationError

IDLE_SECONDS = 60.0
BACKLOG = 128


Doing = Literal["open", "close"]


class ServerCommand(Value):
    """What the control socket understands."""

    do: Doing
    pod: str
    protocol: str
    port: int


Port = tuple[str, str, int]


def main(name: str) -> None:
    asyncio.run(serve(state.load(name, half_made=True)))


async def serve(lab: state.Lab) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    servers = Servers(lab.plan, _zone(lab), lab.directory)
    try:
        await servers.open_all()
        await asyncio.start_unix_server(servers.control, lab.control, limit=4096)
        if await _told_to_stay():
            await ended.wait()
    finally:
        servers.close_all()


def _zone(lab: state.Lab) -> Zone:
    cluster_state = read_folder(lab.api)
    return zone(cluster_state.services, cluster_state.endpoints)


async def _told_to_stay() -> bool:
    """Report that we are ready; true when the ``up`` that started us lived to hear it."""
    print("ready", flush=True)
    order: str = await asyncio.to_thread(sys.stdin.readline)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    return order == "stay\n"


class Servers:
    """Every open port by pod, protocol and number; ``close`` of a port is a call."""

    def __init__(self, plan: Plan, zone: Zone, directory: Path) -> None:
        self.plan = plan
        self.zone = zone
        self.directory = directory
        self.open_ports: dict[Port, Callable[[], None]] = {}
        self.children: list[subprocess.Popen[bytes]] = []

    async def open_all(self) -> None:
        binary = shutil.which("coredns")
        for pod in self.plan.pods:
            if binary and pod.listeners == DNS:
                self.children.append(coredns.start(binary, pod, self.zone, self.directory))
                continue
            for listener in pod.listeners:
                await self.open(pod, listener)

    async def open(self, pod: PodPlan, listener: Listener) -> None:
        listening_socket = run_in_netns(f"{state.NETNS}/{pod.netns}", lambda: _bind(listener))
        key = (pod.key, listener.protocol, listener.port)
        if listener.protocol == "udp":
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: Datagrams(self._datagram_answer(pod, listener)), sock=listening_socket
            )
            self.open_ports[key] = transport.close
        else:
            server = await asyncio.start_server(
                self._connection_answer(pod, listener), sock=listening_socket, backlog=BACKLOG
            )
            self.open_ports[key] = server.close

    def _datagram_answer(self, pod: PodPlan, listener: Listener) -> Callable[[bytes], bytes | None]:
        if listener in DNS:
            return lambda query: dns.answer(self.zone, query, "udp")
        return lambda payload: f"{pod.name}\n".encode() + payload

    def _connection_answer(
        self, pod: PodPlan, listener: Listener
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]:
        if listener in DNS:
            return lambda reader, writer: resolve(self.zone, reader, writer)
        return lambda reader, writer: tell_name(pod.name, reader, writer)

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            order = msgspec.json.decode(await reader.readline(), type=ServerCommand)
            await self._obey(order)
            reply = ""
        except (msgspec.DecodeError, ValueError, StopIteration, OSError) as error:
            reply = str(error)
        writer.write(msgspec.json.encode(reply) + b"\n")
        writer.close()

    async def _obey(self, order: ServerCommand) -> None:
        """Idempotent: opening what is open and closing what is closed is no error."""
        pod = self.plan.pod(order.pod)
        listener = next(
            listener_
            for listener_ in pod.listeners
            if (listener_.protocol, listener_.port) == (order.protocol, order.port)
        )
        key = (pod.key, listener.protocol, listener.port)
        if order.do == "close":
            self.open_ports.pop(key, lambda: None)()
        elif key not in self.open_ports:
            await self.open(pod, listener)

    def close_all(self) -> None:
        for child in self.children:
            child.kill()
            child.wait()
        for close in self.open_ports.values():
            close()


def _bind(listener: Listener) -> socket.socket:
    """One socket for both families; the pod's addresses may come later than its server."""
    kind = socket.SOCK_DGRAM if listener.protocol == "udp" else socket.SOCK_STREAM
    listening_socket = socket.socket(socket.AF_INET6, kind)
    listening_socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listening_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening_socket.setblocking(False)
    listening_socket.bind(("::", listener.port))
    return listening_socket


class Datagrams(asyncio.DatagramProtocol):
    transport: asyncio.DatagramTransport

    def __init__(self, answer: Callable[[bytes], bytes | None]) -> None:
        self.answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own is none of its DatagramTransport class
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        reply = self.answer(data)
        if reply is not None:
            self.transport.sendto(reply, addr)


async def tell_name(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    peer, port = writer.get_extra_info("peername")[:2]
    body = f"{name}\n"
    head = f"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    try:
        writer.write(f"{head}X-Peer: {peer.removeprefix('::ffff:')} {port}\r\n\r\n{body}".encode())
        writer.write_eof()
        # closing with bytes unread would reset the connection under the client's feet
        async with asyncio.timeout(IDLE_SECONDS):
            while await reader.read(4096):
                pass
    except (OSError, TimeoutError):
        pass
    finally:
        writer.close()


async def resolve(zone: Zone, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """DNS over TCP: messages with a length before each (RFC 1035, 4.2.2)."""
    try:
        async with asyncio.timeout(IDLE_SECONDS):
            while True:
                length = int.from_bytes(await reader.readexactly(2))
                reply = dns.answer(zone, await reader.readexactly(length), "tcp")
                if reply is None:
                    break
                writer.write(len(reply).to_bytes(2) + reply)
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


def control(lab: state.Lab, order: ServerCommand) -> None:
    """Have the running servers open or close a port."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(5)
        try:
            line.connect(str(lab.control))
            line.sendall(msgspec.json.encode(order) + b"\n")
            reply = line.makefile("rb").readline()
        except OSError as error:
            raise ObservationError(
                f"the servers of lab {lab.name!r} do not answer: {error}",
                f"make it anew: kptrace lab down --name {lab.name}, then up",
            ) from error
    refused = msgspec.json.decode(reply, type=str)
    if refused:
        raise ObservationError(f"the servers of lab {lab.name!r}: {refused}")


if __name__ == "__main__":
    main(sys.argv[1])

"""A ground to try the agent on: two nodes with a bridge and a VXLAN, a client pod, a server pod.

    client - vethc - cni0 - flannel.1 - eth0 --- eth0 - flannel.1 - cni0 - veths - server
    10.244.1.10        (node a: 172.30.0.1)      (node b: 172.30.0.2)        10.244.2.20

Everything is in namespaces whose names carry our pid. Rules are put in by each test.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest

from kptrace.agent import netns
from kptrace.agent_client.subprocess_agent import SubprocessAgent
from kptrace.model import Flow, Netns, Probe
from kptrace.packet.probe_id import payload, probe_ids
from kptrace.protocol import (
    CaptureStarted,
    Done,
    NetnsHandle,
    Reply,
    Request,
    SendProbes,
    StartCapture,
    Stop,
)

V4 = {"client": "10.244.1.10", "server": "10.244.2.20", "vip": "10.96.0.50"}
V6 = {"client": "fd00:10:244:1::10", "server": "fd00:10:244:2::20", "vip": "fd00:10:96::50"}
TCP_PORT, UDP_PORT, VIP_PORT = 8080, 8081, 80

NODE = """
link add cni0 type bridge
addr add 10.244.{n}.1/24 dev cni0
addr add fd00:10:244:{n}::1/64 dev cni0 nodad
link set lo up
link set cni0 up
addr add 172.30.0.{n}/24 dev eth0
link set eth0 up
link add flannel.1 address 02:00:00:00:00:0{n} mtu 1450 type vxlan id 1 local 172.30.0.{n} \
dev eth0 dstport 8472 nolearning
addr add 10.244.{n}.0/32 dev flannel.1
link set flannel.1 up
neigh replace 10.244.{r}.0 dev flannel.1 lladdr 02:00:00:00:00:0{r} nud permanent
neigh replace fd00:10:244:{r}:: dev flannel.1 lladdr 02:00:00:00:00:0{r} nud permanent
route add 10.244.{r}.0/24 via 10.244.{r}.0 dev flannel.1 onlink
route add fd00:10:244:{r}::/64 via fd00:10:244:{r}:: dev flannel.1 onlink
link set {veth} master cni0
link set {veth} up
"""
POD = """
link set lo up
addr add {v4}/24 dev eth0
addr add {v6}/64 dev eth0 nodad
link set eth0 up
route add default via 10.244.{n}.1
route add default via fd00:10:244:{n}::1
"""
SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/bridge/bridge-nf-call-iptables": "1",
    "net/bridge/bridge-nf-call-ip6tables": "1",
}


class Ground:
    """places: by short name (``a``, ``b``, ``client``, ``server``)."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.places = {
            "a": Netns(node="a"),
            "b": Netns(node="b"),
            "client": Netns(node="a", pod="t/client"),
            "server": Netns(node="b", pod="t/server"),
        }
        self.netns_handles = tuple(
            NetnsHandle(netns=p, ns_path=self.path(n)) for n, p in self.places.items()
        )
        self._sockets: list[socket.socket] = []

    def name(self, short: str) -> str:
        return f"{self.tag}-{short}"

    def path(self, short: str) -> str:
        return f"/run/netns/{self.name(short)}"

    def build(self) -> None:
        for short in self.places:
            netns.create(self.name(short))
        self.ip("a", f"link add eth0 type veth peer name eth0 netns {self.name('b')}\n")
        for node, pod, veth, n, r in (
            ("a", "client", "vethc", 1, 2),
            ("b", "server", "veths", 2, 1),
        ):
            self.ip(node, f"link add {veth} type veth peer name eth0 netns {self.name(pod)}\n")
            self.write(node, {"net/ipv6/conf/default/accept_dad": "0"})
            self.ip(node, NODE.format(n=n, r=r, veth=veth))
            fdb = f"fdb replace 02:00:00:00:00:0{r} dev flannel.1 dst 172.30.0.{r} self permanent"
            self.run(node, "bridge", *fdb.split())
            self.write(node, SYSCTLS)
            self.ip(pod, POD.format(n=n, v4=V4[pod], v6=V6[pod]))
        self.serve()

    def ip(self, short: str, lines: str) -> None:
        self.run(short, "ip", "-batch", "-", text=lines)

    def run(self, short: str, *argv: str, text: str = "") -> str:
        call = partial(subprocess.run, argv, input=text, capture_output=True, text=True)
        done = netns.run_in_netns(self.path(short), call)
        assert done.returncode == 0, f"{argv}: {done.stderr}\n{text}"
        return str(done.stdout)

    def write(self, short: str, values: dict[str, str]) -> None:
        def put() -> None:
            for name, value in values.items():
                Path("/proc/sys", name).write_text(value)

        netns.run_in_netns(self.path(short), put)

    def clean(self) -> None:
        """Take every rule off both nodes."""
        for node in ("a", "b"):
            self.run(node, "nft", "flush", "ruleset")
            for version in ("", "6"):
                listed = self.run(node, "cat", f"/proc/self/net/ip{version}_tables_names").split()
                for table in listed:
                    for flag in ("-F", "-X"):
                        self.run(node, f"ip{version}tables-legacy", "-t", table, flag)

    def serve(self) -> None:
        """TCP: says its name and waits for the end. UDP: answers, without the cookie."""

        def open_all() -> list[socket.socket]:
            tcp = socket.create_server(
                ("::", TCP_PORT), family=socket.AF_INET6, dualstack_ipv6=True
            )
            udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            udp.bind(("::", UDP_PORT))
            return [tcp, udp]

        tcp, udp = self._sockets = netns.run_in_netns(self.path("server"), open_all)
        threading.Thread(target=_greet, args=(tcp,), daemon=True).start()
        threading.Thread(target=_answer, args=(udp,), daemon=True).start()

    def close(self) -> None:
        for sock in self._sockets:
            sock.shutdown(socket.SHUT_RDWR) if sock.type == socket.SOCK_STREAM else None
            sock.close()
        for short in self.places:
            netns.delete(self.name(short))


def _greet(listener: socket.socket) -> None:
    while True:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        with peer, suppress(OSError):  # a client that was killed resets
            peer.sendall(b"server\n")
            peer.recv(100)


def _answer(sock: socket.socket) -> None:
    while True:
        try:
            _, peer = sock.recvfrom(2000)
            sock.sendto(b"server", peer)
        except OSError:
            return


@pytest.fixture(scope="session")
def ground() -> Iterator[Ground]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    built = Ground(f"kpa{os.getpid()}")
    with ExitStack() as stack:
        stack.callback(built.close)
        built.build()
        yield built


@pytest.fixture(autouse=True)
def bare(ground: Ground) -> Iterator[None]:
    """Each test starts without rules."""
    yield
    ground.clean()


@pytest.fixture
def agent(ground: Ground) -> Iterator[SubprocessAgent]:
    with SubprocessAgent("a", ground.netns_handles) as running:
        yield running


@pytest.fixture
def probe_to() -> ProbeTo:
    return ProbeTo()


@pytest.fixture
def observe(ground: Ground, agent: SubprocessAgent, probe_to: ProbeTo) -> Observe:
    return Observe(ground, agent, probe_to)


class Observe:
    """Watches everything while a probe to this address is sent; gives all replies."""

    def __init__(self, ground: Ground, agent: SubprocessAgent, probe_to: ProbeTo) -> None:
        self._ground, self._agent, self._probe_to = ground, agent, probe_to
        self._ids = itertools.count(100)

    def __call__(
        self,
        dst: str,
        port: int,
        protocol: str = "tcp",
        *,
        source: str = "client",
        backend: str = "",
        timeout: float = 2.0,
        count: int = 1,
    ) -> list[Reply]:
        began = len(self._agent.log)
        places = tuple(self._ground.places.values())
        probes = self._probe_to(dst, port, protocol, count=count)
        backends = ((protocol, backend, UDP_PORT),) if backend else ()
        watch = StartCapture(
            id=next(self._ids), namespaces=places, probes=probes, backends=backends
        )
        ready = self.ask(watch)
        assert isinstance(ready, CaptureStarted)
        assert ready.armed == ("capture", "rules", "drops"), ready
        self.ask(
            SendProbes(
                id=next(self._ids),
                netns=self._ground.places[source],
                probes=probes,
                timeout=timeout,
            )
        )
        self.ask(Stop(id=next(self._ids), of=watch.id))
        return self._agent.log[began:]

    def ask(self, request: Request) -> Reply:
        """The reply that ends it."""
        self._agent.send(request)
        assert self._agent.wait(request.id, 20)
        return next(
            r
            for r in self._agent.log
            if isinstance(r, CaptureStarted | Done) and r.id == request.id
        )


class ProbeTo:
    """Makes probes with fresh cookies and a source port of our own choosing."""

    def __init__(self) -> None:
        self._first = int.from_bytes(os.urandom(4), "big")

    def __call__(
        self, dst: str, port: int, protocol: str = "tcp", src: str = "", count: int = 1
    ) -> tuple[Probe, ...]:
        self._first += 1 << 16
        return tuple(
            Probe(
                probe_id=cookie,
                flow=Flow(protocol=protocol, src=src, dst=dst, dport=port),
                payload=payload(cookie, port) if protocol == "udp" else b"",
            )
            for cookie in probe_ids(self._first, count)
        )

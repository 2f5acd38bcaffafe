"""EDGE: the lab's socket load balancer: real maps with Cilium's layout, real programs at connect().

Each node has maps of its own, pinned as Cilium pins them, in a bpffs that is the lab's alone::

    /run/kptrace/lab/NAME/bpffs/node-a/tc/globals/cilium_lb4_services_v2 ...

and a cgroup, ``kptrace-NAME-node-a``, that the programs are attached to: what opens a socket in it
is a client on that node. Nothing else holds them: maps go with the mount, programs with the cgroup.
So ``remove`` needs nothing but the plan, and neither needs the other to have finished.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from kptrace.agent import bpf_syscall
from kptrace.lab import host_commands
from kptrace.lab.address_plan import NodePlan, Plan
from kptrace.lab.dataplane.cilium.services import Entries, Maps, maps
from kptrace.lab.dataplane.cilium.socket_lb_programs import (
    MAPPED,
    V4,
    V6,
    Fds,
    backward,
    either,
    forward,
)
from kptrace.lab.dataplane.kubeproxy.load import FAMILIES
from kptrace.lab.dataplane.kubeproxy.service_port import ProxyNode
from kptrace.lab.state import bpffs, cgroup
from kptrace.model import Endpoint, Service
from kptrace.model.errors import ObservationError, PermissionDeniedError, UnsupportedError

MOST = 65536


class _Kind(NamedTuple):
    """A map's field in ``Maps``, its pin without the family's digit, its kind and its sizes."""

    field: str
    pin: str
    kind: int
    key: tuple[int, int]
    value: tuple[int, int]


KINDS = (
    _Kind("services", "cilium_lb{}_services_v2", bpf_syscall.HASH, (12, 24), (12, 12)),
    _Kind("backends", "cilium_lb{}_backends_v3", bpf_syscall.HASH, (4, 4), (12, 24)),
    _Kind("reverse", "cilium_lb{}_reverse_nat", bpf_syscall.HASH, (2, 2), (6, 18)),
)
IPCACHE = _Kind("ipcache", "cilium_ipcache_v2", bpf_syscall.LPM_TRIE, (24, 24), (24, 24))
SOCKETS = _Kind("sockets", "cilium_lb{}_reverse_sk", bpf_syscall.LRU_HASH, (16, 32), (8, 20))
AFFINITY = _Kind("affinity", "cilium_lb{}_affinity", bpf_syscall.LRU_HASH, (16, 24), (16, 16))

# enum bpf_attach_type
CONNECT, SENDMSG, RECVMSG, GETPEERNAME = 10, 14, 19, 29
CONNECT6, SENDMSG6, RECVMSG6, GETPEERNAME6 = 11, 15, 20, 30

Cluster = tuple[Sequence[Service], Mapping[str, Sequence[Endpoint]]]


# --- up -----------------------------------------------------------------------------------------


def prepare(plan: Plan) -> None:
    """What all nodes share; before any of them."""
    bpffs(plan).mkdir(parents=True, exist_ok=True)
    host_commands.run(("mount", "-t", "bpf", f"kptrace-{plan.name}", str(bpffs(plan))))


def install(plan: Plan, node: NodePlan, proxy: ProxyNode, cluster: Cluster) -> None:
    """Maps with all that the node should know, pinned; programs on its cgroup."""
    pins = _pins(plan, node)
    pins.mkdir(parents=True)
    cgroup(plan, node.name).mkdir()
    with _closing() as fds:
        ipcache = fds.keep(_make(IPCACHE, 4, bpf_syscall.NO_PREALLOC))
        bpf_syscall.pin(ipcache, pins / IPCACHE.pin)
        maps_by_family: dict[int, Fds] = {}
        for family, expected in _expected_maps(plan, proxy, cluster):
            held = {kind.field: fds.keep(_make(kind, family)) for kind in KINDS}
            held |= {kind.field: fds.keep(_make(kind, family)) for kind in (AFFINITY, SOCKETS)}
            for kind in (*KINDS, AFFINITY, SOCKETS):
                bpf_syscall.pin(held[kind.field], pins / kind.pin.format(family))
            for kind in KINDS:
                _fill(held[kind.field], getattr(expected, kind.field))
            _fill(ipcache, expected.ipcache)
            del held["reverse"]
            maps_by_family[family] = Fds(ipcache=ipcache, **held)
        for code, hook, name in _programs(maps_by_family[4], maps_by_family[6]):
            program = fds.keep(_load(code, hook, name))
            bpf_syscall.attach(program, str(cgroup(plan, node.name)), hook)


def reload(plan: Plan, node: NodePlan, proxy: ProxyNode, old: Cluster, new: Cluster) -> None:
    """From one view to another on a node that has its maps."""
    pins = _pins(plan, node)
    before, after = (_expected_maps(plan, proxy, cluster) for cluster in (old, new))
    for (family, was), (_, expected) in zip(before, after, strict=True):
        for kind in KINDS:
            with _closing() as fds:
                fd = fds.keep(bpf_syscall.pinned(pins / kind.pin.format(family), to_write=True))
                gone = getattr(was, kind.field).keys() - getattr(expected, kind.field).keys()
                _fill(fd, getattr(expected, kind.field))
                for key in gone:
                    with suppress(FileNotFoundError):
                        bpf_syscall.delete(fd, key)
        _forget(pins / AFFINITY.pin.format(family))


def _forget(pin: Path) -> None:
    """Which backend a client has: by an id that may now be another's."""
    with _closing() as fds:
        fd = fds.keep(bpf_syscall.pinned(pin, to_write=True))
        for key, _ in [*bpf_syscall.entries(fd, bpf_syscall.shape(fd))]:
            with suppress(FileNotFoundError):
                bpf_syscall.delete(fd, key)


def _expected_maps(plan: Plan, proxy: ProxyNode, cluster: Cluster) -> Iterator[tuple[int, Maps]]:
    nodes = [address for node in plan.nodes for address in node.addresses]
    for family in FAMILIES:
        yield (6 if family == "ip6" else 4), maps(*cluster, proxy, family, nodes)


def _pins(plan: Plan, node: NodePlan) -> Path:
    return bpffs(plan) / node.name / "tc" / "globals"


def _make(kind: _Kind, family: int, flags: int = 0) -> int:
    which = 1 if family == 6 else 0
    name = kind.pin.format(family)[:15]
    try:
        return bpf_syscall.make_map(
            kind.kind, kind.key[which], kind.value[which], MOST, flags, name
        )
    except PermissionError as error:
        raise PermissionDeniedError(f"bpf: {error.strerror}", host_commands.PRIVILEGED) from None


def _fill(fd: int, entries: Entries) -> None:
    for key, value in entries.items():
        bpf_syscall.write(fd, key, value)


def _programs(fds: Fds, fds6: Fds) -> Iterator[tuple[bytes, int, str]]:
    there, back = forward(fds, V4), backward(fds, V4)
    there6 = either(forward(fds, MAPPED), forward(fds6, V6))
    back6 = either(backward(fds, MAPPED), backward(fds6, V6))
    yield there, CONNECT, "cil_sock4_connect"
    yield there, SENDMSG, "cil_sock4_sendmsg"
    yield back, RECVMSG, "cil_sock4_recvmsg"
    yield back, GETPEERNAME, "cil_sock4_getpeername"
    yield there6, CONNECT6, "cil_sock6_connect"
    yield there6, SENDMSG6, "cil_sock6_sendmsg"
    yield back6, RECVMSG6, "cil_sock6_recvmsg"
    yield back6, GETPEERNAME6, "cil_sock6_getpeername"


def _load(code: bytes, hook: int, name: str) -> int:
    try:
        return bpf_syscall.load(bpf_syscall.CGROUP_SOCK_ADDR, code, hook, name[:15])
    except OSError as error:
        raise ObservationError(
            f"the kernel refuses {name}: {error.strerror}",
            "it needs CONFIG_CGROUP_BPF and bpf_set_retval (Linux 5.18)",
        ) from None


class _closing:
    """Descriptors that are closed at the end, whatever happens."""

    def __enter__(self) -> _closing:
        self._fds: list[int] = []
        return self

    def keep(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def __exit__(self, *_: object) -> None:
        while self._fds:
            os.close(self._fds.pop())


# --- down ---------------------------------------------------------------------------------------


def remove(plan: Plan) -> None:
    """Whatever there is; a process in a node's cgroup goes back to the root's."""
    if bpffs(plan).is_mount():
        host_commands.run(("umount", "--lazy", str(bpffs(plan))))
    shutil.rmtree(bpffs(plan), ignore_errors=True)
    with suppress(UnsupportedError):
        for node in plan.nodes:
            _remove_cgroup(cgroup(plan, node.name))


def _remove_cgroup(directory: Path) -> None:
    if not directory.exists():
        return
    for pid in (directory / "cgroup.procs").read_text().split():
        with suppress(OSError):
            (directory.parent / "cgroup.procs").write_text(pid)
    directory.rmdir()

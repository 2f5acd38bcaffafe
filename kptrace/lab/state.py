"""Where a lab is written down, and how any process finds it again.

    /run/kptrace/lab/NAME/state.json   the few values of its plan, its servers, its faults
    /run/kptrace/lab/NAME/api/         the cluster's documents, as ``kubectl get -o json`` prints
    /run/kptrace/lab/NAME/control.sock the servers' ear
    /run/kptrace/lab/NAME/bpffs        where a Cilium-like lab pins its maps, a folder a node
    /run/netns/kpt-NAME-*              its namespaces, and /etc/netns/kpt-NAME-*/resolv.conf

``/run`` is emptied at boot, as network namespaces are. The state is written before anything else
is made, so that ``down`` finds what a killed ``up`` left. Whoever changes a lab holds the lock.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from kptrace.lab.address_plan import Plan, check_name, plan
from kptrace.model import Netns, Value
from kptrace.model.errors import (
    ClusterUnreachableError,
    ObservationError,
    PermissionDeniedError,
    UnsupportedError,
)
from kptrace.protocol import NetnsHandle

ROOT = Path("/run/kptrace/lab")
NETNS = Path("/run/netns")
ETC = Path("/etc/netns")


class Process(Value):
    """``started``: in clock ticks since boot; with the pid it names one process for ever."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process:
        return cls(pid=pid, started=_start_time(pid))

    def alive(self) -> bool:
        try:
            return _start_time(self.pid) == self.started
        except OSError:
            return False

    def end(self) -> None:
        """Kill it and wait until it is gone."""
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.alive():
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                _wait(fd)
        except ProcessLookupError:
            pass
        finally:
            os.close(fd)


class ActiveFault(Value):
    """A fault that is in the lab: its name and what stood there before."""

    fault: str
    before: dict[str, str] = msgspec.field(default_factory=dict)


class LabStateFile(Value):
    """``ready``: false while ``up`` is at work, and for ever if it was killed."""

    nodes: int
    proxy: str
    network: str
    scheduler: str = "rr"
    ready: bool = False
    servers: Process | None = None
    faults: tuple[ActiveFault, ...] = ()


class Lab(Value):
    """A lab as the rest of kptrace sees it: its places with the way into each, and its API."""

    plan: Plan
    state: LabStateFile

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def directory(self) -> Path:
        return ROOT / self.plan.name

    @property
    def api(self) -> Path:
        """The folder with services.json and so on."""
        return self.directory / "api"

    @property
    def control(self) -> Path:
        return self.directory / "control.sock"

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.plan.nodes)

    @property
    def handles(self) -> tuple[NetnsHandle, ...]:
        """The way into every node and pod. A node has no resolver of its own."""
        handles = self._plain_handles()
        return handles if not self.plan.cilium else tuple(map(self._with_programs, handles))

    def _with_programs(self, handle: NetnsHandle) -> NetnsHandle:
        """Where a node's maps are pinned, and the cgroup that its programs are attached to."""
        node = handle.netns.node
        return msgspec.structs.replace(
            handle, bpffs=str(bpffs(self.plan) / node), cgroup=str(cgroup(self.plan, node))
        )

    def _plain_handles(self) -> tuple[NetnsHandle, ...]:
        return (
            *(
                NetnsHandle(netns=item.place, ns_path=str(NETNS / item.netns))
                for item in self.plan.nodes
            ),
            *(
                NetnsHandle(
                    netns=item.place,
                    ns_path=str(NETNS / item.netns),
                    resolv_conf=str(ETC / item.netns / "resolv.conf"),
                )
                for item in self.plan.pods
            ),
        )

    def netns_handle(self, netns: Netns) -> NetnsHandle:
        return next(handle for handle in self.handles if handle.netns == netns)

    def with_state(self, state: LabStateFile) -> Lab:
        return msgspec.structs.replace(self, state=state)


def bpffs(plan: Plan) -> Path:
    """A mount of its own, with a folder a node that is what /sys/fs/bpf is on a real one."""
    return ROOT / plan.name / "bpffs"


def cgroup(plan: Plan, node: str) -> Path:
    """What opens sockets in it is a client on the node. Raises Unsupported without cgroup2."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")  # proc(5)
        if after.split()[0] == "cgroup2":
            return Path(before.split()[4]) / f"kptrace-{plan.name}-{node}"
    raise UnsupportedError("cgroup2 is not mounted", "mount -t cgroup2 none /mnt")


def load(name: str = "default", *, half_made: bool = False) -> Lab:
    """The lab of that name; ``ClusterUnreachableError`` when there is none or it was never
    finished.
    """
    check_name(name)
    try:
        text = (ROOT / name / "state.json").read_bytes()
    except FileNotFoundError:
        others = f"; there is: {', '.join(names())}" if names() else ""
        raise ClusterUnreachableError(
            f"there is no lab named {name!r}", f"make it: kptrace lab up{_option(name)}{others}"
        ) from None
    except PermissionError as error:
        raise PermissionDeniedError(
            f"lab {name!r} cannot be read: {error}", "run as root"
        ) from error
    try:
        state = msgspec.json.decode(text, type=LabStateFile)
        lab_plan = plan(name, state.nodes, state.proxy, state.network, state.scheduler)
        lab = Lab(plan=lab_plan, state=state)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ObservationError(
            f"{ROOT / name / 'state.json'} is not a lab's: {error}",
            f"remove {ROOT / name} and, with `ip netns del`, the namespaces kpt-{name}-*",
        ) from error
    if not (state.ready or half_made):
        raise ClusterUnreachableError(
            f"lab {name!r} is half made: its `up` is still at work or was killed",
            f"remove it: kptrace lab down{_option(name)}",
        )
    return lab


def save(lab: Lab) -> None:
    """In one step: a reader sees the old state or the new one."""
    lab.directory.mkdir(parents=True, exist_ok=True)
    target = lab.directory / "state.json"
    fresh = target.with_suffix(".new")
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(lab.state)) + b"\n")
    fresh.replace(target)


def names() -> tuple[str, ...]:
    """Every lab that is there."""
    return tuple(sorted(path.parent.name for path in ROOT.glob("*/state.json")))


@contextmanager
def locked() -> Iterator[None]:
    """One process at a time makes, breaks or removes labs; the lock dies with its holder."""
    while True:
        ROOT.mkdir(parents=True, exist_ok=True)
        fd = os.open(ROOT, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(fd, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), ROOT.stat()):
                break
        # the last lab went while we waited, and the directory with it
        os.close(fd)
    try:
        yield
    finally:
        for directory in (ROOT, ROOT.parent):
            with suppress(OSError):
                directory.rmdir()
        os.close(fd)


def _option(name: str) -> str:
    return "" if name == "default" else f" --name {name}"


def _start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat (proc(5)); the name before it may hold spaces and brackets."""
    text = Path(f"/proc/{pid}/stat").read_text()
    state, *rest = text.rpartition(")")[2].split()
    if state in "ZX":
        raise ProcessLookupError(pid)
    return int(rest[18])


def _wait(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll(5000)

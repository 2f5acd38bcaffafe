"""A cgroup (version 2) that sockets are made in, so that the BPF programs on it meet them.

A socket belongs for ever to the cgroup of the process that made it (sock_cgroup, include/linux/
cgroup-defs.h), so it is enough to be there while it is made. A process that is in the source's own
cgroup anyway, as a pod's is, names none.

On a real node ``looked_up`` finds the pod's. To move takes the kernel tens of milliseconds, so it
is done only where it matters: where other programs are at connect(2) there than at our own.
Cilium's are on the root of the hierarchy, which all are below.

The mounts of process 1 tell where version 2 is: at /sys/fs/cgroup, at /sys/fs/cgroup/unified beside
version 1 (systemd's hybrid), or nowhere. A container may see the hierarchy from its own cgroup
down (cgroup_namespaces(7)), and leave that only as process 1 may; so all is done in its view.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec

from kptrace.agent.netns import within_cgroups
from kptrace.protocol import CGROUP_UNAVAILABLE, FileContent, NetnsHandle

_PROCESSES = "cgroup.procs"
# enum bpf_attach_type: where a program can put a backend in the place of a Service
HOOKS = {"connect4": 10, "connect6": 11, "sendmsg4": 14, "sendmsg6": 15}
RIGHTS = "an agent with CAP_SYS_ADMIN, CAP_SYS_PTRACE and CAP_NET_ADMIN, and a writable cgroup2"


@contextmanager
def within_cgroup(directory: str) -> Iterator[None]:
    """The whole process is in it, then again where it was. Empty: it stays."""
    if not directory:
        yield
        return
    node = _view(Path("/proc"))
    there = Path(directory)
    back = _top(there) / within_cgroups(node, _own).lstrip("/")
    within_cgroups(node, partial(_join, there))
    try:
        yield
    finally:
        within_cgroups(node, partial(_join, back))


def looked_up(id: int, handle: NetnsHandle) -> tuple[NetnsHandle, tuple[FileContent, ...]]:
    """The handle of a pod with its cgroup, where sockets have to be made there; and why they cannot
    be, if so.
    """
    process = Path(handle.ns_path).parents[1]  # /proc/PID/ns/net
    try:
        directory = with_programs(process)
        with within_cgroup(directory):
            return msgspec.structs.replace(handle, cgroup=directory), ()
    except (FileNotFoundError, ProcessLookupError):
        return handle, ()  # it has ended; the next to look for it says so
    except OSError as error:
        why = f"the pod's cgroup may have programs of its own at connect(): {error.strerror}"
        content = FileContent(
            id=id, netns=handle.netns, file=CGROUP_UNAVAILABLE, unavailable=why, hint=RIGHTS
        )
        return handle, (content,)


def with_programs(process: Path) -> str:
    """The directory of a process' cgroup, as everybody in /proc can reach it; empty where what is
    made here meets the same programs.
    """
    return within_cgroups(_view(process.parent), partial(_with_programs, process))


def _with_programs(process: Path) -> str:
    init = process.parent / "1"
    top = mounted((init / "mountinfo").read_text())
    theirs, own = (path_in(path / "cgroup") for path in (process, process.parent / "self"))
    if not top or not theirs or theirs == own:
        return ""
    root = init / "root" / top.lstrip("/")
    there, here = (root / path.lstrip("/") for path in (theirs, own))
    return str(there) if _programs(there) != _programs(here) else ""


def mounted(mountinfo: str) -> str:
    """Where the whole of version 2 is mounted (proc(5)); empty: nowhere."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[:1] == ["cgroup2"] and before.split()[3] == "/":
            return before.split()[4]
    return ""


def path_in(cgroup: Path) -> str:
    """``0::/system.slice/x`` among those of version 1 (cgroups(7)); empty: there is none."""
    lines = cgroup.read_text().splitlines()
    path = next((line[3:] for line in lines if line.startswith("0::")), "")
    return "" if path.endswith(" (deleted)") else path


def _programs(directory: Path) -> tuple[tuple[int, ...], ...]:
    from kptrace.agent import bpf_syscall

    try:
        return tuple(bpf_syscall.effective(directory, hook) for hook in HOOKS.values())
    except OSError as error:
        if error.errno == errno.EINVAL:  # a kernel without CONFIG_CGROUP_BPF has none
            return ()
        raise


def _own() -> str:
    return path_in(Path("/proc/self/cgroup"))


def _join(directory: Path) -> None:
    (directory / _PROCESSES).write_text("0")


def _view(proc: Path) -> str:
    """Process 1's; where that may not be known, our own is as good as we have."""
    of_1 = proc / "1" / "ns" / "cgroup"
    try:
        of_1.stat()
    except PermissionError:
        return "/proc/self/ns/cgroup"
    return str(of_1)


def _top(directory: Path) -> Path:
    """Where the hierarchy is mounted: nothing above it is a cgroup."""
    while (directory.parent / _PROCESSES).exists():
        directory = directory.parent
    return directory

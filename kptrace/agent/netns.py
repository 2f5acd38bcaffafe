"""Network namespaces: work inside one, make and remove named ones, without starting a program.

In: the path of a namespace file. Out: whatever the work gives back.

setns(2) changes the calling thread only, so each piece of work runs in a thread that ends after
it: no other thread ever stands in the wrong namespace. A socket made there keeps its namespace
and can be used anywhere. So does a program started there: a child inherits the namespace of the
thread that started it. In such a thread /proc/thread-self/net is the namespace, /proc/self/net
is not; files below /proc/sys/net are those of the thread that opens them.
"""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

NAMED = Path("/run/netns")
OWN = "/proc/self/ns/net"
_HERE = "/proc/thread-self/ns/net"
_CLONE_NEWNET, _CLONE_NEWCGROUP, _CLONE_NEWUTS = 0x40000000, 0x02000000, 0x04000000
_MS_BIND, _MS_REC, _MS_SHARED = 0x1000, 0x4000, 0x100000
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def run_in_netns(netns: str, work: Callable[[], T]) -> T:
    """Run ``work`` in a thread of its own that stands in this namespace; errors come back too."""
    return _within(netns or OWN, _HERE, _CLONE_NEWNET, work)


def within_cgroups(namespace: str, work: Callable[[], T]) -> T:
    """The same with a namespace of cgroups, which says how their paths are told, and which of them
    a process may be moved to (cgroup_namespaces(7)).
    """
    return _within(namespace, "/proc/thread-self/ns/cgroup", _CLONE_NEWCGROUP, work)


def within_uts(namespace: str, work: Callable[[], T]) -> T:
    """The same with a UTS namespace, which holds the hostname (uts_namespaces(7))."""
    return _within(namespace, "/proc/thread-self/ns/uts", _CLONE_NEWUTS, work)


def _within(namespace: str, here: str, kind: int, work: Callable[[], T]) -> T:
    def enter() -> T:
        fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # to stay takes no right, and setns(2) wants CAP_SYS_ADMIN for that too
            if os.stat(fd).st_ino != os.stat(here).st_ino:
                _check(_libc.setns(fd, kind), f"enter {namespace}")
        finally:
            os.close(fd)
        return work()

    return _apart(enter)


def inode(netns: str) -> int:
    """The number by which the kernel's reports name a namespace."""
    return os.stat(netns or OWN).st_ino


def interfaces(netns: str) -> dict[int, str]:
    return run_in_netns(netns, lambda: dict(socket.if_nameindex()))


def create(name: str) -> str:
    """Make a named namespace as ``ip netns add`` does; its path. FileExistsError if it is there."""
    _share()
    path = NAMED / name
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o444))

    def bind() -> None:
        _check(_libc.unshare(_CLONE_NEWNET), f"make namespace {name}")
        _mount("/proc/thread-self/ns/net", str(path), _MS_BIND)

    try:
        _apart(bind)
    except OSError:
        path.unlink()
        raise
    return str(path)


def delete(name: str) -> None:
    """Remove a named namespace. What still runs in it keeps it alive, without the name."""
    path = NAMED / name
    _libc.umount2(os.fsencode(path), _MNT_DETACH)
    path.unlink(missing_ok=True)


def _share() -> None:
    """Mounts below /run/netns must reach other mount namespaces (as iproute2 has it)."""
    NAMED.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        _mount("", str(NAMED), _MS_SHARED | _MS_REC)
    except OSError:  # EINVAL: not yet a mount point
        _mount(str(NAMED), str(NAMED), _MS_BIND | _MS_REC)
        _mount("", str(NAMED), _MS_SHARED | _MS_REC)


def _mount(source: str, target: str, flags: int) -> None:
    done = _libc.mount(os.fsencode(source), os.fsencode(target), b"none", flags, None)
    _check(done, f"mount {target}")


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)}: {what}")


def _apart(work: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # it is raised again in the thread that asked
            errors.append(error)

    thread = threading.Thread(target=run, name="namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]

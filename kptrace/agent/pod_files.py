"""Reads files that belong to a pod, whose processes may have put anything there.

The agent is root on the node. So a path below a process' root is resolved inside that root, links
included (openat2(2), RESOLVE_IN_ROOT); what is not a regular file of an ordinary file system is
refused; at most ``LIMIT`` bytes are read; and a file system that does not answer (FUSE) costs a
thread and ``SECONDS``, not the agent.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat
import threading
from collections.abc import Callable
from struct import pack
from typing import TypeVar

T = TypeVar("T")

LIMIT = 64 << 10  # bytes; a resolv.conf has at most a few hundred
SECONDS = 2.0
_ROOT = re.compile(r"(.*?/\d+/root)/(.+)")
_OPENAT2 = 437  # the same number on every architecture (include/uapi/asm-generic/unistd.h)
_IN_ROOT, _NO_MAGICLINKS = 0x10, 0x02  # linux/openat2.h
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
# file systems whose files are the kernel's own, and whose reading may block or never end
# (linux/magic.h: proc, sysfs, debugfs, tracefs, bpffs, cgroup2, cgroup)
_KERNELS = {0x9FA0, 0x62656572, 0x64626720, 0x74726163, 0xCAFE4A11, 0x63677270, 0x27E0EB}
_libc = ctypes.CDLL(None, use_errno=True)


def read_pod_file(path: str, seconds: float = SECONDS) -> str:
    """The text of a file: ``/proc/PID/root/etc/resolv.conf`` as the process sees it, or a file of
    ours by a plain path. Bytes that are not UTF-8 are replaced; what is beyond LIMIT is left out.

    Raises OSError: there is none, it is not a regular file (EINVAL), it lies on a file system of
    the kernel's own (EPERM), or it was not read in ``seconds`` (ETIMEDOUT).
    """
    return with_deadline(lambda: _read(path), seconds, path)


def with_deadline(work: Callable[[], T], seconds: float, what: str) -> T:
    """What ``work`` returns or raises; OSError (ETIMEDOUT) naming ``what`` when it takes longer.
    The thread that it runs in then stays behind until the kernel lets it go.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # it is raised again in the thread that asked
            errors.append(error)

    thread = threading.Thread(target=run, name="pod file", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise OSError(errno.ETIMEDOUT, f"not read in {seconds:g} s", what)
    return results[0]


def _read(path: str) -> str:
    file = _open(path)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        if _file_system(file) in _KERNELS:
            raise OSError(errno.EPERM, "a file of the kernel's own", path)
        return os.read(file, LIMIT).decode(errors="replace")
    finally:
        os.close(file)


def _open(path: str) -> int:
    below = _ROOT.fullmatch(path)
    if below is None:
        return os.open(path, _FLAGS)
    root = os.open(below[1], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _open_in_root(root, below[2], path)
    finally:
        os.close(root)


def _open_in_root(root: int, name: str, path: str) -> int:
    how = pack("=QQQ", _FLAGS, 0, _IN_ROOT | _NO_MAGICLINKS)
    file = _libc.syscall(_OPENAT2, root, os.fsencode(name), how, len(how))
    if file >= 0:
        return int(file)
    number = ctypes.get_errno()
    if number == errno.ENOSYS:  # before Linux 5.6: no link is followed at all
        return _open_without_links(root, name)
    raise OSError(number, os.strerror(number), path)


def _open_without_links(root: int, name: str) -> int:
    *folders, last = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in (*folders, last):
        raise OSError(errno.EINVAL, "leads out of the pod's root", name)
    current = os.dup(root)
    try:
        for folder in folders:
            flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner = os.open(folder, flags, dir_fd=current)
            os.close(current)
            current = inner
        return os.open(last, _FLAGS | os.O_NOFOLLOW, dir_fd=current)
    finally:
        os.close(current)


def _file_system(file: int) -> int:
    """The magic number of the file system that an open file lies on (statfs(2))."""
    status = ctypes.create_string_buffer(256)
    if _libc.fstatfs(file, status) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(ctypes.c_long.from_buffer(status).value) & 0xFFFFFFFF

"""A cgroup (version 2) that sockets are made in, so that the BPF programs on it meet them.

A socket belongs for ever to the cgroup of the process that made it (sock_cgroup, include/linux/
cgroup-defs.h), so it is enough to be there while it is made. A process that is in the source's own
cgroup anyway, as a pod's is, names none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OWN = Path("/proc/self/cgroup")
_PROCESSES = "cgroup.procs"


@contextmanager
def within_cgroup(directory: str) -> Iterator[None]:
    """The whole process is in it, then again where it was. Empty: it stays."""
    if not directory:
        yield
        return
    there = Path(directory)
    back = _top(there) / _own().lstrip("/")
    (there / _PROCESSES).write_text("0")
    try:
        yield
    finally:
        (back / _PROCESSES).write_text("0")


def _own() -> str:
    """``0::/system.slice/x`` among those of version 1 (cgroups(7))."""
    lines = _OWN.read_text().splitlines()
    return next(line[3:] for line in lines if line.startswith("0::"))


def _top(directory: Path) -> Path:
    """Where the hierarchy is mounted: nothing above it is a cgroup."""
    while (directory.parent / _PROCESSES).exists():
        directory = directory.parent
    return directory

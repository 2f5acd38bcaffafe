"""The control groups of a machine: below one folder, in every hierarchy that the kernel has.

cgroup v1 has a hierarchy for each controller, v2 one for all. In v1 a cpuset has no processors
until it is given some; in v2 a controller must be handed down level by level, and only a group
without groups below it can hold processes: therefore the daemons stand in ``system``.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

SYSTEM = "system"
MOUNTS = Path("/proc/self/mountinfo")
CPUSET = ("cpuset.cpus", "cpuset.mems")
REMOVAL_SECONDS = 20


def hierarchies() -> list[Path]:
    """Where they are mounted; beside those of v1 there may be one of v2, which runc also uses."""
    mounts = (line.partition(" - ") for line in MOUNTS.read_text().splitlines())
    return [Path(left.split()[4]) for left, _, right in mounts if right.startswith("cgroup")]


def create(group: str) -> None:
    for root in hierarchies():
        _create(root, Path(group) / SYSTEM)


def files(group: str) -> list[Path]:
    """To each of these a process writes its id to be in the machine's own group."""
    return [root / group / SYSTEM / "cgroup.procs" for root in hierarchies()]


def remaining(group: str) -> list[Path]:
    return [root / group for root in hierarchies() if (root / group).exists()]


def remove(group: str) -> None:
    """Its processes were killed; a group can go when the last of them has been reaped."""
    until = time.monotonic() + REMOVAL_SECONDS
    while tops := remaining(group):
        for top in tops:
            for folder, _, _ in os.walk(top, topdown=False):
                _rmdir(Path(folder))
        if time.monotonic() > until:
            return
        time.sleep(0.1)


def members(group: str) -> set[int]:
    """The processes in it and below it, as this process counts them."""
    found: set[int] = set()
    for top in remaining(group):
        for folder, _, _ in os.walk(top):
            with suppress(OSError):
                procs = Path(folder, "cgroup.procs").read_text()
                found.update(int(line) for line in procs.split())
    return found - {0}


def _create(root: Path, group: Path) -> None:
    here = root
    for part in group.parts:
        handed_down = here / "cgroup.subtree_control"
        if handed_down.exists():
            for controller in (here / "cgroup.controllers").read_text().split():
                with suppress(OSError):  # one that this kernel lets nobody hand down
                    handed_down.write_text(f"+{controller}")
        above, here = here, here / part
        here.mkdir(exist_ok=True)
        for name in CPUSET:
            if (here / name).exists() and not (here / name).read_text().strip():
                (here / name).write_text((above / name).read_text())


def _rmdir(path: Path) -> None:
    with suppress(OSError):
        path.rmdir()

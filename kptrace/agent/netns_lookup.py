"""The ways into places: of a pod of which only the uid is known, through one of its processes.

In: handles, as the client knows them. Out: the same with the namespace file filled in; it stays
empty for a pod of which no process is found. And with the namespace held open.

The kubelet makes a cgroup for each pod, with its uid in the name: ``.../pod<uid>/...`` with the
cgroupfs driver, ``...-pod<uid with _ for ->.slice/...`` with systemd's (pkg/kubelet/cm,
qos_container_manager and cgroup_manager_linux.go). So no container runtime has to be asked, and no
socket of one to be mounted; that takes the node's own process namespace (hostPID).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from kptrace.agent.netns import OWN
from kptrace.agent.pod_files import read_pod_file
from kptrace.protocol import NetnsHandle

PROC = Path("/proc")
_POD = re.compile(r"[/-]pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})\b")


def resolve_netns(handles: Iterable[NetnsHandle], proc: Path = PROC) -> Iterator[NetnsHandle]:
    asked = tuple(handles)
    requested = {handle.pod_uid for handle in asked if handle.pod_uid}
    numbers_by_name = processes_of(requested, proc) if requested else {}
    for handle in asked:
        yield (
            _through(handle, numbers_by_name.get(handle.pod_uid, []), proc)
            if handle.pod_uid
            else handle
        )


def keep_open(handle: NetnsHandle, at_end: set[Callable[[], None]]) -> NetnsHandle:
    """The same with its namespace kept open: a pod may end while one looks at it, and the number of
    its process be another's then. Raises OSError where it has ended already.
    """
    if handle.ns_path == OWN:
        return handle
    file = os.open(handle.ns_path, os.O_RDONLY | os.O_CLOEXEC)
    at_end.add(partial(os.close, file))
    return msgspec.structs.replace(
        handle, ns_path=f"/proc/self/fd/{file}", held_path=handle.ns_path
    )


def processes_of(uids: set[str], proc: Path = PROC) -> dict[str, list[int]]:
    """By the pod's uid: the ids of its processes, the oldest first."""
    numbers_by_name: dict[str, list[int]] = {}
    for pid in sorted(int(path.name) for path in proc.iterdir() if path.name.isdigit()):
        uid = _uid_of(proc / str(pid) / "cgroup")
        if uid in uids:
            numbers_by_name.setdefault(uid, []).append(pid)
    return numbers_by_name


def _uid_of(cgroup: Path) -> str:
    try:
        met = _POD.search(cgroup.read_text(errors="replace"))
    except OSError:  # it has ended
        return ""
    return met[1].replace("_", "-") if met else ""


def _through(handle: NetnsHandle, pids: list[int], proc: Path) -> NetnsHandle:
    """The sandbox's own process is the oldest, and lives as long as the pod. The file that says
    whom to ask for names is the same in all of them, but not every image lets it be read.
    """
    confs = (proc / str(pid) / "root/etc/resolv.conf" for pid in reversed(pids))
    return msgspec.structs.replace(
        handle,
        ns_path=str(proc / str(pids[0]) / "ns/net") if pids else "",
        resolv_conf=next((str(path) for path in confs if _has_text(path)), ""),
    )


def _has_text(path: Path) -> bool:
    try:
        return bool(read_pod_file(str(path)).strip())
    except OSError:
        return False

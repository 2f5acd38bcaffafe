"""The pods of this node as the kernel has them, without asking any API or runtime: ``local_pods``.

A pod's namespace is one that a veth of the node leads to: the node's end of it knows the other
namespace by a number (IFLA_LINK_NETNSID), and RTM_GETNSID tells the number of a namespace file. The
files are those that a CNI or a runtime keeps (``/run/netns``) and those of processes. Its processes
tell the rest, where they are seen: the hostname is the pod's name, and the first name of the search
list in resolv.conf its namespace (kubelet, pkg/kubelet/network/dns).
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from struct import calcsize, pack, unpack_from
from typing import Any

from kptrace.agent.netns import NAMED, OWN, inode, run_in_netns, within_uts
from kptrace.agent.pod_files import read_pod_file
from kptrace.model import Value

PROC = Path("/proc")
KEPT = (NAMED, Path("/run/docker/netns"))
_RTM_GETNSID, _NLM_F_REQUEST = 90, 1
_NSID, _FD = 1, 3  # attributes: NETNSA_NSID, NETNSA_FD
_HEADER = "=IHHII"
_SEARCH = re.compile(r"^search\s+([a-z0-9-]+)\.svc\.", re.MULTILINE)
Tree = dict[str, Any]
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


class LocalPod(Value):
    """name, namespace: empty where no process tells them; ``pids``: the oldest first"""

    netns: str
    device: str
    addresses: tuple[str, ...]
    pids: tuple[int, ...] = ()
    name: str = ""
    namespace: str = ""
    resolv_conf: str = ""


def local_pods() -> tuple[LocalPod, ...]:
    devices = _veths()
    processes = _processes()
    own = inode(OWN)
    met: dict[int, LocalPod] = {}
    for path in _files(processes):
        with suppress(OSError):
            number = inode(path)
            device = devices.get(_nsid(path)) if number != own and number not in met else None
            if device:
                met[number] = _pod(path, device, processes.get(number, ()))
    return tuple(sorted(met.values(), key=lambda pod: pod.addresses))


def _files(processes: dict[int, tuple[int, ...]]) -> Iterator[str]:
    for folder in KEPT:
        with suppress(OSError):
            yield from sorted(map(str, folder.iterdir()))
    yield from (f"{PROC}/{pids[0]}/ns/net" for pids in processes.values())


def _processes() -> dict[int, tuple[int, ...]]:
    """By their network namespace."""
    numbers_by_number: dict[int, list[int]] = {}
    for pid in sorted(int(path.name) for path in PROC.iterdir() if path.name.isdigit()):
        with suppress(OSError):
            numbers_by_number.setdefault(os.stat(f"{PROC}/{pid}/ns/net").st_ino, []).append(pid)
    return {number: tuple(pids) for number, pids in numbers_by_number.items()}


def _veths() -> dict[int, str]:
    """The node's veths by the number of the namespace behind; one with an address of its own is an
    uplink.
    """
    links = _ip("link", "show", "type", "veth")
    uplinks = {link["ifname"] for link in _ip("address", "show", "scope", "global")}
    ends = [link for link in links if "link_netnsid" in link and link["ifname"] not in uplinks]
    return {link["link_netnsid"]: link["ifname"] for link in ends}


def _addresses(links: list[Tree]) -> Iterator[str]:
    for link in links:
        for document in link.get("addr_info", ()):
            if document.get("local"):  # an address that was filtered out leaves an empty object
                yield document["local"]


def _pod(path: str, device: str, pids: tuple[int, ...]) -> LocalPod:
    held = run_in_netns(path, lambda: _ip("address", "show", "scope", "global"))
    conf = _resolv_conf(path, pids)
    match = _SEARCH.search(_read(conf)) if conf else None
    return LocalPod(
        netns=path,
        device=device,
        addresses=tuple(_addresses(held)),
        pids=pids,
        name=_hostname(pids),
        namespace=match[1] if match else "",
        resolv_conf=conf,
    )


def _hostname(pids: tuple[int, ...]) -> str:
    """The pod's name as the kubelet gave it; empty where nothing tells it.

    It is the hostname of the pod's own UTS namespace, which takes CAP_SYS_ADMIN to change. Only
    processes without a namespace of their own are believed by their ``/etc/hostname``: any
    process of a pod may write that file.
    """
    own = socket.gethostname()
    for pid in pids:
        name = _uts_hostname(pid) or _read(f"{PROC}/{pid}/root/etc/hostname").strip()
        if name and name != own and _NAME.fullmatch(name):
            return name
    return ""


def _uts_hostname(pid: int) -> str:
    """The hostname of a process' own UTS namespace; empty where it shares ours."""
    path = f"{PROC}/{pid}/ns/uts"
    try:
        if os.stat(path).st_ino == os.stat(f"{PROC}/self/ns/uts").st_ino:
            return ""
        return within_uts(path, socket.gethostname)
    except OSError:
        return ""


def _resolv_conf(path: str, pids: tuple[int, ...]) -> str:
    """The first that has text: of a process, or what ``ip netns`` puts in its place."""
    files = [f"{PROC}/{pid}/root/etc/resolv.conf" for pid in pids]
    if Path(path).parent == NAMED:
        files.insert(0, f"/etc/netns/{Path(path).name}/resolv.conf")
    return next((file for file in files if _read(file).strip()), "")


def _read(path: str) -> str:
    try:
        return read_pod_file(path)
    except OSError:
        return ""


def _ip(*texts: str) -> list[Tree]:
    done = subprocess.run(("ip", "-j", *texts), capture_output=True, check=False)
    try:
        output = json.loads(done.stdout or b"[]")
    except ValueError:
        return []
    return [entry for entry in output if entry.get("ifname")]


def _nsid(path: str) -> int:
    """The number that our namespace has given to another one; -1: none."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        body = pack("=Bxxx", socket.AF_UNSPEC) + pack("=HHI", 8, _FD, fd)
        size = calcsize(_HEADER) + len(body)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
            sock.send(pack(_HEADER, size, _RTM_GETNSID, _NLM_F_REQUEST, 1, 0) + body)
            reply = sock.recv(4096)
    finally:
        os.close(fd)
    at = calcsize(_HEADER) + 4
    while at + 8 <= len(reply):
        length, kind, value = unpack_from("=HHi", reply, at)
        if kind == _NSID:
            return int(value)
        at += max(4, (length + 3) & ~3)
    return -1

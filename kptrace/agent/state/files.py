"""The files of a bundle that describe one place: what the node's own tools print, and its sysctls.

In: a handle and the names of files. Out: a Fact each; what could not be read says why in
``missing``.

Programs are started from a thread that stands in the place's namespace, and inherit it. The
several ``ip`` files come from three runs of ``ip -batch``. Looking must not change the node:
``iptables-legacy`` and ``ipvsadm`` create tables or load modules by looking, so they are asked
only where the kernel already lists something for them; otherwise the file is empty, which is the
truth.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from kptrace.agent.netlink import wireguard
from kptrace.agent.netns import run_in_netns
from kptrace.agent.pod_files import read_pod_file
from kptrace.agent.state import ipvs_table, pinned_maps
from kptrace.agent.thread_map import thread_map
from kptrace.protocol import FileContent, NetnsHandle
from kptrace.rules.model.coverage import LISTED_NOTHING

TIMEOUT = 120  # seconds; iptables-nft-save of 10,000 Services takes 37
_PARALLEL = 4
_TRIES = 5
_TORN = b"Dump was interrupted"  # lib/libnetlink.c of iproute2
_PIPE = subprocess.PIPE
_abandoned = False
_running: set[subprocess.Popen[bytes]] = set()
_starting = threading.Lock()  # no program is started that ``abandon`` does not know of
_NET = Path("/proc/thread-self/net")
_SYS = Path("/proc/sys")
_HOST = Path("/proc/1/root")
_FOLDERS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")


class FileUnavailable(Exception):
    pass


class Program(NamedTuple):
    """if_listed: a file below /proc/net that is absent or empty where there is nothing to tell."""

    argv: tuple[str, ...]
    if_listed: str = ""


_BATCHES = {
    "-d": {
        "ip-link.json": "link show",
        "ip-addr.json": "address show",
        "ip-neigh.json": "neighbour show",
    },
    "-4": {"ip-route.json": "route show table all", "ip-rule.json": "rule show"},
    "-6": {"ip6-route.json": "route show table all", "ip6-rule.json": "rule show"},
}
PROGRAMS = {
    "bridge-fdb.json": Program(("bridge", "-j", "fdb", "show")),
    "iptables-save.txt": Program(("iptables-save", "-c")),
    "iptables-nft-save.txt": Program(("iptables-nft-save", "-c")),
    "iptables-legacy-save.txt": Program(("iptables-legacy-save", "-c"), "ip_tables_names"),
    "ip6tables-save.txt": Program(("ip6tables-save", "-c")),
    "ip6tables-nft-save.txt": Program(("ip6tables-nft-save", "-c")),
    "ip6tables-legacy-save.txt": Program(("ip6tables-legacy-save", "-c"), "ip6_tables_names"),
    "nft-ruleset.json": Program(("nft", "-j", "list", "ruleset")),
    "ipset-save.txt": Program(("ipset", "save")),
    "ipvsadm-Sn.txt": Program(("ipvsadm", "-Sn"), "ip_vs"),
    "ipvsadm-Ln.txt": Program(("ipvsadm", "-Ln"), "ip_vs"),
    "cilium-service-list.json": Program(("cilium-dbg", "service", "list", "-o", "json")),
    "conntrack.txt": Program(("conntrack", "-L", "-o", "extended")),
    "conntrack-stats.txt": Program(("conntrack", "-S")),
    "ss-listening.txt": Program(("ss", "-Hlntu")),
}
_EMPTY_IF_NOTHING = frozenset(
    name for name in PROGRAMS if name.endswith("-save.txt") or name == "ipvsadm-Sn.txt"
)
SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/ip_nonlocal_bind",
    "net/ipv4/fib_multipath_hash_policy",
    "net/ipv4/conf/*/forwarding",
    "net/ipv4/conf/*/rp_filter",
    "net/ipv4/conf/*/route_localnet",
    "net/ipv4/conf/*/accept_local",
    "net/ipv4/conf/*/src_valid_mark",
    "net/ipv4/conf/*/proxy_arp",
    "net/ipv4/conf/*/arp_ignore",
    "net/ipv4/conf/*/arp_announce",
    "net/ipv4/neigh/default/gc_thresh*",
    "net/ipv4/vs/*",
    "net/ipv6/conf/*/forwarding",
    "net/ipv6/conf/*/disable_ipv6",
    "net/ipv6/neigh/default/gc_thresh*",
    "net/bridge/bridge-nf-*",
    "net/netfilter/nf_conntrack_*",
)


def facts(request_id: int, handle: NetnsHandle, files: Iterable[str]) -> Iterator[FileContent]:
    """As they come; ``ip`` first."""
    requested = list(dict.fromkeys(files))
    work: list[Callable[[], dict[str, str | FileUnavailable]]] = []
    for option, commands in _BATCHES.items():
        asked = {name: c for name, c in commands.items() if name in requested}
        if asked:
            work.append(partial(_ip, option, asked))
    batched = {name for commands in _BATCHES.values() for name in commands}
    work += [partial(_one, name, handle) for name in requested if name not in batched]
    for files in thread_map(
        (partial(run_in_netns, handle.ns_path, reader) for reader in work), _PARALLEL
    ):
        for name, text in files.items():
            yield _fact(request_id, handle, name, text)


def _fact(
    request_id: int, handle: NetnsHandle, name: str, text: str | FileUnavailable
) -> FileContent:
    if isinstance(text, FileUnavailable):
        return FileContent(id=request_id, netns=handle.netns, file=name, unavailable=str(text))
    return FileContent(id=request_id, netns=handle.netns, file=name, text=text)


def _one(name: str, handle: NetnsHandle) -> dict[str, str | FileUnavailable]:
    try:
        return {name: _read(name, handle)}
    except FileUnavailable as why:
        return {name: why}


def _read(name: str, handle: NetnsHandle) -> str:
    if name in READERS:
        return READERS[name](handle)
    if name == pinned_maps.PINS or name in pinned_maps.MAPS:
        return _pinned(name, handle)
    if name not in PROGRAMS:
        raise FileUnavailable("this agent does not know such a file")
    program = PROGRAMS[name]
    text = ""
    if not program.if_listed or _listed(program.if_listed):
        text = _output(program.argv)
    # an empty file alone would not tell a node without rules from a program that failed
    return text or (f"{LISTED_NOTHING}\n" if name in _EMPTY_IF_NOTHING else "")


def _listed(name: str) -> bool:
    try:
        return bool((_NET / name).read_bytes().strip())
    except OSError:
        return False


def _output(argv: tuple[str, ...], text: str = "") -> str:
    """What it prints of a state that did not change while it was listed: ``ip`` and ``bridge`` say
    so where it did (NLM_F_DUMP_INTR), and exit with 0 all the same.
    """
    for _ in range(_TRIES):
        out, said = _ran(argv, text)
        if _TORN not in said:
            return out
    raise FileUnavailable(f"{' '.join(argv)}: what it lists changes faster than it can be listed")


def _ran(argv: tuple[str, ...], text: str) -> tuple[str, bytes]:
    try:
        with _started(argv) as process:
            try:
                out, said = process.communicate(text.encode(), TIMEOUT)
            finally:
                _running.discard(process)
                process.kill()
    except FileNotFoundError:
        raise FileUnavailable(f"{argv[0]} is not installed here") from None
    except (OSError, subprocess.SubprocessError) as error:
        raise FileUnavailable(f"{argv[0]}: {error}") from None
    if process.returncode:
        why = said.decode(errors="replace").strip()[-500:]
        raise FileUnavailable(f"{' '.join(argv)} ended with {process.returncode}: {why}")
    return out.decode(errors="replace"), said


def _started(argv: tuple[str, ...]) -> subprocess.Popen[bytes]:
    with _starting:
        if _abandoned:
            raise FileUnavailable("the agent is leaving")
        process = subprocess.Popen(_found(argv), stdin=_PIPE, stdout=_PIPE, stderr=_PIPE)
        _running.add(process)
        return process


def _found(argv: tuple[str, ...]) -> tuple[str, ...]:
    """In a pod of the node's own process namespace the node's programs will do, where the image has
    none; ``chroot`` changes no other namespace than that of files.
    """
    if not _there(argv[0], os.get_exec_path()) and _there(argv[0], _host_folders()):
        return ("chroot", str(_HOST), *argv)
    return argv


def _there(program: str, folders: Iterable[str]) -> bool:
    return any(os.access(os.path.join(folder, program), os.X_OK) for folder in folders)


def _host_folders() -> list[str]:
    """Where the node has its programs; none if its files are ours, or hidden from us."""
    try:
        if _HOST.samefile("/"):
            return []
    except OSError:
        return []
    return [f"{_HOST}{folder}" for folder in _FOLDERS]


def begin() -> None:
    """An agent begins; in this process another may have left."""
    global _abandoned
    with _starting:
        _abandoned = False


def abandon() -> None:
    """End the programs that still run, and start no more; the agent is leaving."""
    global _abandoned
    with _starting:
        _abandoned = True
        running = tuple(_running)
    for process in running:
        process.kill()
    for process in running:
        process.wait()


# --- ip ---------------------------------------------------------------------------------------


def _ip(option: str, commands: dict[str, str]) -> dict[str, str | FileUnavailable]:
    lines = "".join(f"{command}\n" for command in commands.values())
    try:
        answers = _documents(_output(("ip", "-j", option, "-force", "-batch", "-"), lines))
        if len(answers) != len(commands):
            raise FileUnavailable("ip -batch answered not all of it")
        return dict(zip(commands, answers, strict=True))
    except FileUnavailable:
        return {name: _alone(option, text) for name, text in commands.items()}


def _alone(option: str, text: str) -> str | FileUnavailable:
    try:
        return _output(("ip", "-j", option, *text.split()))
    except FileUnavailable as why:
        return why


def _documents(text: str) -> list[str]:
    """The JSON documents that stand one behind the other."""
    decoder, cluster_state, at = json.JSONDecoder(), [], 0
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        try:
            end = decoder.raw_decode(text, at)[1]
        except ValueError:
            raise FileUnavailable("ip printed something that is not JSON") from None
        cluster_state.append(text[at:end] + "\n")
        at = end
    return cluster_state


# --- files ------------------------------------------------------------------------------------


def _sysctls(_: NetnsHandle) -> str:
    lines = sorted(line for pattern in SYSCTLS for line in _sysctl_lines(pattern))
    return "".join(f"{line}\n" for line in lines)


def _sysctl_lines(pattern: str) -> Iterator[str]:
    for path in _SYS.glob(pattern):
        try:
            value = " ".join(path.read_text().split())
        except OSError:
            continue  # write-only, or the interface went away
        parts = path.relative_to(_SYS).parts
        # As sysctl(8) prints it: the dot of an interface's name becomes a slash.
        yield ".".join(part.replace(".", "/") for part in parts) + f" = {value}"


def _wireguard(_: NetnsHandle) -> str:
    try:
        return wireguard.show()
    except OSError as error:
        raise FileUnavailable(f"WireGuard's peers: {error.strerror}") from None


def _pinned(name: str, handle: NetnsHandle) -> str:
    try:
        listed = name == pinned_maps.PINS
        return pinned_maps.listing(handle.bpffs) if listed else pinned_maps.maps(handle.bpffs, name)
    except OSError as error:
        why = str(error) if isinstance(error, FileNotFoundError) else f"{name}: {error.strerror}"
        raise FileUnavailable(why) from None


def _resolv_conf(handle: NetnsHandle) -> str:
    if not handle.resolv_conf:
        raise FileUnavailable("it is not known which resolv.conf is read there")
    try:
        return read_pod_file(handle.resolv_conf)
    except OSError as error:
        raise FileUnavailable(f"{handle.resolv_conf}: {error.strerror}") from None


def _templates(_: NetnsHandle) -> str:
    return ipvs_table.templates()


# read here, without a program
READERS: dict[str, Callable[[NetnsHandle], str]] = {
    "sysctl.txt": _sysctls,
    "resolv.conf": _resolv_conf,
    "ip_vs_conn.txt": _templates,
    "wg-show.txt": _wireguard,
}

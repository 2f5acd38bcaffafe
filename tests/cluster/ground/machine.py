"""A machine of the cluster: network, mount, process, IPC and host name namespaces of its own.

Its process 1 is ``pause``: when that one is killed the kernel kills every other process in there,
and the mounts go with the last of them. What the machine writes goes to memory (``/run``,
``/var/lib``, ``/opt``, ``/etc`` over the real one), so that components keep the paths that they
have on a real node, two machines do not meet, and nothing is left on the disk.

``/run/ground`` holds what the machine needs of the outside: ``bin``, and the cluster's folder
as ``cluster``.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cluster.ground import cgroups
from cluster.ground.home import Home
from cluster.ground.plan import MachinePlan, NotPossible
from cluster.ground.shell import attempt, run

BIN = "/run/ground/bin"
CLUSTER = "/run/ground/cluster"
PATH = f"{BIN}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"}
NETNS = Path("/run/netns")
START_SECONDS = 20
STOP_SECONDS = 20

# the cgroup files come first: what this shell starts is in the machine's groups
JOIN = 'while [ "$1" != -- ]; do echo $$ >"$1"; shift; done; shift; exec "$@"'

# sysfs shows the network namespace of whoever mounted it; cgroups are mounts below it
SETUP = f"""\
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p {BIN} {CLUSTER} /run/lock /run/etc /run/etc.work /run/cgroup
mount --bind "$1" {BIN}
mount --bind "$2" {CLUSTER}
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc.work overlay /etc
for folder in /opt /var/lib /var/log; do mount -t tmpfs -o mode=755 tmpfs $folder; done
mount --rbind /sys/fs/cgroup /run/cgroup
mount -t sysfs sysfs /sys
mount --rbind /run/cgroup /sys/fs/cgroup
umount -l /run/cgroup
hostname "$3"
printf '127.0.0.1 localhost\\n::1 localhost\\n%s %s\\n' "$4" "$3" >/etc/hosts
printf 'nameserver %s\\n' "$5" >/etc/resolv.conf
ip link set lo up
"""


class Machine:
    """Started once; after that found again by its process 1, also by another process of ours."""

    def __init__(self, plan: MachinePlan, home: Home) -> None:
        self.plan = plan
        self.home = home
        self.role = plan.role

    # --- its life ---

    def start(self, binaries: Path, resolver: str) -> None:
        """Needs its network namespace; addresses come later, from the underlay."""
        cgroups.create(self.plan.cgroup)
        self.home.log(self.role).mkdir(parents=True, exist_ok=True)
        unshare = ("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child")
        subprocess.Popen(
            [
                *("sh", "-c", JOIN, "sh", *map(str, cgroups.files(self.plan.cgroup)), "--"),
                *("nsenter", f"--net={NETNS / self.plan.netns}"),
                *(*unshare, "--mount-proc", binaries / "pause", self.plan.netns),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until = time.monotonic() + START_SECONDS
        while self.init() is None:
            if time.monotonic() > until:
                raise NotPossible(f"{self.role}: no namespaces could be made for it")
            time.sleep(0.02)
        facts = (self.role, self.plan.addresses[0], resolver)
        self.run("sh", "-c", SETUP, "sh", binaries, self.home.path, *facts)

    def init(self) -> int | None:
        """Process 1, by its own number outside."""
        return next(iter(inits(self.plan.netns)), None)

    # --- what runs in it ---

    def enter(self, *command: str | Path) -> list[str]:
        """A command line that runs ``command`` in there."""
        init = self.init()
        if init is None:
            raise NotPossible(f"{self.role} is not running")
        spaces = ("--mount", "--net", "--pid", "--ipc", "--uts")
        clean = ("env", "-i", *(f"{name}={value}" for name, value in ENVIRONMENT.items()))
        return [
            *("nsenter", f"--target={init}", *spaces, "--root", "--wd=/", "--"),
            *(*clean, *map(str, command)),
        ]

    def run(self, *command: str | Path, given: str | bytes = "", seconds: float = 120) -> str:
        return run(*self.enter(*command), given=given, seconds=seconds)

    def attempt(
        self, *command: str | Path, given: str | bytes = "", seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return attempt(*self.enter(*command), given=given, seconds=seconds)

    def daemon(
        self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None
    ) -> None:
        """Start a program that stays, in the machine's groups; its words go to the log folder."""
        cgroup_files = map(str, cgroups.files(self.plan.cgroup))
        program, *arguments = command
        self.run(
            *("sh", "-c", JOIN, "sh", *cgroup_files, "--", "env"),
            *(f"{key}={value}" for key, value in (env or {}).items()),
            *("start-stop-daemon", "--start", "--background", "--quiet", "--make-pidfile"),
            *("--pidfile", _pidfile(name), "--output", f"{CLUSTER}/log/{self.role}/{name}.log"),
            *("--startas", program, "--", *arguments),
        )

    def stop(self, name: str) -> None:
        """End a daemon, hard when it does not go; it may be gone already."""
        self.run(
            *("start-stop-daemon", "--stop", "--quiet", "--oknodo", "--pidfile", _pidfile(name)),
            *("--remove-pidfile", f"--retry=TERM/{STOP_SECONDS}/KILL/5"),
            seconds=STOP_SECONDS + 30,
        )

    def runs(self, name: str) -> bool:
        told = ("start-stop-daemon", "--status", "--pidfile", _pidfile(name))
        return self.attempt(*told).returncode == 0

    def log(self, name: str, lines: int = 15) -> str:
        path = self.home.log(self.role) / f"{name}.log"
        with suppress(OSError):
            return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def write(self, path: str, text: str) -> None:
        self.run("sh", "-c", 'mkdir -p "${1%/*}" && cat >"$1"', "sh", path, given=text)


def inits(netns: str) -> list[int]:
    """Every process 1 of that name, the first of its process namespace by its own count."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if len(words) > 1 and words[1] == netns.encode() and _is_first(process):
                found.append(int(process.name))
    return found


def _is_first(process: Path) -> bool:
    status = (process / "status").read_text()
    numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
    return len(numbers) > 2 and numbers[-1] == "1"


def in_netns(netns: str) -> set[int]:
    """Every process whose network namespace is the named one."""
    with suppress(OSError):
        wanted = os.stat(NETNS / netns).st_ino
        return {
            int(process.name)
            for process in Path("/proc").iterdir()
            if process.name.isdigit() and _netns(process) == wanted
        }
    return set()


def _netns(process: Path) -> int:
    try:
        return os.stat(process / "ns" / "net").st_ino
    except OSError:
        return 0


def _pidfile(name: str) -> str:
    return f"/run/{name}.pid"

"""One boot of User Mode Linux on the host's own files, and the pytest that runs in it.

In: a script for bash (init.sh makes the ground for it) and a directory for what it leaves behind.
Out: the guest's console, files and exit code; ``Run``: the reports of its tests, as they come.

A guest does not outlive us: a guard (guard.py) holds the other end of a pipe and ends the guest's
whole process group when we are gone, also after SIGKILL. The guest's exit code is what it wrote,
never that of the process, which is 0 for any orderly halt.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from shlex import quote
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MODULES = Path("/usr/lib/uml/modules")
PROGRAMS = {"linux.uml": "user-mode-linux", "modprobe": "kmod"}
PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
MARKER = "KPTRACE-UML-EXIT"
BOOT_SECONDS = 120  # a busy machine; a quiet one needs two
TEST_SECONDS = 240
MEMORY = "1024M"

# loaded at the beginning: the kernel does not load what only a namespace of the guest asks for
WANTED = """
veth bridge br_netfilter vxlan dummy ipip xfrm_user
ip_tables iptable_filter iptable_nat iptable_mangle iptable_raw
ip6_tables ip6table_filter ip6table_nat ip6table_mangle ip6table_raw
nf_conntrack nf_conntrack_netlink nfnetlink_log nf_log_syslog
xt_set xt_MASQUERADE xt_TRACE xt_mark xt_comment xt_addrtype xt_conntrack xt_nat xt_physdev
xt_statistic xt_recent xt_tcpudp xt_multiport xt_LOG ipt_REJECT ip6t_REJECT ipt_rpfilter xt_CT
xt_u32 xt_NFLOG
ip_set ip_set_hash_ip ip_set_hash_ipport ip_set_hash_ipportip ip_set_hash_ipportnet ip_set_hash_net
ip_set_bitmap_port
ip_vs ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_wlc ip_vs_sh ip_vs_dh ip_vs_mh
"""

PREPARE = """\
modprobe -a {modules} 2>/mnt/modprobe.txt
ip link set lo up
cd {root}
export KPTRACE_UML=/mnt PYTHONDONTWRITEBYTECODE=1
"""
END = f"""\
code=$?
sync
echo "{MARKER} $code"
echo $code >/mnt/exit
sync
exec /sbin/halt -f -n
"""
PYTEST = """\
{python} -m pytest -p no:cacheprovider -q --timeout={seconds} @/mnt/tests.txt </dev/null \
    >/mnt/pytest.txt 2>&1
"""


def missing() -> str:
    """Why nothing can be booted here; empty: it can."""
    packages = [name for program, name in PROGRAMS.items() if not shutil.which(program, path=PATH)]
    return f"no User Mode Linux here: install {' '.join(packages)}" if packages else ""


class Guest:
    def __init__(self, script: str, files: dict[str, str] | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"kptrace-uml-{os.getpid()}-"))
        modules = next(iter(sorted(MODULES.glob("*"))))
        prepare = PREPARE.format(modules=" ".join(WANTED.split()), root=quote(str(ROOT)))
        for name, text in {**(files or {}), "run.sh": prepare + script + END}.items():
            (self.directory / name).write_text(text)
        shutil.copy(HERE / "init.sh", self.directory / "init")
        os.chmod(self.directory / "init", 0o755)
        argv = (
            *("linux.uml", "rootfstype=hostfs", "rootflags=/", "ro", f"mem={MEMORY}", "quiet"),
            *(f"init={self.directory / 'init'}", f"out={self.directory}", f"modules={modules}"),
            *("con=null", "con0=null,fd:1"),
        )
        self.console = self.directory / "console.txt"
        with open(self.console, "wb") as console:
            self.process = subprocess.Popen(
                [sys.executable, HERE / "guard.py", *argv],
                stdin=subprocess.PIPE,  # its end is ours
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PATH": PATH},
            )

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def exit_code(self, seconds: float = BOOT_SECONDS) -> int | None:
        """The script's; None when the guest did not come to tell."""
        try:
            self.process.wait(seconds)
            return int((self.directory / "exit").read_text())
        except (subprocess.TimeoutExpired, OSError, ValueError):
            return None

    def words(self) -> str:
        """The last that the guest said, for a person."""
        parts = []
        for name in ("console.txt", "modprobe.txt", "pytest.txt"):
            path = self.directory / name
            text = path.read_text(errors="replace") if path.exists() else "(nothing)"
            parts.append(f"--- {name} ---\n{text[-4000:]}")
        return "\n".join(parts)

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def close(self) -> None:
        self.end()
        shutil.rmtree(self.directory, ignore_errors=True)


class Run(Guest):
    """pytest in a guest. ``lost``: the first test of which no last report came."""

    def __init__(
        self,
        tests: Iterable[str],
        seconds: float = TEST_SECONDS,
        boot_seconds: float = BOOT_SECONDS,
        script: str = PYTEST,
    ) -> None:
        self.tests = tuple(tests)
        self.reports: dict[str, list[dict[str, Any]]] = {}
        self.lost = ""
        self._read_to = 0
        self._seconds = boot_seconds + seconds
        script = script.format(python=quote(sys.executable), seconds=seconds)
        super().__init__(script, {"tests.txt": "".join(f"{one}\n" for one in self.tests)})

    @property
    def failed(self) -> bool:
        reports = (data for each in self.reports.values() for data in each)
        return any(data["outcome"] == "failed" for data in reports)

    def wait_for(self, test: str) -> list[dict[str, Any]]:
        """The reports of one test, the last of which is its teardown's; fewer when it was lost.

        The limit is one test's, and the guest has the same for each: so a guest that is silent for
        longer hangs as a whole, and is ended.
        """
        deadline = time.monotonic() + self._seconds
        while time.monotonic() < deadline:
            ended = self.ended
            self._read()
            found = self.reports.get(test, [])
            if found and found[-1]["when"] == "teardown":
                return found
            if ended:
                break
            time.sleep(0.05)
        self.lost = self.lost or test
        self.end()
        return self.reports.get(test, [])

    def _read(self) -> None:
        path = self.directory / "reports.jsonl"
        if not path.exists():
            return
        with open(path, "rb") as file:
            file.seek(self._read_to)
            for line in file:
                if line.endswith(b"\n"):
                    self._read_to += len(line)
                    data = json.loads(line)
                    self.reports.setdefault(data["nodeid"], []).append(data)

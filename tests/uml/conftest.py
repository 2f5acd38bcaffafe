"""The tests below ``guest`` run inside User Mode Linux; on the host each is an item as usual.

On the host: the chosen tests' ids go into a directory, a kernel is booted on the host's own files
(init.sh), pytest runs there with the same ids, and each report that it writes is given out here as
the report of the host's item, as it comes. So ``pytest tests/uml -k sh`` does what it says, and a
test fails where it fails.

A result is never lost: each report is written through to the host's disk before the next test
starts; a test without reports is a failure that shows the console; a guest that ended without its
exit marker, or with another code than its reports imply, fails the last test.

Inside the guest (``KPTRACE_UML`` is set) this file only writes the reports.

Nothing needs root on the host. Without User Mode Linux (Debian: user-mode-linux, kmod) the tests
are skipped, and in CI they fail.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OUT = os.environ.get("KPTRACE_UML", "")  # in the guest: where the reports go
MODULES = Path("/usr/lib/uml/modules")
MARKER = "KPTRACE-UML-EXIT"
BOOT_SECONDS = 60
TEST_SECONDS = 150
MEMORY = "1024M"
BOOTS = 2  # side by side, one processor each

# loaded at the beginning: the kernel does not load what only a namespace of the guest asks for
WANTED = """
veth bridge br_netfilter vxlan dummy ipip xfrm_user
ip_tables iptable_filter iptable_nat iptable_mangle iptable_raw
ip6_tables ip6table_filter ip6table_nat ip6table_mangle ip6table_raw
nf_conntrack nf_conntrack_netlink nfnetlink_log nf_log_syslog
xt_set xt_MASQUERADE xt_TRACE xt_mark xt_comment xt_addrtype xt_conntrack xt_nat xt_physdev
xt_statistic xt_recent xt_tcpudp xt_multiport xt_LOG ipt_REJECT ip6t_REJECT ipt_rpfilter xt_CT
ip_set ip_set_hash_ip ip_set_hash_ipport ip_set_hash_ipportip ip_set_hash_ipportnet ip_set_hash_net
ip_set_bitmap_port
ip_vs ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_wlc ip_vs_sh ip_vs_dh ip_vs_mh
"""

RUN = """\
modprobe -a {modules} 2>/mnt/modprobe.txt
ip link set lo up
cd {root}
export KPTRACE_UML=/mnt PYTHONDONTWRITEBYTECODE=1
{python} -m pytest -p no:cacheprovider -q --timeout={seconds} @/mnt/tests.txt </dev/null \
    >/mnt/pytest.txt 2>&1
code=$?
sync
echo "{marker} $code"
echo $code >/mnt/exit
sync
exec /sbin/halt -f -n
"""


# --- in the guest -----------------------------------------------------------------------------


if OUT:

    @pytest.hookimpl
    def pytest_runtest_logreport(report: pytest.TestReport) -> None:
        data = CONFIG.hook.pytest_report_to_serializable(config=CONFIG, report=report)
        with open(Path(OUT, "reports.jsonl"), "a", encoding="utf-8") as file:
            file.write(json.dumps(data, default=str) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def pytest_configure(config: pytest.Config) -> None:
        global CONFIG
        CONFIG = config


# --- on the host ------------------------------------------------------------------------------


class Guest:
    """One boot, and the reports of its tests as they come."""

    def __init__(self, tests: list[str]) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="kptrace-uml-"))
        self.reports: dict[str, list[dict[str, Any]]] = {}
        self.tests = tests
        self._read_to = 0
        (self.directory / "tests.txt").write_text("\n".join(tests) + "\n")
        (self.directory / "run.sh").write_text(
            RUN.format(
                modules=" ".join(WANTED.split()),
                root=quote(str(ROOT)),
                python=quote(sys.executable),
                seconds=TEST_SECONDS,
                marker=MARKER,
            )
        )
        shutil.copy(HERE / "init.sh", self.directory / "init")
        os.chmod(self.directory / "init", 0o755)
        self.console = self.directory / "console.txt"
        with open(self.console, "wb") as console:
            self.process = subprocess.Popen(
                [
                    # it goes with us, also when nobody can tell it to
                    *("setpriv", "--pdeathsig", "KILL", "linux.uml"),
                    *("rootfstype=hostfs", "rootflags=/", "ro", f"mem={MEMORY}", "quiet"),
                    f"init={self.directory / 'init'}",
                    *(f"out={self.directory}", f"modules={_modules()}"),
                    *("con=null", "con0=null,fd:1"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for(self, test: str) -> list[dict[str, Any]]:
        """The reports of one test, the last of which is its teardown's; fewer when it was lost."""
        deadline = time.monotonic() + BOOT_SECONDS + TEST_SECONDS
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            self._read()
            found = self.reports.get(test, [])
            if ended or (found and found[-1]["when"] == "teardown"):
                return found
            time.sleep(0.05)
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

    def exit_code(self) -> int | None:
        """pytest's in the guest; None when the guest did not come to tell."""
        try:
            self.process.wait(BOOT_SECONDS)
            return int((self.directory / "exit").read_text())
        except (subprocess.TimeoutExpired, OSError, ValueError):
            return None

    def words(self) -> str:
        """What the guest said, for a person."""
        parts = []
        for name in ("console.txt", "modprobe.txt", "pytest.txt"):
            path = self.directory / name
            text = path.read_text(errors="replace") if path.exists() else "(nothing)"
            parts.append(f"--- {name} ---\n{text[-4000:]}")
        return "\n".join(parts)

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def close(self) -> None:
        self.end()
        shutil.rmtree(self.directory, ignore_errors=True)


def _modules() -> Path:
    return next(iter(sorted(MODULES.glob("*"))))


def _missing() -> str:
    wanted = {"linux.uml": "user-mode-linux", "modprobe": "kmod"}
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    packages = [
        package for program, package in wanted.items() if not shutil.which(program, path=path)
    ]
    return f"no User Mode Linux here: install {' '.join(packages)}" if packages else ""


def _ours(item: pytest.Item) -> bool:
    return not OUT and (HERE / "guest") in item.path.parents


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = "" if OUT else _missing()
    for item in items:
        if (HERE / "guest") not in item.path.parents:
            continue
        item.add_marker(pytest.mark.uml)
        if OUT:
            continue
        item.add_marker(
            pytest.mark.timeout(0)
        )  # the first waits for the boot; the guest has its own
        if missing and os.environ.get("CI") != "true":
            item.add_marker(pytest.mark.skip(reason=missing))


GUESTS = pytest.StashKey[dict[Path, Guest]]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if not _ours(item) or item.get_closest_marker("skip"):
        return None
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _reports(item):
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _reports(item: pytest.Item) -> Iterator[pytest.TestReport]:
    missing = _missing()
    if missing:
        yield _failure(item, missing)
        return
    stash = item.session.stash
    if GUESTS not in stash:
        # so that the guests go with us when we are told to go
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        stash[GUESTS] = _boot(item.session)
    guest = stash[GUESTS][item.path]
    told = guest.wait_for(item.nodeid)
    failed = any(data["outcome"] == "failed" for each in guest.reports.values() for data in each)
    for data in told:
        yield item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
    if not told or told[-1]["when"] != "teardown":
        yield _failure(item, f"the guest did not report this test\n{guest.words()}")
    elif item.nodeid == guest.tests[-1] and guest.exit_code() != int(failed):
        why = f"the guest's exit code is {guest.exit_code()}, its reports say {int(failed)}"
        yield _failure(item, f"{why}\n{guest.words()}")


def _boot(session: pytest.Session) -> dict[Path, Guest]:
    """The guest of each file; the files are dealt out by the number of their tests."""
    files: dict[Path, list[str]] = {}
    for one in session.items:
        if _ours(one) and not one.get_closest_marker("skip"):
            files.setdefault(one.path, []).append(one.nodeid)
    shares: list[list[Path]] = [[] for _ in range(min(BOOTS, len(files)))]
    for path in sorted(files, key=lambda path: -len(files[path])):
        min(shares, key=lambda share: sum(len(files[one]) for one in share)).append(path)
    found: dict[Path, Guest] = {}
    for share in shares:
        in_order = [test for path, tests in files.items() if path in share for test in tests]
        guest = Guest(in_order)
        found |= dict.fromkeys(share, guest)
    return found


def _failure(item: pytest.Item, words: str) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords={"uml": 1},
        outcome="failed",
        longrepr=words,
        when="call",
    )


ROW = re.compile(r"\[(ipvs|iptables-legacy)-(vxlan|flannel-ipip|calico-[a-z]+)")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What passed of what was asked, by proxy and network."""
    table: dict[tuple[str, str], list[int]] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            row = ROW.search(report.nodeid) if "tests/uml/" in report.nodeid else None
            if row and report.when == "call":
                counts = table.setdefault((row[1], row[2]), [0, 0])
                counts[0] += outcome == "passed"
                counts[1] += 1
    if table and not OUT:
        terminalreporter.section("User Mode Linux: proxy x network")
        networks = sorted({network for _, network in table})
        terminalreporter.line(" " * 16 + "".join(f"{one:>20}" for one in networks))
        for proxy in sorted({proxy for proxy, _ in table}):
            cells = (table.get((proxy, network)) for network in networks)
            shown = (f"{one[0]}/{one[1]}" if one else "-" for one in cells)
            terminalreporter.line(f"{proxy:<16}" + "".join(f"{one:>20}" for one in shown))


def pytest_sessionfinish(session: pytest.Session) -> None:
    for guest in session.stash.get(GUESTS, {}).values():
        guest.close()

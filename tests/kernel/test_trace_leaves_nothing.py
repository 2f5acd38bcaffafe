"""However and whenever a trace ends, the nodes and the machine are as they were.

A real ``kptrace`` is ended at moments that it reaches for certain (its agents live, its taps are
bound, its rule trace is on, its guard has a sysctl in keeping) and at some that are only times.
Then an inventory of all namespaces must come to be the one before. Everything that it started is
known by a mark in its environment, so other runs on the same machine do not disturb.

The proxy is iptables-legacy: its rule trace needs both an nft table of our own and a sysctl.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kptrace.agent.netns import run_in_netns
from kptrace.lab import host_commands
from kptrace.lab.faults import inject
from kptrace.lab.state import NETNS, Lab

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
MARK = "KPTRACE_TEST_RUN"
PATIENCE = 15.0
LOGGERS = tuple(f"/proc/sys/net/netfilter/nf_log/{family}" for family in (2, 10))


@pytest.fixture(scope="module")
def lab(legacy_bench: Any) -> Iterator[Lab]:
    """Its Service ``remote`` sends to a pod that is gone: a trace of it waits for its time-out."""
    standing: Lab = legacy_bench.lab
    inject.inject(standing.name, inject.find("stale-dnat"))
    yield standing
    inject.heal(standing.name)


# --- the inventory --------------------------------------------------------------------------------


def inventory(lab: Lab) -> dict[str, str]:
    """All that a run could have left: rules, loggers, sockets, modes of devices, instances."""
    found = {"tracing": _listing("/sys/kernel/tracing/instances")}
    found["machine's nft"] = host_commands.run(("nft", "list", "tables"))
    found["machine's packet sockets"] = _sockets("/proc/thread-self/net/packet")
    for name in lab.plan.namespaces:
        found |= {f"{name} {what}": text for what, text in _of_namespace(name, lab).items()}
    return found


def _of_namespace(name: str, lab: Lab) -> dict[str, str]:
    node = name in {one.netns for one in lab.plan.nodes}
    found = {"nft": host_commands.run(("nft", "list", "ruleset" if node else "tables"), netns=name)}
    links = host_commands.run(("ip", "-d", "-o", "link"), netns=name)
    found["promiscuity"] = " ".join(re.findall(r"promiscuity \d+", links))
    if node:
        for save in ("iptables-legacy-save", "ip6tables-legacy-save"):
            found[save] = host_commands.run((save,), netns=name)
    found |= run_in_netns(str(NETNS / name), _files)
    return {
        what: re.sub(r"(counter )?(packets \d+ bytes \d+|\[\d+:\d+\]|^#.*$)", "", text, flags=re.M)
        for what, text in found.items()
    }


def _files() -> dict[str, str]:
    return {
        "loggers": " ".join(Path(path).read_text() for path in LOGGERS),
        "bound loggers": Path("/proc/thread-self/net/netfilter/nfnetlink_log").read_text(),
        "packet sockets": _sockets("/proc/thread-self/net/packet"),
        "netfilter sockets": _netfilter_sockets(),
    }


def _sockets(path: str) -> str:
    """How many there are for which protocol, interface; not their inodes."""
    return "\n".join(" ".join(line.split()[3:5]) for line in Path(path).read_text().splitlines())


def _netfilter_sockets() -> str:
    """proc(5): the second column is the netlink family, NETLINK_NETFILTER is 12."""
    lines = Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]
    return str(sum(line.split()[1] == "12" and line.split()[2] != "0" for line in lines))


def _listing(path: str) -> str:
    return " ".join(sorted(os.listdir(path))) if os.path.isdir(path) else ""


# --- a run ----------------------------------------------------------------------------------------


class Running:
    """A ``kptrace`` with all that it starts, known by the mark in their environment."""

    def __init__(self, *args: str, **how: Any) -> None:
        self._mark = f"{MARK}={uuid.uuid4()}".encode()
        name, _, value = self._mark.decode().partition("=")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kptrace", *args],
            env={**os.environ, name: value},
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **{"stdout": subprocess.PIPE, **how},
        )

    def of(self, module: str = "") -> list[int]:
        """The pids of those that live and run this module.

        Between fork and exec a child still has its parent's command line: it is not counted.
        """
        parents: dict[int, int] = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                mine = self._mark in (path / "environ").read_bytes().split(b"\0")
                if mine and module.encode() in (path / "cmdline").read_bytes():
                    after_the_name = (path / "stat").read_text().rpartition(")")[2].split()
                    parents[int(path.name)] = int(after_the_name[1])
            except OSError:
                continue
        return [pid for pid, parent in parents.items() if not module or parent not in parents]

    def end(self, number: int, pids: list[int]) -> None:
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def programs(self) -> set[int]:
        """The ids of the BPF programs that they hold (a program without a holder is gone)."""
        found = set()
        for pid in self.of():
            for info in Path(f"/proc/{pid}/fdinfo").glob("*"):
                try:
                    found |= {int(id) for id in re.findall(r"prog_id:\s*(\d+)", info.read_text())}
                except OSError:
                    continue
        return found


def exists(program: int) -> bool:
    """bpf(2), BPF_PROG_GET_FD_BY_ID."""
    number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
    libc = ctypes.CDLL(None, use_errno=True)
    request = (ctypes.c_uint32 * 3)(program, 0, 0)
    fd = libc.syscall(number, 13, request, 12)
    if fd >= 0:
        os.close(fd)
        return True
    assert ctypes.get_errno() == errno.ENOENT
    return False


def until(true: Callable[[], object], what: str, run: Running | None = None) -> None:
    """Wait, within bounds; a run that ends meanwhile says why."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        if run is not None and run.process.poll() is not None:
            pytest.fail(f"it ended before {what}: {run.process.communicate()}")
        if time.monotonic() > deadline:
            pytest.fail(f"not in {PATIENCE:g} s: {what}")
        time.sleep(0.003)


# --- moments --------------------------------------------------------------------------------------

Moment = Callable[[Running, Lab], object]


def read(lab: Lab, path: str, pod: str = "") -> str:
    """A file as it is on node-a or in a pod of it."""
    netns = lab.plan.pod(f"shop/{pod}").netns if pod else lab.plan.node("node-a").netns
    return run_in_netns(str(NETNS / netns), Path(path).read_text)


MOMENTS: dict[str, Moment] = {
    "an agent lives": lambda run, _: run.of("kptrace.agent.server"),
    "two agents live": lambda run, _: len(run.of("kptrace.agent.server")) == 2,
    "a tap is bound": lambda _, lab: read(lab, "/proc/thread-self/net/packet").count("\n") > 1,
    "the guard keeps a sysctl": lambda run, _: run.of("kptrace.agent.cleanup_guard"),
    "the kernel logs to it": lambda _, lab: "nfnetlink_log" in read(lab, LOGGERS[0]),
    "a drop program runs": lambda run, _: run.programs(),
    "the probe is out": lambda _, lab: " 02 " in read(lab, "/proc/thread-self/net/tcp", "client"),
}
"""Asked from outside, of the kernel; the last one: a TCP socket in the state SYN_SENT."""


def ended(lab: Lab, *, at: str | float, number: int, whom: str) -> tuple[int, str]:
    """A run that is ended so; its exit code and what it said. Nothing of it may be left."""
    before = inventory(lab)
    run = Running(
        "svc/remote", "-n", "shop", "--from", "pod/client", "--lab-name", lab.name, "--timeout", "3"
    )
    if isinstance(at, str):
        until(lambda: MOMENTS[at](run, lab), at, run)
    else:
        time.sleep(at)
    programs = run.programs()
    chosen = {
        "it": [run.process.pid],
        "an agent": run.of("kptrace.agent.server")[-1:],
        "it and its agents": [run.process.pid, *run.of("kptrace.agent.server")],
    }
    run.end(number, chosen[whom])
    _, said = run.process.communicate(timeout=PATIENCE)
    until(lambda: not run.of(), "all that it started has ended")
    until(lambda: inventory(lab) == before, f"as before: {difference(before, inventory(lab))}")
    assert not [program for program in programs if exists(program)]
    return run.process.returncode, said


def difference(before: dict[str, str], after: dict[str, str]) -> dict[str, tuple[str, str]]:
    keys = before.keys() | after.keys()
    pairs = {key: (before.get(key, ""), after.get(key, "")) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


# --- the tests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
@pytest.mark.parametrize("at", ["two agents live", "a tap is bound", "the probe is out"])
def test_interrupted(lab: Lab, at: str, number: signal.Signals) -> None:
    code, said = ended(lab, at=at, number=number, whom="it")
    assert code == 130
    assert said == "kptrace: interrupted; nothing was left behind\n"


@pytest.mark.parametrize("at", MOMENTS)
def test_killed(lab: Lab, at: str) -> None:
    code, _ = ended(lab, at=at, number=signal.SIGKILL, whom="it")
    assert code == -signal.SIGKILL


@pytest.mark.parametrize("at", [0.0, 0.13, 0.31, 0.47, 0.59, 0.83])
def test_killed_at_some_time(lab: Lab, at: float) -> None:
    ended(lab, at=at, number=signal.SIGKILL, whom="it")


@pytest.mark.parametrize("at", ["two agents live", "a tap is bound", "the probe is out"])
def test_killed_with_its_agents(lab: Lab, at: str) -> None:
    ended(lab, at=at, number=signal.SIGKILL, whom="it and its agents")


@pytest.mark.parametrize("at", ["an agent lives", "a tap is bound", "the probe is out"])
def test_an_agent_is_killed(lab: Lab, at: str) -> None:
    code, said = ended(lab, at=at, number=signal.SIGKILL, whom="an agent")
    assert code == 3
    assert re.match(r"kptrace: the agent on node-[ab] (died|did not)", said)
    assert "Traceback" not in said


@pytest.mark.parametrize("form", ["text", "json"])
def test_nobody_reads(lab: Lab, form: str) -> None:
    """As with ``| head -0``: no traceback, nothing left."""
    before = inventory(lab)
    out, into = os.pipe()
    os.close(out)
    run = Running(
        "svc/near",
        "-n",
        "shop",
        "--from",
        "pod/client",
        "--lab-name",
        lab.name,
        "-o",
        form,
        stdout=into,
    )
    os.close(into)
    _, said = run.process.communicate(timeout=PATIENCE)
    assert (run.process.returncode, said) == (0, "")
    until(lambda: not run.of(), "all that it started has ended")
    assert inventory(lab) == before


def test_a_whole_run(lab: Lab) -> None:
    """The inventory sees what a run makes, and none of it afterwards."""
    before = inventory(lab)
    run = Running(
        "svc/remote", "-n", "shop", "--from", "pod/client", "--lab-name", lab.name, "--timeout", "2"
    )
    until(lambda: MOMENTS["the probe is out"](run, lab), "the probe is out", run)
    changed = difference(before, inventory(lab))
    node = lab.plan.node("node-a").netns
    client = lab.plan.pod("shop/client").netns
    assert {
        f"{node} nft",
        f"{node} loggers",
        f"{node} packet sockets",
        f"{node} netfilter sockets",
        f"{client} packet sockets",
    } <= changed.keys()
    assert not [what for what in changed if "promiscuity" in what or "legacy" in what]
    assert run.programs()
    assert run.process.wait(PATIENCE) == 1
    until(lambda: not run.of(), "all that it started has ended")
    assert inventory(lab) == before

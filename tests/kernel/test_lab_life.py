"""A lab's life: what up makes and down leaves, whenever either is killed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kptrace.agent import netns as namespace
from kptrace.lab import cluster, host_commands, kernel_features, netlink, servers, state, topology
from kptrace.lab.address_plan import plan
from kptrace.lab.network_objects import AddLink
from kptrace.model import Netns
from kptrace.model.errors import (
    ClusterUnreachableError,
    ObservationError,
    PermissionDeniedError,
    UnsupportedError,
)

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
NAME = f"life-{os.getpid()}"


@pytest.fixture
def name() -> Iterator[str]:
    yield NAME
    if NAME in state.names():
        cluster.down(NAME)


def leftovers(prefix: str) -> list[str]:
    """Everything on this machine that could be a lab's whose name starts so."""
    found = [str(path) for path in Path("/run/netns").glob(f"kpt-{prefix}*")]
    found += [str(path) for path in Path("/etc/netns").glob(f"kpt-{prefix}*")]
    found += [str(path) for path in Path("/run/kptrace/lab").glob(f"{prefix}*")]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"kptrace.lab.servers" in words and any(w.startswith(prefix.encode()) for w in words):
            found.append(str(path))
    return found


def own_namespace() -> list[str]:
    """What is the machine's own: links, addresses, routes, rules, sysctls."""
    commands = (
        ("ip", "-o", "link"),
        ("ip", "-o", "addr"),
        ("ip", "route", "show", "table", "all"),
        ("nft", "list", "ruleset"),
    )
    # lifetimes of addresses and counters tick by themselves
    return [host_commands.run(argv).replace("\n", " ") for argv in commands] + [
        host_commands.sysctl_path(one).read_text()
        for one in ("net.ipv4.ip_forward", "net.ipv6.conf.all.accept_dad")
    ]


def fetch(lab: state.Lab, address: str) -> str:
    def work() -> str:
        with socket.create_connection((address, 80), timeout=3) as line:
            return line.makefile("rb").read().decode().rpartition("\r\n\r\n")[2].strip()

    return namespace.run_in_netns(
        lab.netns_handle(Netns(node="node-a", pod="shop/client")).ns_path, work
    )


def test_down_leaves_nothing_and_the_machine_is_untouched(name: str) -> None:
    before = own_namespace()
    lab = cluster.up(plan(name))
    assert own_namespace() == before
    assert fetch(lab, "10.96.1.2") == "remote-1"
    assert lab.state.servers is not None
    cluster.down(name)
    assert leftovers(name) == []
    assert not lab.state.servers.alive()
    assert own_namespace() == before


def test_two_labs_side_by_side(name: str) -> None:
    first = cluster.up(plan(name))
    second = cluster.up(plan(f"{name}-x", 3, "nftables", "host-gw"))
    try:
        servers.control(
            first, servers.ServerCommand(do="close", pod="shop/remote-1", protocol="tcp", port=8080)
        )
        assert fetch(second, "10.96.1.2") == "remote-1"
        with pytest.raises(ConnectionRefusedError):
            fetch(first, "10.96.1.2")
        cluster.down(name)
        assert fetch(second, "10.96.1.2") == "remote-1"
        assert f"{name}-x" in state.names()
        assert name not in state.names()
    finally:
        cluster.down(f"{name}-x")
    assert leftovers(name) == []


def test_doors_open(name: str) -> None:
    lab = cluster.up(plan(name, 3))
    assert {door.netns.node for door in lab.handles} == {"node-a", "node-b", "node-c"}
    for door in lab.handles:
        assert namespace.inode(door.ns_path) != namespace.inode("")
        if door.netns.pod:
            assert "nameserver 10.96.0.10\n" in Path(door.resolv_conf).read_text()
    assert "eth0" in namespace.interfaces(lab.netns_handle(Netns(node="node-c")).ns_path).values()


def test_up_over_a_lab_and_down_without_one(name: str) -> None:
    with pytest.raises(ClusterUnreachableError, match="there is no lab named"):
        cluster.down(name)
    lab = cluster.up(plan(name))
    with pytest.raises(ObservationError, match="there is already a lab"):
        cluster.up(plan(name))
    assert fetch(lab, "10.96.1.2") == "remote-1"


def test_of_two_ups_at_once_one_wins(name: str) -> None:
    script = f"from kptrace.lab import address_plan as p, cluster; cluster.up(p.plan({name!r}))"
    ups = [
        subprocess.Popen(
            [sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    said = [one.communicate()[1] for one in ups]
    assert sorted(one.returncode for one in ups) == [0, 1, 1]
    assert sum("there is already a lab" in text for text in said) == 2
    assert fetch(state.load(name), "10.96.1.2") == "remote-1"


def test_foreign_namespace_is_not_taken(name: str) -> None:
    namespace.create(f"kpt-{name}-node-b")
    try:
        with pytest.raises(ObservationError, match="belongs to no lab"):
            cluster.up(plan(name))
        assert (state.NETNS / f"kpt-{name}-node-b").exists()
        assert name not in state.names()
    finally:
        namespace.delete(f"kpt-{name}-node-b")


def test_without_root() -> None:
    """An ordinary user is told what it needs before anything is made."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setuid(65534)
            cluster.up(plan(NAME))
        except PermissionDeniedError as error:
            code = 42 if "root" in error.message else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
    assert leftovers(NAME) == []


STAGES = (
    "cluster, '_write_documents'",
    "cluster.netns, 'create'",
    "cluster, '_start_servers'",
    "cluster, '_carry_out'",
    "cluster.load_rules, 'install'",
    "cluster, '_expect_ready'",
    "cluster, '_tell_to_stay'",
)


def run_up(name: str, stage: str, harm: str, after: int = 0) -> int:
    """``up`` in a process of its own, in which one step is the last."""
    script = f"""
import os, signal
from kptrace.lab import cluster, netlink, topology
from kptrace.lab.address_plan import plan
room, step = {stage}
true, calls = getattr(room, step), []
def last(*given, **named):
    calls.append(1)
    if len(calls) > {after}:
        {harm}
    return true(*given, **named)
setattr(room, step, last)
cluster.up(plan({name!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=False
    )
    return done.returncode


@pytest.mark.parametrize("after", [0, 5])
@pytest.mark.parametrize("stage", STAGES)
def test_killed_up_is_removed_by_down(name: str, stage: str, after: int) -> None:
    code = run_up(name, stage, "os.kill(os.getpid(), signal.SIGKILL)", after)
    if code == 0:  # the step comes fewer times
        assert fetch(state.load(name), "10.96.1.2") == "remote-1"
    else:
        assert code == -9
        if stage != "cluster, '_tell_to_stay'":
            with pytest.raises(ClusterUnreachableError, match="half made"):
                state.load(name)
        with pytest.raises(ObservationError, match="already a lab"):
            cluster.up(plan(name))
    cluster.down(name)
    assert wait_for_nothing(name) == []


@pytest.mark.parametrize("harm", ["raise KeyboardInterrupt", "raise OSError('no space left')"])
@pytest.mark.parametrize("stage", STAGES)
def test_interrupted_up_cleans_after_itself(name: str, stage: str, harm: str) -> None:
    assert run_up(name, stage, harm) != 0
    assert name not in state.names()
    assert leftovers(name) == []


def wait_for_nothing(prefix: str) -> list[str]:
    """Servers whose ``up`` was killed leave when their stdin ends: a moment later."""
    import time

    for _ in range(100):
        if not leftovers(prefix):
            break
        time.sleep(0.05)
    return leftovers(prefix)


def test_a_shell_in_a_pod_ends_with_it(name: str) -> None:
    lab = cluster.up(plan(name))
    door = lab.netns_handle(Netns(node="node-a", pod="shop/client"))
    shell = namespace.run_in_netns(door.ns_path, lambda: subprocess.Popen(["sleep", "1000"]))
    cluster.down(name)
    assert shell.wait(timeout=5) == -9


def test_every_feature_works_here() -> None:
    for proxy in ("iptables", "iptables-legacy", "nftables"):
        with kernel_features.scratch() as netns:
            for feature in kernel_features.features(plan(NAME, 2, proxy)):
                assert kernel_features.works(feature, netns), feature.what
    assert not list(Path("/run/netns").glob(f"kpt-try-{os.getpid()}*"))


def test_the_missing_feature_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device type that no kernel has stands for one that this kernel lacks."""
    absent = kernel_features.Feature(
        what="flying carpets",
        option="CONFIG_CARPET",
        link=AddLink(name="a", kind="carpet"),
    )
    true = kernel_features.features
    monkeypatch.setattr(kernel_features, "features", lambda plan: (*true(plan), absent))

    def refused(setup: topology.NetnsSetup) -> None:
        assert absent.link is not None
        netlink.make((absent.link,), setup.netns)

    monkeypatch.setattr(cluster, "_carry_out", refused)
    with pytest.raises(UnsupportedError, match="this kernel lacks flying carpets") as raised:
        cluster.up(plan(name))
    assert "CONFIG_CARPET" in raised.value.hint
    assert leftovers(name) == []

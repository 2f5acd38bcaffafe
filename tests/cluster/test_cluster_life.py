"""A cluster goes as it came: side by side with another, and after parts of it were killed.

What is left is looked for here with other eyes than those of ``leftovers``: every process by its
control group, its words and its network namespace, every mount, interface and folder by name.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cluster.ground import home, leftovers
from cluster.ground.cluster import Cluster
from cluster.ground.connection import from_pod
from cluster.ground.plan import NotPossible

TESTS = Path(__file__).parents[1]
SECONDS = 240


def processes() -> Iterator[Path]:
    return (path for path in Path("/proc").iterdir() if path.name.isdigit())


def of_process(process: Path, name: str) -> bool:
    with suppress(OSError):
        groups = (process / "cgroup").read_text()
        words = (process / "cmdline").read_text().replace("\0", " ")
        mine = process.name == str(os.getpid())
        return not mine and (f"kpc-{name}/" in groups or f"kpc-{name}-" in words)
    return False


def netns_of(name: str) -> set[int]:
    """The network namespaces of all its processes, the pods' too."""
    found = set()
    for process in processes():
        if of_process(process, name):
            with suppress(OSError):
                found.add(os.stat(process / "ns" / "net").st_ino)
    return found - {os.stat("/proc/self/ns/net").st_ino}


def traces_of(name: str, number: int, namespaces: set[int]) -> list[str]:
    found = []
    for process in processes():
        with suppress(OSError):
            inside = os.stat(process / "ns" / "net").st_ino in namespaces
            mounts = f"/clusters/{name}/" in (process / "mountinfo").read_text()
            if inside or mounts or of_process(process, name):
                found.append(f"{process}: {(process / 'cmdline').read_text()!r}")
    found += [str(path) for path in Path("/run/netns").glob(f"kpc-{name}-*")]
    found += [str(path) for path in Path("/sys/fs/cgroup").rglob(f"kpc-{name}")]
    found += [str(path) for path in Path("/sys/class/net").glob(f"kpc{number}")]
    folder = home.clusters() / name
    return found + ([str(folder)] if folder.exists() else [])


def until(fact: Callable[[], object]) -> bool:
    end = time.monotonic() + SECONDS
    while not fact():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.timeout(600, func_only=True)
def test_a_second_cluster_stands_beside_the_first_and_goes_in_pieces(cluster: Cluster) -> None:
    name = f"{cluster.home.name}-b"
    second = Cluster.up(name, "nftables", "host-gw")
    try:
        assert second.plan.number != cluster.plan.number
        assert from_pod(second, "client", "http://remote").node == "node-b"
        assert from_pod(cluster, "client", "http://remote").node == "node-b"
        namespaces = netns_of(name)
        assert len(namespaces) > len(second.plan.machines)  # pods have theirs
        assert traces_of(name, second.plan.number, namespaces)
        with pytest.raises(NotPossible, match="is there already"):
            Cluster.up(name)
        kill_parts(second)
    finally:
        leftovers.remove(name)
    assert leftovers.find(name) == []
    assert traces_of(name, second.plan.number, namespaces) == []
    assert from_pod(cluster, "client", "http://remote").node == "node-b"


def kill_parts(cluster: Cluster) -> None:
    """The first process of one node, the containerd of the other, the API server; the memory."""
    first, other = cluster.nodes.values()
    init = first.machine.init()
    assert init is not None
    os.kill(init, signal.SIGKILL)
    other.machine.run("sh", "-c", "kill -9 $(cat /run/containerd.pid)")
    cluster.control.machine.run("sh", "-c", "kill -9 $(cat /run/kube-apiserver.pid)")
    (cluster.home.path / "state.json").unlink()


@pytest.mark.parametrize("sign", ["/run/netns/kpc-{name}-node-b", "{home}/log/node-a/kubelet.log"])
def test_a_start_that_is_killed_leaves_what_down_takes_away(cluster: Cluster, sign: str) -> None:
    name = f"{cluster.home.name}-c"
    started = subprocess.Popen(
        [sys.executable, "-m", "cluster", "up", "--name", name],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        start_new_session=True,
    )
    try:
        reached = Path(sign.format(name=name, home=home.clusters() / name))
        assert until(lambda: reached.exists() or started.poll() is not None)
        kill(started)
        state = json.loads((home.clusters() / name / "state.json").read_text())
        namespaces = netns_of(name)
        assert traces_of(name, state["number"], namespaces)
    finally:
        kill(started)
        leftovers.remove(name)
    assert traces_of(name, state["number"], namespaces) == []


def kill(started: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.wait()

"""Sockets are made in the pod's own cgroup, where other programs are at connect() than at ours.

The program is the kernel's own judge: it sends connections to 192.0.2.1 to a listener that nothing
else leads to. Process 1 of a process namespace of its own has version 2 alone at /sys/fs/cgroup, or
under version 1, as nodes do; whoever looks is in a cgroup namespace, as a container is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.reroute import CONNECT4, reroute

from kptrace.agent import bpf_syscall, cgroup

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[3]
PROC = Path("/proc")
ELSEWHERE = "192.0.2.1"


@pytest.fixture
def groups() -> Iterator[tuple[Path, Path]]:
    """One with a program, one without; both are ours."""
    top = cgroup.mounted((PROC / "self/mountinfo").read_text())
    assert top, "cgroup2 is not mounted"
    parent = Path(top) / f"kptrace-test-{os.getpid()}"
    made = (parent, parent / "with", parent / "without", parent / "beside")
    for one in made:
        one.mkdir()
    try:
        reroute(made[1], ELSEWHERE, "127.0.0.1")
        yield made[1], made[2]
    finally:
        for one in reversed(made):
            emptied(one)
            one.rmdir()


def emptied(group: Path) -> None:
    """Killed processes leave their cgroup a moment later."""
    deadline = time.monotonic() + 10
    while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.02)


def test_what_is_in_effect(groups: tuple[Path, Path]) -> None:
    with_it, without = groups
    above = bpf_syscall.effective(without.parent, CONNECT4)
    assert bpf_syscall.effective(without, CONNECT4) == above
    assert len(bpf_syscall.effective(with_it, CONNECT4)) == len(above) + 1


LOOK = """
import socket, sys
from pathlib import Path
from kptrace.agent import cgroup

def where():
    return cgroup.within_cgroups("/proc/1/ns/cgroup", cgroup._own)

there, beside = (Path("/proc", pid) for pid in sys.argv[1:])
found = cgroup.with_programs(there)
server = socket.create_server(("127.0.0.1", 0))
with cgroup.within_cgroup(found):
    inside = where()
    made = socket.socket()
made.connect(("192.0.2.1", server.getsockname()[1]))  # by the cgroup that it was made in
print(found, inside, where(), server.accept()[1][0], repr(cgroup.with_programs(beside)))
"""
# Process 1 of the node; the looker is in a cgroup and in a cgroup namespace of its own.
NODE = """
umount -lR /sys/fs/cgroup
{mount}
ip link set lo up
cd {top}/{group}
sleep 60 & there=$!; echo $there > with/cgroup.procs
sleep 60 & beside=$!; echo $beside > beside/cgroup.procs
sh -c 'echo $$ > without/cgroup.procs; exec unshare --cgroup "$@"' sh \
    {python} -c "$LOOK" $there $beside
"""
ONLY_2 = "mount -t cgroup2 -o nsdelegate none /sys/fs/cgroup"
HYBRID = """
mount -t tmpfs none /sys/fs/cgroup; mkdir /sys/fs/cgroup/unified
mount -t cgroup2 -o nsdelegate none /sys/fs/cgroup/unified
"""


@pytest.mark.parametrize(
    ("mount", "top"),
    [(ONLY_2, "/sys/fs/cgroup"), (HYBRID, "/sys/fs/cgroup/unified")],
    ids=["version 2 alone", "hybrid"],
)
def test_from_a_container_of_a_node(groups: tuple[Path, Path], mount: str, top: str) -> None:
    group = groups[0].parent.name
    script = NODE.format(mount=mount, top=top, group=group, python=sys.executable)
    unshare = ("unshare", "--mount", "--net", "--pid", "--kill-child", "--fork", "--mount-proc")
    done = subprocess.run(
        [*unshare, "sh", "-ec", script],
        env={**os.environ, "LOOK": LOOK, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == [
        f"/proc/1/root{top}/{group}/with",
        f"/{group}/with",
        f"/{group}/without",
        "127.0.0.1",
        "''",  # what is in a cgroup without programs of its own is left where it is
    ], done.stderr

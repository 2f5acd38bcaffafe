"""Where version 2 of cgroups is, and where a process is in it, as nodes tell it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kptrace.agent import cgroup
from kptrace.agent.cgroup import looked_up, mounted, path_in
from kptrace.model import Netns
from kptrace.protocol import CGROUP_UNAVAILABLE, NetnsHandle

# proc(5): id parent major:minor root mount-point options [tags] - type source options
ONLY_2 = """\
22 29 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
26 23 0:23 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 \
rw,nsdelegate,memory_recursiveprot
"""
HYBRID = """\
24 23 0:21 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
25 24 0:22 / /sys/fs/cgroup/unified rw,nosuid,nodev shared:10 - cgroup2 cgroup2 rw,nsdelegate
26 24 0:23 / /sys/fs/cgroup/systemd rw,nosuid shared:11 - cgroup cgroup rw,xattr,name=systemd
27 24 0:26 / /sys/fs/cgroup/memory rw,nosuid shared:13 - cgroup cgroup rw,memory
"""
ONLY_1 = """\
24 23 0:21 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
27 24 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:13 - cgroup cgroup rw,cpu,cpuacct
"""
# a part of it, as in a container, and Cilium's mount of its own behind it
CILIUM = """\
812 790 0:23 /../../../.. /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate
813 790 0:23 / /run/cilium/cgroupv2 rw,relatime shared:402 - cgroup2 none rw
"""


@pytest.mark.parametrize(
    ("mountinfo", "where"),
    [
        (ONLY_2, "/sys/fs/cgroup"),
        (HYBRID, "/sys/fs/cgroup/unified"),
        (ONLY_1, ""),
        (CILIUM, "/run/cilium/cgroupv2"),
        ("", ""),
    ],
)
def test_where_it_is_mounted(mountinfo: str, where: str) -> None:
    assert mounted(mountinfo) == where


POD = "pod6f1a2b3c-0d4e-4f5a-8b6c-7d8e9f0a1b2c"
SLICE = "kubepods-burstable-pod6f1a2b3c_0d4e_4f5a_8b6c_7d8e9f0a1b2c.slice"
CONTAINERD = f"/kubepods.slice/kubepods-burstable.slice/{SLICE}/cri-containerd-4be1.scope"
CRIO = f"/kubepods.slice/kubepods-burstable.slice/{SLICE}/crio-4be1.scope/container"
SERVICE = "/system.slice/containerd.service"
CGROUPFS = f"/kubepods/burstable/{POD}/4be1"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (f"0::{CONTAINERD}\n", CONTAINERD),
        (f"0::{CRIO}\n", CRIO),
        (f"0::{CGROUPFS}\n", CGROUPFS),
        # hybrid: the runtime of version 1 leaves the pod beside the runtime itself, or at the top
        (f"2:memory:{CONTAINERD}\n1:name=systemd:{CONTAINERD}\n0::{CONTAINERD}\n", CONTAINERD),
        (f"3:cpu,cpuacct:{CGROUPFS}\n0::{SERVICE}\n", SERVICE),
        (f"11:memory:{CGROUPFS}\n0::/\n", "/"),
        (f"11:memory:{CGROUPFS}\n1:name=systemd:{CGROUPFS}\n", ""),
        (f"0::{CGROUPFS} (deleted)\n", ""),
        ("", ""),
    ],
)
def test_where_a_process_is(tmp_path: Path, text: str, path: str) -> None:
    (tmp_path / "cgroup").write_text(text)
    assert path_in(tmp_path / "cgroup") == path


def test_one_that_has_ended(tmp_path: Path) -> None:
    door = NetnsHandle(
        netns=Netns(node="a", pod="shop/client"), ns_path=f"{tmp_path}/9/ns/net", pod_uid="x"
    )
    assert looked_up(1, door) == (door, ())


@pytest.mark.parametrize(
    "error", [PermissionError(1, "Operation not permitted"), OSError(30, "Read-only file system")]
)
def test_one_that_may_not_be_entered_is_told(
    monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def refuse(process: Path) -> str:
        raise error

    monkeypatch.setattr(cgroup, "with_programs", refuse)
    door = NetnsHandle(
        netns=Netns(node="a", pod="shop/client"), ns_path="/proc/9/ns/net", pod_uid="x"
    )
    same, (told,) = looked_up(7, door)
    assert (same, told.id, told.file) == (door, 7, CGROUP_UNAVAILABLE)
    assert told.unavailable.endswith(f"at connect(): {error.strerror}")
    assert "CAP_SYS_ADMIN" in told.hint

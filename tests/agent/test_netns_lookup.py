"""A pod's processes, found by the names of cgroups as kubelets write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kptrace.agent.netns_lookup import processes_of, resolve_netns
from kptrace.model import Netns
from kptrace.protocol import NetnsHandle

UID = "6f1a2b3c-0d4e-4f5a-8b6c-7d8e9f0a1b2c"
SLICE = UID.replace("-", "_")
STATIC = "0123456789abcdef0123456789abcdef"
# cgroups(7): hierarchy:controllers:path. From pods, `/..` leads out of one's own cgroup namespace.
CGROUPFS = f"0::/kubepods/burstable/pod{UID}/4be1\n"
SYSTEMD = (
    f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICE}.slice/"
    "cri-containerd-4be1.scope\n"
)
CRI_O = (
    f"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{SLICE}.slice/"
    "crio-4be1.scope/container\n"
)
# containerd told of cgroupfs, the kubelet of systemd: the driver's names as one
MIXED = f"0::/system.slice/kubepods-besteffort-pod{SLICE}.slice:cri-containerd:4be1\n"
HYBRID = f"4:memory:/kubepods/pod{UID}/4be1\n1:name=systemd:/kubepods/pod{UID}/4be1\n0::/\n"
FROM_A_POD = f"0::/../../kubepods-pod{SLICE}.slice/cri-containerd-4be1.scope\n"
VERSION_1 = f"12:cpuset:/kubepods/pod{UID}/4be1\n11:memory:/kubepods/pod{UID}/4be1\n0::/\n"


def _process(proc: Path, pid: int, cgroup: str, resolv_conf: str = "") -> None:
    etc = proc / str(pid) / "root" / "etc"
    etc.mkdir(parents=True)
    (proc / str(pid) / "cgroup").write_text(cgroup)
    if resolv_conf:
        (etc / "resolv.conf").write_text(resolv_conf)


@pytest.mark.parametrize("cgroup", [CGROUPFS, SYSTEMD, CRI_O, MIXED, HYBRID, FROM_A_POD, VERSION_1])
def test_a_pod_by_its_uid(tmp_path: Path, cgroup: str) -> None:
    (tmp_path / "meminfo").touch()
    _process(tmp_path, 1, "0::/init.scope\n")
    _process(tmp_path, 10, cgroup)
    _process(tmp_path, 9, cgroup)
    assert processes_of({UID}, tmp_path) == {UID: [9, 10]}


def test_a_static_pod_by_the_hash_of_its_file(tmp_path: Path) -> None:
    _process(tmp_path, 5, f"0::/kubepods/besteffort/pod{STATIC}/4be1\n")
    assert processes_of({STATIC}, tmp_path) == {STATIC: [5]}


def test_the_way_in(tmp_path: Path) -> None:
    _process(tmp_path, 9, CGROUPFS)
    _process(tmp_path, 10, CGROUPFS, "nameserver 10.96.0.10\n")
    host = NetnsHandle(netns=Netns(node="a"), ns_path="/proc/1/ns/net")
    pod = NetnsHandle(netns=Netns(node="a", pod="shop/web"), pod_uid=UID)
    ended = NetnsHandle(netns=Netns(node="a", pod="shop/old"), pod_uid=UID.replace("6", "7"))
    same, found, closed = resolve_netns((host, pod, ended), tmp_path)
    assert same == host
    assert found.ns_path == str(tmp_path / "9/ns/net")
    assert found.resolv_conf == str(tmp_path / "10/root/etc/resolv.conf")
    assert (closed.ns_path, closed.resolv_conf) == ("", "")

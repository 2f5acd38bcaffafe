"""A pod that puts something else where the agent reads a file of it. The agent is root."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kptrace.agent import pod_files
from kptrace.agent.pod_files import LIMIT, read_pod_file, with_deadline

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mknod needs root")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A process' root, as ``/proc/PID/root`` is one."""
    root = tmp_path / "4711" / "root"
    (root / "etc").mkdir(parents=True)
    (tmp_path / "secret").write_text("of the host")
    return root


@pytest.fixture(params=[True, False], ids=["openat2", "an older kernel"])
def conf(request: pytest.FixtureRequest, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if not request.param:
        monkeypatch.setattr(pod_files, "_OPENAT2", 100_000)  # no kernel has so many calls
    return root / "etc" / "resolv.conf"


def number_of(work: Callable[[], object]) -> int | None:
    with pytest.raises(OSError) as raised:
        work()
    return raised.value.errno


def test_an_ordinary_file(conf: Path) -> None:
    conf.write_text("nameserver 10.96.0.10\n")
    assert read_pod_file(str(conf)) == "nameserver 10.96.0.10\n"


def test_a_link_inside_the_root_is_followed_there(root: Path) -> None:
    """As systemd and many images have it."""
    (root / "run").mkdir()
    (root / "run" / "resolv.conf").write_text("nameserver 10.96.0.10\n")
    (root / "etc" / "resolv.conf").symlink_to("/run/resolv.conf")
    assert read_pod_file(str(root / "etc/resolv.conf")) == "nameserver 10.96.0.10\n"


def test_a_pipe_does_not_hang_it(conf: Path) -> None:
    os.mkfifo(conf)
    assert number_of(lambda: read_pod_file(str(conf))) == errno.EINVAL


@needs_root
def test_a_device_is_not_read(conf: Path) -> None:
    os.mknod(conf, 0o666 | 0o020000, os.makedev(1, 5))  # /dev/zero
    assert number_of(lambda: read_pod_file(str(conf))) == errno.EINVAL


def test_a_large_file_is_read_to_the_limit(conf: Path) -> None:
    with open(conf, "wb") as file:
        file.truncate(20 << 30)
    assert len(read_pod_file(str(conf))) == LIMIT


@pytest.mark.parametrize("target", ["/../../secret", "../../../secret", "{tmp}/secret"])
def test_a_link_out_of_the_root_leads_nowhere(conf: Path, tmp_path: Path, target: str) -> None:
    conf.symlink_to(target.format(tmp=tmp_path))
    assert number_of(lambda: read_pod_file(str(conf))) in (errno.ENOENT, errno.ELOOP)


def test_a_folder_that_is_a_link_reads_no_file_of_the_host(conf: Path, root: Path) -> None:
    """``/etc`` -> ``/etc``: outside of the pod it would be the host's."""
    conf.parent.rmdir()
    (root / "etc").symlink_to("/etc")
    number = number_of(lambda: read_pod_file(str(root / "etc" / "hostname")))
    assert number in (errno.ELOOP, errno.ENOTDIR)


@needs_root
def test_a_link_to_the_kernels_own_files_is_refused(root: Path) -> None:
    """In the agent's own root: a pod has /proc, too, and /proc/kmsg would block."""
    (root / "etc" / "resolv.conf").symlink_to("/proc/version")
    path = f"/proc/{os.getpid()}/root{root}/etc/resolv.conf"
    assert number_of(lambda: read_pod_file(path)) == errno.EPERM


def test_a_file_system_that_does_not_answer_costs_its_deadline_alone() -> None:
    answer = threading.Event()
    try:
        work = lambda: answer.wait(60)  # noqa: E731
        assert number_of(lambda: with_deadline(work, 0.05, "/x")) == errno.ETIMEDOUT
    finally:
        answer.set()


@needs_root
def test_a_pod_cannot_rename_itself_by_its_etc_hostname(tmp_path: Path) -> None:
    """The kubelet's name is the hostname of the pod's UTS namespace; the file is the pod's own."""
    script = (
        "hostname web-1; mount --bind /tmp /tmp 2>/dev/null; echo other-pod > $1/hostname;"
        "mount --bind $1/hostname /etc/hostname; echo ready; read line"
    )
    pod = subprocess.Popen(
        ["unshare", "--uts", "--mount", "--net", "sh", "-c", script, "sh", str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert pod.stdout is not None
        assert pod.stdout.readline() == "ready\n"
        assert Path(f"/proc/{pod.pid}/root/etc/hostname").read_text() == "other-pod\n"
        code = (
            f"from kptrace.environment.local_pods import _hostname;print(_hostname(({pod.pid},)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout == "web-1\n", done.stderr
    finally:
        pod.communicate("end\n", timeout=30)

"""``kptrace snapshot`` and back: what is explained from it is what is explained on the spot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kptrace.kube.objects.cluster_state import FILES, OPTIONAL_FILES

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
SERVICES = ("svc/web", "svc/remote", "svc/echo", "svc/nodeport-local", "svc/sticky", "svc/empty")


def kptrace(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kptrace", *args]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def explained(target: str, *where: str) -> dict[str, Any]:
    done = kptrace("explain", target, "-n", "shop", "--node", "node-b", "-o", "json", *where)
    assert done.stderr == ""
    made: dict[str, Any] = json.loads(done.stdout)
    for port in made["ports"]:
        for entry in port["entries"]:
            for rule in entry["rules"]:
                rule["packets"] = rule["bytes"] = None
    return made


def round_trip(bench: Any, path: Path) -> None:
    lab = ("--lab-name", bench.lab.name)
    done = kptrace("snapshot", *lab, "-o", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == str(path)
    assert done.stdout.splitlines()[1].startswith("  2 nodes, ")
    assert f"  kptrace explain svc/NAME --bundle {path}" in done.stdout.splitlines()
    assert "not had" not in done.stdout
    for target in SERVICES:
        assert explained(target, "--bundle", str(path)) == explained(target, *lab)


def test_each_mode_of_kube_proxy(each_proxy_bench: Any, tmp_path: Path) -> None:
    round_trip(each_proxy_bench, tmp_path / "x.tar.gz")


def test_programs_at_connect(each_cilium_bench: Any, tmp_path: Path) -> None:
    round_trip(each_cilium_bench, tmp_path / "x")


def test_one_node_as_a_folder(vxlan_bench: Any, tmp_path: Path) -> None:
    path = tmp_path / "x"
    done = kptrace(
        "snapshot", "--lab-name", vxlan_bench.lab.name, "--node", "node-b", "-o", str(path)
    )
    assert done.returncode == 0
    assert sorted(each.name for each in path.iterdir()) == ["api", "node-b", "snapshot.json"]
    kept = {each.name for each in (path / "api").iterdir()}
    assert {*FILES} <= kept <= {*FILES, *OPTIONAL_FILES}
    again = kptrace("snapshot", "--lab-name", vxlan_bench.lab.name, "-o", str(path))
    assert (again.returncode, again.stdout) == (2, "")
    assert "already there" in again.stderr


def test_an_unknown_node(vxlan_bench: Any, tmp_path: Path) -> None:
    done = kptrace(
        "snapshot", "--lab-name", vxlan_bench.lab.name, "--node", "n", "-o", str(tmp_path / "x")
    )
    assert (done.returncode, list(tmp_path.iterdir())) == (3, [])
    assert "there are: node-a, node-b" in done.stderr


def test_interrupted_it_leaves_nothing(vxlan_bench: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    command = [sys.executable, "-m", "kptrace", "snapshot", "--lab-name", vxlan_bench.lab.name]
    process = subprocess.Popen([*command, "-o", str(path)], cwd=ROOT, stderr=subprocess.PIPE)
    while not _children(process.pid) and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []


def _children(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return ""

"""``kptrace check`` in a lab: silent about a sound one, and every fault named without a packet."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kptrace.lab.faults import inject

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
# fault -> what check must name, and on which node; the others only a packet shows
NAMED = {
    "proxy-rules-missing": ("proxy-rules-missing", "node-a"),
    "stale-dnat": ("stale-dnat", "node-a"),
    "forward-policy-drop": ("forward-policy-drop", "node-a"),
    "bridge-nf-off": ("bridge-nf-off", "node-a"),
    "tunnel-port-blocked": ("tunnel-port-blocked", "node-b"),
    "ip-forward-off": ("ip-forward-off", "node-a"),
    "fdb-stale": ("fdb-stale", "node-a"),
    "fdb-missing": ("fdb-missing", "node-a"),
    "pod-route-missing": ("pod-route-missing", "node-a"),
    "rp-filter": ("rp-filter", "node-b"),
}


def check(lab: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kptrace", "check", "--lab-name", lab, *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def errors(lab: str) -> set[tuple[str, str]]:
    made = json.loads(check(lab, "-o", "json").stdout)
    return {(one["cause"], one["node"]) for one in made["findings"] if one["severity"] == "error"}


def test_a_sound_lab(each_bench: Any) -> None:
    done = check(each_bench.lab.name)
    assert (done.returncode, done.stderr) == (0, "")
    assert "shop/empty has no ready endpoint" in done.stdout
    assert "4 arrive" in done.stdout
    assert errors(each_bench.lab.name) == set()


def test_each_fault_is_named(each_bench: Any) -> None:
    lab = each_bench.lab
    plan = lab.plan
    possible = [name for name in NAMED if plan.network in inject.find(name).networks]
    for fault in [name for name in possible if plan.proxy in inject.find(name).proxies]:
        with each_bench.broken(fault):
            assert NAMED[fault] in errors(lab.name), fault
            assert check(lab.name).returncode == 1, fault


def test_a_sound_lab_without_rules_for_services(each_cilium_bench: Any) -> None:
    done = check(each_cilium_bench.lab.name)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Cilium" in done.stdout


def test_from_a_snapshot(vxlan_bench: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    name = vxlan_bench.lab.name
    with vxlan_bench.broken("fdb-missing"):
        command = [sys.executable, "-m", "kptrace"]
        subprocess.run(
            [*command, "snapshot", "--lab-name", name, "-o", str(path)], cwd=ROOT, check=True
        )
        live = json.loads(check(name, "-o", "json").stdout)
    later = subprocess.run(
        [*command, "check", "--bundle", str(path), "-o", "json"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert later.returncode == 1
    assert json.loads(later.stdout)["findings"] == live["findings"]

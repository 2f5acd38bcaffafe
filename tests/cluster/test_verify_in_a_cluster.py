"""``kptrace verify`` as a CI job runs it, and completion that asks the cluster for names."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from cluster.cli import ROOT, Cli
from cluster.ground.cluster import Cluster

CHECKS = """\
defaults:
  from: pod/client
checks:
- target: svc/web
- target: svc/remote
  name: the other node is reached
  expect: dropped
- target: svc/lost
"""


@pytest.fixture
def cli(cluster: Cluster) -> Cli:
    return Cli(cluster)


@pytest.fixture
def checks(tmp_path: Path) -> str:
    file = tmp_path / "checks.yaml"
    file.write_text(CHECKS)
    return str(file)


def test_each_is_tried_and_nothing_is_left(cli: Cli, checks: str) -> None:
    told = cli("verify", checks, "-n", "shop", "-o", "json")
    assert told.code == 1, told.err
    made = json.loads(told.out)
    assert [each["status"] for each in made["results"]] == ["passed", "failed", "error"]
    assert made["about"]["proxy"] == cli.cluster.proxy
    assert made["about"]["node node-a"].startswith("kubelet v1.")
    assert cli.left() == []


def test_as_junit(cli: Cli, checks: str) -> None:
    told = cli("verify", checks, "-n", "shop", "-o", "junit")
    assert told.code == 1, told.err
    root = ElementTree.fromstring(told.out)
    assert [root.get(key) for key in ("tests", "failures", "errors")] == ["3", "1", "1"]
    named = {each.get("name") for each in root.iter("property")}
    assert {"kptrace", "proxy", "network", "node node-a", "node node-b"} <= named


def test_names_are_completed(cluster: Cluster) -> None:
    program = ROOT / "completions" / "kubectl_complete-kptrace"
    environ = {**os.environ, "KUBECONFIG": str(cluster.home.kubeconfig)}
    done = subprocess.run(
        ["sh", program, "explain", "-n", "shop", "svc/remo"],
        env={**environ, "KUBECTL_PATH": str(cluster.kubectl.program)},
        capture_output=True,
        text=True,
        check=True,
    )
    names = [line.partition("\t")[0] for line in done.stdout.splitlines()]
    assert "svc/remote" in names
    assert names[-1] == ":4"

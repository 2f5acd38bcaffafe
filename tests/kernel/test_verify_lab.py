"""``kptrace verify`` in a lab, by the real command: what is as expected, what is not, and why."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kptrace.render.schema import schema
from kptrace.verify.results import Verification

pytestmark = pytest.mark.kernel

CHECKS = """\
defaults:
  namespace: shop
  from: pod/client
  timeout: 1
checks:
- target: svc/near
- target: svc/remote
  name: the other node is reached
- target: svc/empty
  expect: [no-endpoints, rejected]
- target: svc/lost
- target: svc/nodeport
  via: nodePort
  node: node-a
  expect: dropped
- target: svc/echo
  count: 2
"""


@pytest.fixture(scope="module")
def broken(vxlan_bench: Any) -> Iterator[str]:
    """The name of a lab in which nothing listens behind one Service."""
    with vxlan_bench.broken("no-listener"):
        yield vxlan_bench.lab.name


def verify(lab: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "checks.yaml").write_text(CHECKS)
    return subprocess.run(
        [sys.executable, "-P", "-m", "kptrace", "verify", "checks.yaml", "--lab-name", lab, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_results(broken: str, tmp_path: Path) -> None:
    done = verify(broken, tmp_path, "-o", "json", "--save", "runs")
    assert (done.returncode, done.stderr) == (1, "")
    made = json.loads(done.stdout)
    jsonschema.validate(made, schema(Verification))
    near, remote, empty, lost, wrong, _ = made["results"]
    assert near["status"] == "passed"
    assert (remote["status"], remote["trace"]["outcome"]) == ("failed", "refused")
    assert remote["trace"]["findings"][0]["cause"] == "no-listener"
    assert empty["status"] == "passed"
    assert (lost["status"], lost["error"]["kind"]) == ("error", "NotFoundError")
    assert (wrong["status"], wrong["expectation"]["request"]["expect"]) == ("failed", ["dropped"])
    assert made["about"]["proxy"] == "iptables"
    assert [near["saved"], empty["saved"], lost["saved"]] == ["", "", ""]
    assert remote["saved"] == "runs/7-svc-remote.tar.gz"
    kept = subprocess.run(
        [sys.executable, "-P", "-m", "kptrace", "replay", tmp_path / remote["saved"]],
        capture_output=True,
        text=True,
    )
    assert (kept.returncode, "no-listener" in kept.stdout) == (1, True)


def test_the_last_lines_say_what_failed_and_why(broken: str, tmp_path: Path) -> None:
    done = verify(broken, tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    _, _, rest = done.stdout.partition("Not as expected:\n")
    assert "line 7    the other node is reached  REFUSED by the backend\n" in rest
    assert "  Cause     no-listener\n" in rest
    assert "  Problem   no Service lost in namespace shop\n" in rest
    assert "svc/near (shop)" not in rest  # it passed

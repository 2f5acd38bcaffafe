"""``kptrace verify`` ended by Ctrl-C in the middle: what it had is told, in each form, and no more.

The check in the middle waits for its time-out: its connection is known to be out from a socket of
the client's pod, in the state SYN_SENT.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

from kptrace.agent.netns import run_in_netns
from kptrace.lab import host_commands
from kptrace.lab.state import NETNS, Lab
from kptrace.render.schema import schema
from kptrace.verify.results import Verification

pytestmark = pytest.mark.kernel

MARK = "KPTRACE_TEST_VERIFY"
PATIENCE = 60.0
CHECKS = """\
defaults:
  namespace: shop
  from: pod/client
checks:
- target: svc/near
- target: svc/near
  expect: dropped
- target: svc/remote
  timeout: 60
- target: svc/near
"""


@pytest.fixture(scope="module")
def lab(vxlan_bench: Any) -> Iterator[Lab]:
    """Its Service ``remote`` sends to a pod that is gone."""
    with vxlan_bench.broken("stale-dnat"):
        yield vxlan_bench.lab


def interrupted(lab: Lab, folder: Path, form: str) -> str:
    """What it wrote."""
    mark = str(uuid.uuid4())
    (folder / "checks.yaml").write_text(CHECKS)
    words = ("verify", "checks.yaml", "--lab-name", lab.name, "-o", form)
    tables = rules(lab)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "kptrace", *words],
        cwd=folder,
        env={**os.environ, MARK: mark, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as a job of a terminal, which signals all of the group
    )
    try:
        wait_until_the_probe_is_out(lab, process)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert err == "kptrace: interrupted; nothing was left behind\n"
    assert living(mark) == []
    assert rules(lab) == tables
    return out


def wait_until_the_probe_is_out(lab: Lab, process: subprocess.Popen[str]) -> None:
    connections = NETNS / lab.plan.pod("shop/client").netns
    deadline = time.monotonic() + PATIENCE
    while " 02 " not in run_in_netns(str(connections), Path("/proc/thread-self/net/tcp").read_text):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def living(mark: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (path / "environ").read_bytes().split(b"\0"):
                found.append((path / "cmdline").read_text())
        except OSError:
            continue
    return found


def rules(lab: Lab) -> list[str]:
    """The tables of rules on each node, of which the rule trace has its own."""
    return [
        host_commands.run(("nft", "list", "tables"), netns=node.netns) for node in lab.plan.nodes
    ]


def test_as_json(lab: Lab, tmp_path: Path) -> None:
    made = json.loads(interrupted(lab, tmp_path, "json"))
    jsonschema.validate(made, schema(Verification))
    told = [one["status"] for one in made["results"]]
    assert told == ["passed", "failed", "untried", "untried"]
    assert [one["error"]["message"] for one in made["results"][2:]] == [
        "interrupted",
        "not tried",
    ]


def test_as_junit(lab: Lab, tmp_path: Path) -> None:
    root = ElementTree.fromstring(interrupted(lab, tmp_path, "junit"))
    counts = [root.get(key) for key in ("tests", "failures", "errors", "skipped")]
    assert counts == ["4", "1", "0", "2"]
    messages = [one.get("message") for one in root.iter("skipped")]
    assert messages == ["interrupted", "not tried"]


@pytest.mark.parametrize("form", ["text", "wide", "github"])
def test_as_text(lab: Lab, tmp_path: Path, form: str) -> None:
    told = interrupted(lab, tmp_path, form)
    assert "1 of 4 as expected, then interrupted" in told
    rows = [line.split() for line in told.splitlines() if line.startswith("untried")]
    assert [(row[1], " ".join(row[5:])) for row in rows] == [
        ("svc/remote", "interrupted"),
        ("svc/near", "not tried"),
    ]
    assert "Not as expected:\n\n  line 6 " in told

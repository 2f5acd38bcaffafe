"""The lab on the command line, without root: what is printed, and which errors are raised."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import typer.testing

from kptrace.cli.lab import app
from kptrace.lab import manifests, state
from kptrace.lab.address_plan import plan
from kptrace.lab.state import Lab, LabStateFile
from kptrace.model.errors import (
    ClusterUnreachableError,
    KptraceError,
    NotFoundError,
    PermissionDeniedError,
    UsageError,
)

RUNNER = typer.testing.CliRunner()


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(state, "ROOT", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return tmp_path


def run(*words: str) -> str:
    result = RUNNER.invoke(app, words)
    if result.exception:
        raise result.exception
    return result.stdout


def test_status() -> None:
    lab = Lab(
        plan=plan(), state=LabStateFile(nodes=2, proxy="iptables", network="vxlan", ready=True)
    )
    state.save(lab)
    lab.api.mkdir()
    for name, text in manifests.documents(lab.plan).items():
        (lab.api / name).write_text(text)
    assert run("status").startswith("lab default: proxy iptables, network vxlan, 2 nodes\n")
    assert "\x1b" not in run("status")
    assert json.loads(run("status", "-o", "json"))["name"] == "default"


def test_faults_needs_no_lab_and_no_root() -> None:
    assert "fdb-stale" in run("faults")


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (("up",), PermissionDeniedError, "root"),
        (("down",), PermissionDeniedError, "root"),
        (("break", "fdb-stale"), PermissionDeniedError, "root"),
        (("heal",), PermissionDeniedError, "root"),
        (("up", "--proxy", "ebpf"), UsageError, "none of: iptables"),
        (("up", "--name", "A B"), UsageError, "cannot be a lab's name"),
        (("up", "--nodes", "99"), UsageError, "2 to 9 nodes"),
        (("status",), ClusterUnreachableError, "no lab named 'default'"),
        (("status", "-o", "xml"), UsageError, "none of: text, json"),
        (("break", "gremlins"), NotFoundError, "no fault named"),
    ],
)
def test_errors_are_ours(words: tuple[str, ...], error: type[KptraceError], said: str) -> None:
    with pytest.raises(error, match=said):
        run(*words)


def test_help_imports_nothing_heavy() -> None:
    import subprocess

    script = (
        "import sys; from kptrace.cli.lab import app\n"
        "try: app(['up', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'dns', 'asyncio', 'msgspec', 'rich', 'kptrace.lab.address_plan'}\n"
        "print(*(set(sys.modules) & heavy),"
        " file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "--network" in done.stdout
    assert done.stderr.split() == []

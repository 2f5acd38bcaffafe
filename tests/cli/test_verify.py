"""``kptrace verify`` without a lab: files that cannot be read; and what CI systems are handed, by
the command ``replay``, which tells of a saved run in the same forms.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kptrace import __version__

BLOCKED = "replay-tunnel-port-blocked"


def run(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "kptrace", *words],
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1", **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_mistake_in_the_file_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "checks.yaml").write_text("checks:\n- target: svc/web\n  form: pod/x\n")
    done = run(tmp_path, "verify", "checks.yaml", "--lab-name", "none")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("kptrace: checks.yaml:3: a check has no key 'form'\n")
    assert "did you mean from?" in done.stderr


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "checks.yaml").write_bytes(content)
    done = run(tmp_path, "verify", "checks.yaml", "--lab-name", "none")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("kptrace: checks.yaml ")


def test_no_lab_is_told_of_each_check(tmp_path: Path) -> None:
    """It goes on: another check may look elsewhere, and all are in the list."""
    (tmp_path / "checks.yaml").write_text("checks:\n- target: svc/a\n- target: svc/b\n")
    done = run(tmp_path, "verify", "checks.yaml", "--lab-name", "none")
    assert done.returncode == 3
    assert "0 of 2 as expected" in done.stdout
    assert done.stdout.count("Problem") == 2


def test_a_trace_as_annotations_and_a_page(tmp_path: Path, cases: Path) -> None:
    page = tmp_path / "summary.md"
    page.write_text("of another command\n")
    words = ("replay", str(cases / BLOCKED), "-o", "github")
    done = run(tmp_path, *words, GITHUB_STEP_SUMMARY=str(page))
    assert (done.returncode, done.stderr) == (1, "")
    first, *log, last, note = done.stdout.splitlines()
    assert first.startswith("::stop-commands::kptrace-")
    assert last == f"::{first.rpartition('::')[2]}::"
    assert any("DROPPED on node-b" in line for line in log)
    assert note.startswith("::error title=svc/remote (shop) from pod/client on node-a%3A DROPPED")
    written = page.read_text()
    assert written.startswith("of another command\n### kptrace: 0 of 1 as expected\n")
    assert "(`tunnel-port-blocked`)" in written


def test_a_page_that_cannot_be_written(tmp_path: Path, cases: Path) -> None:
    words = ("replay", str(cases / BLOCKED), "-o", "github")
    done = run(tmp_path, *words, GITHUB_STEP_SUMMARY=str(tmp_path))
    assert done.returncode == 1
    assert "cannot be written: Is a directory" in done.stderr
    assert run(tmp_path, *words, GITHUB_STEP_SUMMARY="").stderr == ""


def test_a_trace_as_junit_says_where_it_was(tmp_path: Path, cases: Path) -> None:
    done = run(tmp_path, "replay", str(cases / BLOCKED), "-o", "junit")
    suite = ElementTree.fromstring(done.stdout)[0]
    told = {each.get("name"): each.get("value") for each in suite.iter("property")}
    assert told == {"kptrace": __version__, "proxy": "iptables", "network": "Flannel (VXLAN)"}

"""A child of ours is ours: whatever lies in the current folder, and with no packages of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import kptrace
from kptrace.agent import python_child

ROOT = Path(kptrace.__file__).parents[1]


def test_the_current_folder_is_not_imported_from(tmp_path: Path) -> None:
    for name in ("msgspec", "json", "kptrace"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not yours')\n")
    done = subprocess.run(
        python_child.command("kptrace.agent.server"),
        env=python_child.environ(),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_python_without_our_packages_finds_kptrace(monkeypatch: pytest.MonkeyPatch) -> None:
    """As from a single-file archive: its Python is the system's."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import kptrace; print(kptrace.__file__)"],
        env=python_child.environ(),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == str(ROOT / "kptrace" / "__init__.py")


def test_the_users_own_path_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/their/modules")
    assert python_child.environ()["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "/their/modules"]

"""The single file: runs with any Python that fits, an empty HOME and no packages, and says so where
it cannot run."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import kptrace

ROOT = Path(__file__).parents[2]
SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"

# the base of this virtual environment: it has none of our packages
PYTHON = str(Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}"))


def run(pyz: Path, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, "-I", pyz, *words],
        env={"HOME": str(home), "PATH": SYSTEM},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_it_runs_with_an_empty_home(pyz: Path, tmp_path: Path) -> None:
    done = run(pyz, tmp_path, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"kptrace {kptrace.__version__}\n",
        "",
    )
    assert [path.name for path in tmp_path.iterdir()] == [".shiv"]
    done = run(pyz, tmp_path, "causes", "no-route")
    assert done.returncode == 0
    assert done.stdout.startswith("no-route")


@pytest.mark.slow
def test_it_is_a_program_of_its_own(pyz: Path) -> None:
    assert os.access(pyz, os.X_OK)
    assert pyz.read_bytes().startswith(b"#!/usr/bin/env python3\n")
    assert pyz.stat().st_size < 35 << 20


@pytest.mark.slow
def test_one_file_serves_several_pythons(pyz: Path) -> None:
    names = zipfile.ZipFile(pyz).namelist()
    for package in ("msgspec", "yaml", "pydantic_core"):
        found = {
            tag[1] for name in names if (tag := re.search(rf"{package}/.*\.cpython-(\d+)-", name))
        }
        assert {"311", "312", "313", "314"} <= found, package
    assert not [name for name in names if "kubernetes/aio/" in name or "/aiohttp/" in name]
    assert [name for name in names if name.endswith("kptrace_plugins/flannel.py")]
    assert [name for name in names if re.search(r"kptrace-.*dist-info/entry_points.txt$", name)]
    assert not [name for name in names if "/tests/" in name and "kptrace" in name]


@pytest.mark.slow
@pytest.mark.kernel
def test_its_agents_are_its_own(pyz: Path, tmp_path: Path) -> None:
    """An agent is another process: it too has to find what is in the file."""
    done = subprocess.run(
        ["unshare", "--net", PYTHON, "-I", pyz, "explain", "svc/nowhere", "--offline"],
        env={"HOME": str(tmp_path), "PATH": SYSTEM},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 3
    assert done.stderr.startswith("kptrace: no ")  # an agent looked, and found nothing
    assert "agent" not in done.stderr


@pytest.mark.slow
def test_it_forgets_what_an_older_one_unpacked(pyz: Path, tmp_path: Path) -> None:
    older = tmp_path / ".shiv" / f"{pyz.name}_0123" / "site-packages"
    other = tmp_path / ".shiv" / "another.pyz_0123" / "site-packages"
    older.mkdir(parents=True)
    other.mkdir(parents=True)
    run(pyz, tmp_path, "--version")
    assert not older.exists()
    assert other.exists()


def test_a_python_that_does_not_fit(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    modules = tmp_path / "kptrace.pyz_1" / "site-packages"
    (modules / "msgspec").mkdir(parents=True)
    for version in ("311", "312"):
        (modules / "msgspec" / f"_core.cpython-{version}-sparc64-linux-gnu.so").touch()
    given = {"site_packages": modules, "archive": "./kptrace.pyz"}
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(build / "preamble.py"), given)
    assert left.value.code == 3
    message, hint = capsys.readouterr().err.splitlines()
    assert message.startswith("kptrace: this file cannot run with Python 3.")
    assert "it needs Python 3.11, 3.12 on sparc64-linux-gnu" in hint
    assert hint.endswith("python3.11 ./kptrace.pyz ...")

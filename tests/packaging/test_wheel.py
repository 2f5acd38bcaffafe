"""The wheel: holds what it should and nothing else, and runs from a virtual environment."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

import kptrace

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "plugins" / "kubectl" / "build" / "requirements" / "runtime.txt"
COMMANDS = ("kptrace", "kubectl-kptrace")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", folder]
    subprocess.run([*pip, *options, ROOT], check=True)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the wheel and what it needs, as locked."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check"]
    locked = ["--only-binary=:all:", "--require-hashes", "-r", LOCK]
    subprocess.run([*pip, "--quiet", *locked], check=True)
    subprocess.run([*pip, "--quiet", "--no-index", "--no-deps", wheel], check=True)
    return folder


def sources() -> Iterator[str]:
    """Everything that a user needs to run it."""
    for folder in (ROOT / "kptrace", ROOT / "plugins" / "kptrace_plugins"):
        for path in folder.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(folder.parent).as_posix()


def test_what_is_in_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wheel.name == f"kptrace-{kptrace.__version__}-py3-none-any.whl"
    assert set(sources()) - names == set()
    about = f"kptrace-{kptrace.__version__}.dist-info"
    data = f"kptrace-{kptrace.__version__}.data"
    tops = {name.partition("/")[0] for name in names}
    assert tops <= {"kptrace", "kptrace_plugins", about, data}
    assert f"{about}/licenses/LICENSE" in names
    assert not [name for name in names if "test" in name.split("/") or name.endswith(".pyc")]


def test_what_it_says_of_itself(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as held:
        (name,) = [name for name in held.namelist() if name.endswith(".dist-info/METADATA")]
        told = Parser().parsestr(held.read(name).decode())
    assert told["Name"] == "kptrace"
    assert told["Requires-Python"] == ">=3.11"
    assert told["License-Expression"] == "Apache-2.0"
    assert str(told.get_payload()).startswith("# kptrace")


@pytest.mark.slow
def test_the_lock_is_all_that_it_needs(installed: Path) -> None:
    check = [installed / "bin" / "python", "-m", "pip", "check", "--disable-pip-version-check"]
    done = subprocess.run(check, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "No broken requirements found.\n")


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_both_commands_run(installed: Path, command: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [installed / "bin" / command, "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    shown = "kubectl kptrace" if command.startswith("kubectl-") else "kptrace"
    assert done.stdout.startswith(f"Usage: {shown} ")


@pytest.mark.slow
def test_shells_find_its_completions(installed: Path) -> None:
    """Where each of them looks below a prefix; kubectl looks on PATH."""
    done = subprocess.run(
        [installed / "bin" / "kubectl_complete-kptrace", "expl"], capture_output=True, text=True
    )
    assert done.stdout.startswith("explain\t")
    for there, ours in {
        "bash-completion/completions/kptrace": "kptrace.bash",
        "zsh/site-functions/_kptrace": "_kptrace",
        "fish/vendor_completions.d/kptrace.fish": "kptrace.fish",
    }.items():
        content = (ROOT / "completions" / ours).read_bytes()
        assert (installed / "share" / there).read_bytes() == content


@pytest.mark.slow
def test_a_saved_run_is_told_from_it(installed: Path, tmp_path: Path) -> None:
    """The whole pure half at work, from the installed files alone, plugins and all."""
    saved = ROOT / "tests" / "cases" / "replay-delivered"
    done = subprocess.run(
        [installed / "bin" / "kptrace", "replay", saved],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "DELIVERED" in done.stdout
    assert "Flannel" in done.stdout

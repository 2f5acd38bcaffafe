"""The manifest for krew: by krew's rules, and installed as krew installs it."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

import krew_built
from cluster.ground.plan import NotPossible
from krew_rules import chosen, install, mistakes

from kptrace import __version__

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "plugins" / "kubectl" / "kptrace.yaml"


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    return read


def test_the_manifest_is_by_the_rules(manifest: dict[str, Any]) -> None:
    assert list(mistakes(MANIFEST.stem, manifest)) == []
    assert manifest["spec"]["version"] == f"v{__version__}"
    assert "Python 3.11" in manifest["spec"]["caveats"]


def _set(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(manifest: Any) -> None:
        for key in path[:-1]:
            manifest = manifest[key]
        manifest[path[-1]] = value

    return change


FIRST = ("spec", "platforms", 0)


@pytest.mark.parametrize(
    "change",
    [
        _set("apiVersion", value="v1"),
        _set("metadata", "name", value="kube-ptrace"),
        _set("spec", "version", value="0.1.0"),
        _set("spec", "version", value="v0.1"),
        _set("spec", "shortDescription", value="A kubectl plugin that traces"),
        _set("spec", "shortDescription", value="two\nlines"),
        _set("spec", "description", value="word " * 30),
        _set("spec", "platforms", value=[]),
        _set(*FIRST, "uri", value="https://example.com/kptrace.tgz"),
        _set(*FIRST, "sha256", value="29C9"),
        _set(*FIRST, "bin", value=""),
        _set(*FIRST, "files", value=[{"from": "kptrace", "to": "."}]),
        _set(*FIRST, "selector", value={}),
        _set(*FIRST, "selector", value={"matchLabels": {"os": "linux", "arch": "riscv64"}}),
        _set(*FIRST, "selector", value={"matchLabels": {"os": "linux"}}),
        _set(*FIRST, "selector", value={"matchLabels": {"os": "windows"}}),
    ],
)
def test_the_rules_have_teeth(
    manifest: dict[str, Any], change: Callable[[dict[str, Any]], None]
) -> None:
    spoiled = copy.deepcopy(manifest)
    change(spoiled)
    assert list(mistakes(MANIFEST.stem, spoiled))


# --- a release ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def release(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a release for this platform."""
    if (sys.platform, os.uname().machine) != ("linux", "x86_64"):
        pytest.skip("the release that is tried here is that for linux/amd64")
    folder = tmp_path_factory.mktemp("release")
    words = ("--platform", "linux/amd64", "--output", folder)
    subprocess.run([sys.executable, build / "krew.py", *words], check=True)
    return folder


@pytest.fixture(scope="module")
def installed(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of krew's links, after it was installed as krew would."""
    folder = tmp_path_factory.mktemp("krew")
    made = yaml.safe_load((release / "kptrace.yaml").read_text(encoding="utf-8"))
    assert list(mistakes("kptrace", made)) == []
    platform = chosen(made, "linux", "amd64")
    assert set(platform["sha256"]) != {"0"}
    file = release / platform["uri"].rpartition("/")[2]
    return install(made, platform, file, folder / "root")


def run(installed: Path, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = f"{installed}:{Path(sys.base_prefix, 'bin')}:{os.environ['PATH']}"
    return subprocess.run(
        words,
        env={"PATH": path, "HOME": str(home)},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_what_krew_installed_runs(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "kubectl-kptrace", "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: kubectl kptrace ")
    beside = {path.name for path in (installed / "kubectl-kptrace").resolve().parent.iterdir()}
    assert beside == {
        *("kptrace", "LICENSE"),
        *("kubectl_complete-kptrace", "kptrace.bash", "_kptrace", "kptrace.fish"),
    }


@pytest.mark.slow
def test_kubectl_finds_it(installed: Path, tmp_path: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here")
    listed = run(installed, tmp_path, "kubectl", "plugin", "list")
    assert str(installed / "kubectl-kptrace") in listed.stdout.splitlines()
    done = run(installed, tmp_path, "kubectl", "kptrace", "--version")
    assert (done.returncode, done.stdout) == (0, f"kptrace {__version__}\n")


# --- by krew itself -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def krew() -> Path:
    """The folder with krew's programs."""
    try:
        return krew_built.programs()
    except NotPossible as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"krew cannot be built: {error}", pytrace=False)
        pytest.skip(f"krew cannot be built: {error}")


@pytest.mark.slow
@pytest.mark.timeout(600)  # the first time it is built
def test_the_judge_of_krews_index_agrees(
    krew: Path, manifest: dict[str, Any], tmp_path: Path
) -> None:
    judge = (krew / "validate-krew-manifest", "-skip-install", "-manifest")
    subprocess.run([*judge, MANIFEST], check=True, capture_output=True)
    spoiled = copy.deepcopy(manifest)
    spoiled["spec"]["platforms"].append(spoiled["spec"]["platforms"][0])
    wrong = tmp_path / MANIFEST.name
    wrong.write_text(yaml.safe_dump(spoiled), encoding="utf-8")
    done = subprocess.run([*judge, wrong], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "overlapping" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_krew_installs_it(krew: Path, release: Path, installed: Path, tmp_path: Path) -> None:
    (archive,) = release.glob("*.tar.gz")
    environ = {**os.environ, "KREW_ROOT": str(tmp_path / "root"), "KREW_NO_UPGRADE_CHECK": "1"}
    words = (f"--manifest={release / 'kptrace.yaml'}", f"--archive={archive}")
    done = subprocess.run(
        [krew / "krew", "install", *words],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Needs Python 3.11" in done.stderr + done.stdout
    folder = tmp_path / "root" / "bin"
    shown = run(folder, tmp_path, "kubectl-kptrace", "--version")
    assert (shown.returncode, shown.stdout) == (0, f"kptrace {__version__}\n")
    # and what this suite calls krew's installation is what krew does
    ours, theirs = ((at / "kubectl-kptrace").resolve().parent for at in (installed, folder))
    assert {one.name for one in ours.iterdir()} == {one.name for one in theirs.iterdir()}

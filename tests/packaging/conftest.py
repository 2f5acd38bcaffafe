"""What is handed to users, built as a release builds it, once a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def build() -> Path:
    """The folder of the programs that build."""
    return ROOT / "plugins" / "kubectl" / "build"


@pytest.fixture(scope="session")
def image(build: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The archive of the agent's image, and its root file system."""
    folder = tmp_path_factory.mktemp("image")
    output, root = folder / "image.tar", folder / "root"
    words = ("--name", "localhost/kptrace-test:1", "--output", output, "--root", root)
    subprocess.run([sys.executable, build / "image.py", *words], check=True)
    return output, root


@pytest.fixture(scope="session")
def pyz(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """kptrace as one file, for this platform."""
    output = tmp_path_factory.mktemp("archive") / "kptrace.pyz"
    subprocess.run([sys.executable, build / "archive.py", "--output", output], check=True)
    return output

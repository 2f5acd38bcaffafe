"""What is handed to users, built as a release builds it, once a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def image_tool() -> Path:
    return ROOT / "plugins" / "kubectl" / "image"


@pytest.fixture(scope="session")
def image(image_tool: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The archive of the agent's image, and its root file system."""
    folder = tmp_path_factory.mktemp("image")
    output, root = folder / "image.tar", folder / "root"
    name = "localhost/kptrace-test:1"
    subprocess.run(
        [sys.executable, image_tool, "--name", name, "--output", output, "--root", root], check=True
    )
    return output, root

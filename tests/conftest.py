"""Ground that several tests stand on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.fixture(scope="session")
def dumps() -> Path:
    """The state of nodes as real kube-proxies left it; too large to be part of the repository.

    ``KPTRACE_DUMPS`` says where it is. Without it the tests that need it are skipped, and the
    summary names them; ``tests/cases`` holds the few real files that the rest needs.
    """
    folder = Path(os.environ.get("KPTRACE_DUMPS", TESTS.parent.parent / "shared" / "dumps"))
    if not folder.is_dir():
        said = f"no dumps of real nodes at {folder}: set KPTRACE_DUMPS"
        pytest.skip(said)
    return folder


@pytest.fixture(scope="session")
def cases() -> Path:
    """``tests/cases``: small folders that are part of the repository."""
    return TESTS / "cases"

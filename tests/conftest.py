"""Ground that several tests stand on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write what the code gives now as what is expected; then read the diff",
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """``golden(path, text)``: the text is that of the file; with --update-golden it becomes so."""
    update = bool(request.config.getoption("--update-golden"))

    def check(path: Path, text: str) -> None:
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path} is missing: run pytest --update-golden and read it"
        assert text == path.read_text(encoding="utf-8")

    return check


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

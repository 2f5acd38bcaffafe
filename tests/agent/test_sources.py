"""What travels to a node is what the agent imports, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.closure import PACKAGE, closure

from kptrace.agent.sources import FILES

LIST = PACKAGE / "agent" / "sources.py"


def test_the_files_are_the_agents_closure(request: pytest.FixtureRequest) -> None:
    needed = sorted(closure("kptrace.agent.server", "kptrace.agent.cleanup_guard"))
    if request.config.getoption("--update-golden"):
        _write(LIST, needed)
        return
    assert sorted(FILES) == needed


def test_it_holds_no_report_and_no_lab() -> None:
    packages = {name.partition("/")[0] for name in FILES if "/" in name}
    assert packages == {"agent", "bpf", "model", "packet", "protocol", "rules"}


def _write(path: Path, names: list[str]) -> None:
    head = path.read_text(encoding="utf-8").partition("FILES = (")[0]
    lines = "".join(f'    "{name}",\n' for name in names)
    path.write_text(f"{head}FILES = (\n{lines})\n", encoding="utf-8")

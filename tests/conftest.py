"""Ground that several tests stand on."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import rows

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


# --- several at a time ----------------------------------------------------------------------------

# folders that share one ground, which takes minutes to make: one process has all of their tests
WHOLE = ("tests/cluster/", "tests/uml/")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first; the many small ones fill up the end."""
    items.sort(key=lambda item: (not item.nodeid.startswith(WHOLE), not _has_labs(item)))


def _has_labs(item: pytest.Item) -> bool:
    return item.get_closest_marker("kernel") is not None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With -n: file by file, for the tests of a file share labs."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGround(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            shared = (folder for folder in WHOLE if nodeid.startswith(folder))
            return next(shared, nodeid.partition("::")[0])

    config.option.loadscopereorder = False
    return ByGround(config, log)


# --- what ran, by tier and by row of the matrix ---------------------------------------------------

TIERS = ("unit", "kernel", "uml", "cluster")
OUTCOMES = ("passed", "failed", "error", "skipped")
TOLD = "told"  # a property of a test: words for the summary
ASKED = pytest.StashKey[dict[str, rows.Row]]()


def pytest_collection_finish(session: pytest.Session) -> None:
    found = ((item.nodeid, rows.row_of(item)) for item in session.items)
    session.config.stash.setdefault(ASKED, {}).update({test: row for test, row in found if row})


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With -n the tests are collected by workers alone; each hands over what it was asked."""
    if hasattr(session.config, "workeroutput"):
        asked = session.config.stash[ASKED]
        session.config.workeroutput["asked"] = {test: tuple(row) for test, row in asked.items()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    asked = getattr(node, "workeroutput", {}).get("asked", {})
    known = node.config.stash.setdefault(ASKED, {})
    known.update({test: rows.Row(*row) for test, row in asked.items()})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A tier that did not run must not look like one that passed."""
    ran: Counter[tuple[str, str]] = Counter()
    wanting: Counter[tuple[str, str]] = Counter()
    tests: dict[str, set[str]] = {}
    told: list[str] = []
    for outcome in OUTCOMES:
        for report in terminalreporter.getreports(outcome):
            keywords = getattr(report, "keywords", ())
            tier = next((tier for tier in TIERS[1:] if tier in keywords), "unit")
            ran[tier, outcome] += 1
            tests.setdefault(outcome, set()).add(report.nodeid)
            if outcome == "skipped":
                wanting[tier, _why(report)] += 1
            told += [text for name, text in getattr(report, "user_properties", ()) if name == TOLD]
    terminalreporter.section("tiers")
    for tier in TIERS:
        counts = [f"{ran[tier, outcome]} {outcome}" for outcome in OUTCOMES if ran[tier, outcome]]
        terminalreporter.line(f"{tier:<7} {', '.join(counts) or 'none ran'}")
        for (of, why), count in wanting.items():
            if of == tier:
                terminalreporter.line(f"        {count} skipped: {why}")
    for line in dict.fromkeys(told):
        terminalreporter.line(line)
    asked = terminalreporter.config.stash.get(ASKED, {}) if tests else {}
    passed = tests.pop("passed", set()).difference(*tests.values())
    table = list(rows.tables(asked, passed))
    if table:
        terminalreporter.section("passed of all, by proxy and network")
        for line in table:
            terminalreporter.line(line)


def _why(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")

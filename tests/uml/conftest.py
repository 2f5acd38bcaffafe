"""The tests below ``guest`` run inside User Mode Linux; on the host each is an item as usual.

On the host: the chosen tests are dealt out to guests that run side by side (boot.py), all tests of
one lab to the same; pytest runs there with the same ids, and each report that it writes is given
out here as the report of the host's item, as it comes. So ``pytest tests/uml -k sh`` does what it
says, and a test fails where it fails.

A result is never lost: each report is written through to the host's disk before the next test
starts; a test without reports is a failure that shows the console; a guest that ended without its
exit marker, or with another code than its reports imply, fails the last test.

Inside the guest (``KPTRACE_UML`` is set) this file only writes the reports.

Nothing needs root on the host. Without User Mode Linux (Debian: user-mode-linux, kmod) the tests
are skipped, and in CI they fail.
"""

from __future__ import annotations

import json
import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from uml.boot import HERE, Run, missing

OUT = os.environ.get("KPTRACE_UML", "")  # in the guest: where the reports go
CI = os.environ.get("CI") == "true"
BOOTS = 2  # side by side, one processor each
# what a test costs about, to deal them out evenly
SECONDS = {"test_uml_fault_traces": 4.0, "test_uml_services": 0.3, "test_uml_kernel": 0.1}
OTHERWISE = 2.0
RUNS = pytest.StashKey[dict[str, Run]]()


def _guests(item: pytest.Item) -> bool:
    return (HERE / "guest") in item.path.parents


# --- in the guest -----------------------------------------------------------------------------


if OUT:

    @pytest.hookimpl
    def pytest_runtest_logreport(report: pytest.TestReport) -> None:
        data = CONFIG.hook.pytest_report_to_serializable(config=CONFIG, report=report)
        with open(Path(OUT, "reports.jsonl"), "a", encoding="utf-8") as file:
            file.write(json.dumps(data, default=str) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def pytest_configure(config: pytest.Config) -> None:
        global CONFIG
        CONFIG = config


# --- on the host ------------------------------------------------------------------------------


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    why = "" if OUT else missing()
    for item in items:
        if HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.uml)
        if not OUT and _guests(item):
            # who waits for the guest has limits of its own
            item.add_marker(pytest.mark.timeout(0))
        if why and not CI:
            item.add_marker(pytest.mark.skip(reason=why))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if OUT or not _guests(item) or item.get_closest_marker("skip"):
        return None
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _reports(item):
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _reports(item: pytest.Item) -> Iterator[pytest.TestReport]:
    if why := missing():
        yield _failure(item, why)
        return
    run = _runs(item.session)[item.nodeid]
    lost = run.lost
    told = run.wait_for(item.nodeid)
    for data in told:
        yield item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
    if not told or told[-1]["when"] != "teardown":
        why = f"the guest was lost at {lost}" if lost else f"no report came\n{run.words()}"
        yield _failure(item, why)
    elif item.nodeid == run.tests[-1] and run.exit_code() != int(run.failed):
        why = f"the guest's exit code is {run.exit_code()}, its reports say {int(run.failed)}"
        yield _failure(item, f"{why}\n{run.words()}")


def _runs(session: pytest.Session) -> dict[str, Run]:
    """The guest of each test; they are booted when the first is asked for."""
    if RUNS not in session.stash:
        # so that we leave in order when we are told to go
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        asked = [one for one in session.items if _guests(one)]
        found = session.stash[RUNS] = {}
        for share in _shares([one for one in asked if not one.get_closest_marker("skip")]):
            found |= dict.fromkeys(share, Run(share))
    return session.stash[RUNS]


def _shares(items: list[pytest.Item]) -> list[list[str]]:
    """What belongs together stays together and in order; the costliest is dealt out first."""
    groups: dict[Any, list[pytest.Item]] = defaultdict(list)
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        groups[params.get("bench", item.path)].append(item)
    costs = {key: sum(map(_cost, group)) for key, group in groups.items()}
    shares: list[list[Any]] = [[] for _ in range(min(BOOTS, len(groups)))]
    for key in sorted(groups, key=lambda key: -costs[key]):
        min(shares, key=lambda share: sum(costs[one] for one in share)).append(key)
    return [
        [item.nodeid for key, group in groups.items() if key in share for item in group]
        for share in shares
    ]


def _cost(item: pytest.Item) -> float:
    return SECONDS.get(item.path.stem, OTHERWISE)


def _failure(item: pytest.Item, words: str) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords={"uml": 1},
        outcome="failed",
        longrepr=words,
        when="call",
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    for run in set(session.stash.get(RUNS, {}).values()):
        run.close()

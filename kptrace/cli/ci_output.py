"""Results handed to CI systems: JUnit XML, and GitHub's annotations with a page for the job."""

from __future__ import annotations

import os
from pathlib import Path

from kptrace.cli.console import print_error
from kptrace.render.junit import junit as junit_xml
from kptrace.verify.results import Verification

SUMMARY = "GITHUB_STEP_SUMMARY"
MOST_BYTES = 1 << 20  # that GitHub takes from one step


def junit(verification: Verification) -> str:
    return junit_xml(verification.results, verification.about)


def github(verification: Verification, log: str) -> str:
    """``log`` and the annotations, for stdout. The job's page is written on the way."""
    from kptrace.render.github import guarded, notes

    _summarise(verification)
    return guarded(log, f"kptrace-{os.urandom(16).hex()}") + notes(verification.results)


def _summarise(verification: Verification) -> None:
    """Behind what is there: other commands of the step write to the same file."""
    if not os.environ.get(SUMMARY):
        return
    from kptrace.render.markdown import markdown

    file = Path(os.environ[SUMMARY])
    try:
        used = file.stat().st_size if file.exists() else 0
        with file.open("a", encoding="utf-8", errors="replace") as page:
            page.write(markdown(verification, MOST_BYTES - used))
    except OSError as error:
        print_error(f"the job's page {file} cannot be written: {error.strerror or error}", "")

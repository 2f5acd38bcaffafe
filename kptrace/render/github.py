"""Results as GitHub Actions shows them: annotations, and a log that holds no commands. Pure.

    notes(results) -> lines for stdout, one for each result that is not as expected
    guarded(text, token) -> the text between the lines that stop the runner from reading commands

The runner takes any line of a step's output that begins with ``::`` for a command; names and rule
comments are data that anybody in the cluster can write. Escapes: docs.github.com, workflow commands
for GitHub Actions; the runner's ActionCommand.cs decodes %25 %0D %0A, in properties %3A %2C too.
It shows ten annotations of a kind from each step: a last one tells how many are not shown.
"""

from __future__ import annotations

from collections.abc import Sequence

from kptrace.render.sanitize import clean
from kptrace.render.verify_result import answer, subject, why
from kptrace.verify.results import Result, Status

MOST = 10

LEVELS: dict[Status, str] = {"failed": "error", "error": "error", "inconclusive": "warning"}


def notes(results: Sequence[Result]) -> str:
    lines: list[str] = []
    for level in ("error", "warning"):
        failed = [result for result in results if LEVELS.get(result.status) == level]
        shown = failed if len(failed) <= MOST else failed[: MOST - 1]
        lines += [_annotation(level, _title(result), why(result)) for result in shown]
        if len(shown) < len(failed):
            rest = f"{len(failed) - len(shown)} more are not as expected"
            lines.append(_annotation(level, "kptrace", f"{rest}: see the log of this step"))
    return "".join(f"{line}\n" for line in lines)


def guarded(text: str, token: str) -> str:
    """token: random, so that no text can hold it."""
    return f"::stop-commands::{token}\n{text.rstrip()}\n::{token}::\n"


def _title(result: Result) -> str:
    return f"{result.expectation.name or subject(result)}: {answer(result)}"


def _annotation(level: str, title: str, message: str) -> str:
    return f"::{level} title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    return clean(text).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")

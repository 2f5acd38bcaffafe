"""A Verification as Markdown, for a CI job's page: a table, and each failure in whole. Pure.

Names, rules and comments are data of others: outside of code every character that Markdown or HTML
could take for a sign is escaped, and a block of code is fenced by more backticks than stand in it.
"""

from __future__ import annotations

import re

from kptrace.render.phrases import target_words
from kptrace.render.sanitize import clean
from kptrace.render.text import text
from kptrace.render.verify_result import address, answer, cause, start, tally, via, why
from kptrace.verify.results import Result, Verification

SIGNS = re.compile(r"[\\`*_{}\[\]<>#|~&@$:]")
MARKS = {"passed": "✅", "failed": "❌", "error": "❌", "inconclusive": "❔", "untried": "➖"}
HEAD = ("", "target", "from", "outcome", "why")


def markdown(verification: Verification, most: int = 1 << 20) -> str:
    """most: bytes that there is room for; what does not fit is left out, and that is said."""
    lines = [f"### kptrace: {tally(verification)}", ""]
    lines += [_row(HEAD), _row(["---"] * len(HEAD))]
    lines += [_row(_cells(result)) for result in verification.results]
    text = ", ".join(
        f"{_plain(name)} {_plain(phrase)}" for name, phrase in verification.about.items()
    )
    lines += ["", text, ""] if text else [""]
    page = "\n".join(lines)
    if _size(page) > most:
        return f"### kptrace: {tally(verification)}\n\nThe table is in the job's log.\n"
    for result in verification.having("failed", "error", "inconclusive"):
        part = _whole(result)
        if _size(page) + _size(part) + 100 > most:
            return f"{page}\nMore failures are in the job's log; there is no room for them here.\n"
        page += part
    return page


def _cells(result: Result) -> list[str]:
    asked = result.expectation
    name = f"{asked.name}: " if asked.name else ""
    finding = cause(result)
    reason = "" if result.status == "passed" else why(result)
    return [
        MARKS[result.status],
        _plain(f"{name}{target_words(asked.request.target)}{via(asked)} {address(result)}"),
        _plain(start(result)),
        _plain(answer(result)),
        f"{_plain(reason)}{f' (`{finding.cause}`)' if finding else ''}",
    ]


def _whole(result: Result) -> str:
    if result.trace is None:
        assert result.error is not None
        report = result.error.text
    else:
        report = text(result.trace)
    report = "\n".join(clean(line) for line in report.rstrip().split("\n"))
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", report)), 3)
    title = _plain(f"{target_words(result.expectation.request.target)}: {answer(result)}")
    return (
        f"<details><summary>{title}</summary>\n\n{fence}text\n{report}\n{fence}\n\n</details>\n\n"
    )


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """As a numeric reference it is a letter to Markdown and to HTML alike."""
    return SIGNS.sub(lambda match: f"&#{ord(match.group())};", clean(text).strip())


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))

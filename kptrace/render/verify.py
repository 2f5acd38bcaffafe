"""A Verification as text for a person: each expectation on a line, then what failed and why. Pure.

    verification(made, width=80, colour=False, wide=False) -> str

Whatever is not as expected comes last, because there a reader of a CI log begins. The wide form has
each failed trace's whole report in it.
"""

from __future__ import annotations

from kptrace.render.finding import LABEL, commands, paragraphs
from kptrace.render.layout import TextLayout, glue, span, width_of
from kptrace.render.phrases import outcome_style, target_words
from kptrace.render.sanitize import clean, pad, shorten
from kptrace.render.text import text
from kptrace.render.verify_result import (
    STATUS_STYLES,
    answer,
    cause,
    expected,
    remedies,
    start,
    tally,
    via,
    why,
)
from kptrace.verify.results import DELIVERED, Result, Verification


def verification(
    verification: Verification, width: int = 80, colour: bool = False, wide: bool = False
) -> str:
    page = TextLayout(width, colour)
    all_good = len(verification.having("passed")) == len(verification.results)
    done = glue(tally(verification), "good" if all_good else "bad")
    page.row([glue(verification.file, "name")], done, [], hang=2)
    page.blank()
    column = max((len(result.status) for result in verification.results), default=0) + 2
    for result in verification.results:
        _row(page, result, column)
    rest = verification.having("failed", "error", "inconclusive")
    whole = [text(r.trace, width, colour, wide) for r in rest if wide and r.trace is not None]
    if rest:
        page.blank()
        page.line(span("Not as expected:"))
    for result in rest:
        page.blank()
        _told(page, result)
    if verification.about:
        page.blank()
        listed = [
            f"{name}: {text}" for name, text in verification.about.items() if name != "kptrace"
        ]
        page.line(
            span(". ".join([f"kptrace {verification.about.get('kptrace', '')}", *listed]), "quiet")
        )
    return "\n".join([*whole, page.text()])


def _row(page: TextLayout, result: Result, column: int) -> None:
    asked = result.expectation
    name = [glue(asked.name, "name"), span("  ")] if asked.name else []
    what = glue(target_words(asked.request.target), "" if asked.name else "name")
    spans = [*name, what, span("  "), span(f"from {start(result)}{via(asked)}")]
    text = shorten(clean(answer(result)), page.width - column)
    style = "good" if result.status == "passed" else STATUS_STYLES[result.status]
    label = [span(pad(result.status, column), STATUS_STYLES[result.status])]
    room = page.width - column - width_of([glue(text)]) - 2
    if width_of([*name, what]) <= room:
        page.row(spans, glue(text, style), label, hang=column)
    else:
        page.line(glue(text, style), label=label)
        page.line(*spans, indent=column)


def _told(page: TextLayout, result: Result) -> None:
    asked = result.expectation
    where = f"line {asked.line}" if asked.line else ""
    named = asked.name or f"{target_words(asked.request.target)} from {start(result)}{via(asked)}"
    style = outcome_style(result.trace.outcome) if result.trace else "bad"
    page.line(
        span(named, "name"),
        span(f"  {answer(result)}", style),
        label=[span(pad(where, LABEL))],
        indent=2,
    )
    if asked.expect != DELIVERED:
        paragraphs(page, "Expected", [expected(asked)])
    paragraphs(page, "Problem", [result.error.message if result.error else _summary(result)])
    finding = cause(result)
    if finding is not None:
        paragraphs(page, "Cause", [finding.cause])
    commands(page, "Fix", remedies(result))
    if result.saved:
        commands(page, "Run", [f"kptrace replay {result.saved}"])


def _summary(result: Result) -> str:
    finding = cause(result)
    return finding.summary if finding is not None else why(result)

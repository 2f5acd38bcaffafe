"""The catalogue of causes as text: one line each, or one with all that is known of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from kptrace.diagnose.catalogue.causes import Cause
from kptrace.render.layout import Span, TextLayout, span
from kptrace.render.sanitize import pad

PARTS = 10


def cause_list(causes: Iterable[Cause], width: int = 80, colour: bool = False) -> str:
    known = tuple(causes)
    page = TextLayout(width, colour)
    room = max((len(cause.id) for cause in known), default=0) + 2
    for cause in known:
        page.line(span(cause.title), label=[span(pad(cause.id, room), "name")])
    return page.text()


def cause_page(cause: Cause, width: int = 80, colour: bool = False) -> str:
    page = TextLayout(width, colour)
    page.line(span(cause.title), label=[span(f"{cause.id}  ", "name")])
    page.blank()
    for word, text in (("Meaning", cause.meaning), ("Impact", cause.impact), ("Fix", cause.fix)):
        page.line(span(f"{text}."), label=_label(word))
    return page.text()


def _label(word: str) -> list[Span]:
    return [span(pad(f"  {word}", PARTS + 1), "name")]

"""The catalogue of causes as text: one line each, or one with all that is known of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from kptrace.judge.causes import Cause
from kptrace.render.clean import pad
from kptrace.render.page import Page, Span, say

PARTS = 10


def cause_list(causes: Iterable[Cause], width: int = 80, colour: bool = False) -> str:
    known = tuple(causes)
    page = Page(width, colour)
    room = max((len(cause.id) for cause in known), default=0) + 2
    for cause in known:
        page.line(say(cause.title), label=[say(pad(cause.id, room), "name")])
    return page.text()


def cause_page(cause: Cause, width: int = 80, colour: bool = False) -> str:
    page = Page(width, colour)
    page.line(say(cause.title), label=[say(f"{cause.id}  ", "name")])
    page.blank()
    for word, words in (("Meaning", cause.meaning), ("Effect", cause.effect), ("Mend", cause.mend)):
        page.line(say(f"{words}."), label=_label(word))
    return page.text()


def _label(word: str) -> list[Span]:
    return [say(pad(f"  {word}", PARTS + 1), "name")]

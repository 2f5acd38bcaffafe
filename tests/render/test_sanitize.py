"""Hostile text loses its power and stays readable."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kptrace.render.sanitize import cells, clean, shorten

HOSTILE = {
    "plain -j DROP": "plain -j DROP",
    "\x1b[31mred": r"\x1b[31mred",
    "a\nb\tc\rd": r"a\nb\tc\rd",
    "\x9b2J": r"\x9b2J",
    "\x7f\x00\x08": r"\x7f\x00\x08",
    "\u202eexe.png": r"\u202eexe.png",
    "a\u200bb\ufeff": r"a\u200bb\ufeff",
    "e\u0301": r"e\u0301",
    "\ud800": r"\ud800",
    "\U000e0041": r"\U000e0041",
    "line\u2028sep": r"line\u2028sep",
    "Zürich 東京 …": "Zürich 東京 …",
    "\xa0": r"\xa0",
}


@pytest.mark.parametrize("text", HOSTILE)
def test_clean(text: str) -> None:
    assert clean(text) == HOSTILE[text]


@given(st.text(st.characters(codec=None), max_size=40))
def test_nothing_but_printable_text_is_left(text: str) -> None:
    shown = clean(text)
    assert shown.isprintable()
    assert not any(unicodedata.combining(character) for character in shown)
    assert clean(shown) == shown


def test_cells() -> None:
    assert cells("node-a") == 6
    assert cells("東京") == 4


@pytest.mark.parametrize(
    ("text", "room", "shown"),
    [
        ("client", 6, "client"),
        ("abcdefghij", 5, "ab…ij"),
        ("abcdefghij", 6, "abc…ij"),
        ("abcdefghij", 1, "…"),
        ("abcdefghij", 0, ""),
        ("東京東京東京", 5, "東…京"),
    ],
)
def test_shorten_keeps_both_ends(text: str, room: int, shown: str) -> None:
    assert shorten(text, room) == shown


@given(st.text(max_size=40).map(clean), st.integers(0, 60))
def test_shorten_fits(text: str, room: int) -> None:
    assert cells(shorten(text, room)) <= room

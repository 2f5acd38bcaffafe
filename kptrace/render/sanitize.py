r"""Text from rules, names, replies and bundles -> text that is safe on a terminal and in XML. Pure.

Such text is data that anybody in the cluster can write. A control character moves the cursor, ESC
and the C1 characters start commands of the terminal, a bidirectional override shows ``gnp.exe`` as
``exe.png``, a combining mark piles up on its neighbour. All of these are shown as ``\x1b`` or
``\u202e`` instead: what Python does not call printable, and combining marks.
"""

from __future__ import annotations

import unicodedata


def clean(text: str) -> str:
    """Printable text; the same text when there is nothing to escape, so it may be applied twice."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _plain(character) else _escape(character) for character in text)


def cells(text: str) -> int:
    """Columns that clean text takes on a terminal: East Asian wide characters take two."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def pad(text: str, columns: int) -> str:
    """Filled up with spaces on the right."""
    return text + " " * (columns - cells(text))


def shorten(text: str, room: int) -> str:
    """At most ``room`` columns, cut in the middle: both ends of a Kubernetes name tell something.

    Only for what stands in full elsewhere on the same page.
    """
    if cells(text) <= room:
        return text
    if room <= 1:
        return "…"[:room]
    return _cut(text, room // 2) + "…" + _cut(text[::-1], (room - 1) // 2)[::-1]


def _cut(text: str, room: int) -> str:
    kept = ""
    for character in text:
        room -= cells(character)
        if room < 0:
            break
        kept += character
    return kept


def _plain(character: str) -> bool:
    return character.isprintable() and not unicodedata.category(character).startswith("M")


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()

"""Spans of text -> lines that fit the width, with or without colour. Pure.

Everything printed becomes a ``Span`` by ``span`` or ``glue``, and these clean it (sanitize.py): so
no text of others reaches a terminal as it came. Widths are counted in terminal cells.

Colour only repeats what words already say. The styles use the terminal's own palette, bold where a
hue alone is hard to read on white (green, magenta) or on black (red), and neither yellow (lost on
white) nor blue (lost on black).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from kptrace.render.sanitize import cells, clean

STYLES = {
    "": "",
    "good": "1;32",
    "bad": "1;31",
    "unsure": "1;35",
    "name": "1",
    "change": "36",
    "quiet": "2",
}
RESET = "\x1b[0m"

# Cleaned text holds no such space, so it can stand for one at which no line may break.
GLUE = "\u00a0"
# Where a word that is longer than a line is best broken: behind one of these.
JOINTS = "-./,:=_"

MIN_WIDTH = 40
MIN_WORDS = 12


class Span(NamedTuple):
    text: str
    style: str = ""

    @property
    def width(self) -> int:
        return cells(self.text)


def span(text: str, style: str = "") -> Span:
    return Span(clean(text), style)


def glue(text: str, style: str = "") -> Span:
    """As ``span``, but kept on one line if it fits on one."""
    return Span(clean(text).replace(" ", GLUE), style)


def width_of(spans: Iterable[Span]) -> int:
    return sum(span.width for span in spans)


class TextLayout:
    """Lines are added from top to bottom; ``text()`` is the whole."""

    def __init__(self, width: int, colour: bool) -> None:
        self.width = max(width, MIN_WIDTH)
        self._colour = colour
        self._lines: list[str] = []

    def text(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)

    def blank(self) -> None:
        """One empty line; never two, and none at the top."""
        if self._lines and self._lines[-1]:
            self._lines.append("")

    def line(
        self, *spans: Span, label: Sequence[Span] = (), indent: int = 0, hang: int | None = None
    ) -> None:
        """A paragraph: ``label`` as it is, then words; what does not fit goes on below.

        hang: where the next lines begin (default: below the first word)
        """
        start = [Span(" " * indent), *label]
        lines = _Lines(start, width_of(start) if hang is None else hang, self.width, self.width)
        for item in lines.filled(spans):
            self._add(item)

    def row(self, spans: Sequence[Span], right: Span, label: Sequence[Span], hang: int) -> None:
        """A paragraph whose first line ends with ``right``, flush with the right margin."""
        room = self.width - right.width - (1 if right.text else 0)
        first, *rest = _Lines(label, hang, room, self.width).filled(spans)
        gap = self.width - right.width - width_of(first)
        if gap < 0:  # the label alone leaves no room
            self._add(first)
            first, gap = [], self.width - right.width
        self._add([*first, Span(" " * gap), right])
        for item in rest:
            self._add(item)

    def command(self, text: str, label: Sequence[Span] = (), indent: int = 0) -> None:
        """A shell command; where it must break, so that it can still be copied and run."""
        room = self.width - 2
        start = [Span(" " * indent), *label]
        hang = width_of(start) + 4
        spans = [span(text, "name")]
        if any(hang + width_of(word) > room for _, word in _words(spans)):
            self.line(*spans, label=label, indent=indent, hang=hang)  # cut words cannot be copied
            return
        *broken, last = _Lines(start, hang, room, room).filled(spans)
        for line_spans in broken:
            self._add([*line_spans, Span(" \\")])
        self._add(last)

    def uncut(self, *spans: Span, indent: int = 0) -> None:
        """One line that is to be copied, such as the user's own path, however wide it is."""
        self._add([Span(" " * indent), *spans])

    def _add(self, spans: Sequence[Span]) -> None:
        text = "".join(
            self._shown(Span("".join(span.text for span in same), style))
            for style, same in groupby(spans, key=lambda span: span.style)
        )
        self._lines.append(text.replace(GLUE, " ").rstrip())

    def _shown(self, span: Span) -> str:
        code = STYLES[span.style]
        if not (self._colour and code and span.text.strip()):
            return span.text
        return f"\x1b[{code}m{span.text}{RESET}"


class _Lines:
    """Words put on lines: the first ``first`` columns wide and begun with ``start``, all others
    ``width`` wide and ``hang`` in.
    """

    def __init__(self, start: Sequence[Span], hang: int, first: int, width: int) -> None:
        # however long the label, there is room for words below it
        self._hang, self._width, self._limit = min(hang, width - MIN_WORDS), width, first
        self._line = list(start)
        self._taken = width_of(start)
        self._bare = True
        self._done: list[list[Span]] = []

    def filled(self, spans: Iterable[Span]) -> list[list[Span]]:
        for gap, word in _words(spans):
            if self._fits(gap.width + width_of(word)):
                if not self._bare:
                    self._append(gap)
            else:
                self._break()
            self._put(word)
        return [*self._done, self._line]

    @property
    def _room(self) -> int:
        return self._limit - self._taken

    def _append(self, span: Span) -> None:
        self._line.append(span)
        self._taken += span.width

    def _fits(self, width: int) -> bool:
        """Also what fits no line at all: it is best cut here, unless hardly anything is left."""
        longer_than_any = width > self._width - self._hang
        return self._bare or width <= self._room or (longer_than_any and self._room > 20)

    def _put(self, word: Sequence[Span]) -> None:
        """A word that is longer than a line is cut, behind a joint where there is one."""
        for text, style in word:
            rest = text
            while cells(rest) > self._room:
                piece = _head(rest, self._room) if self._room > 1 else ""
                self._append(Span(piece, style))
                self._break()
                rest = rest[len(piece) :]
            self._append(Span(rest, style))
            self._bare = False

    def _break(self) -> None:
        self._done.append(self._line)
        self._line, self._taken = [Span(" " * self._hang)], self._hang
        self._limit, self._bare = self._width, True


def _words(spans: Iterable[Span]) -> Iterator[tuple[Span, list[Span]]]:
    """Each word, which may have parts of several styles, and the space before it."""
    gap, word = Span(""), list[Span]()
    for text, style in spans:
        for part in re.findall(r" +|[^ ]+", text):
            if part[0] != " ":
                word.append(Span(part, style))
                continue
            if word:
                yield gap, word
                gap, word = Span(""), []
            gap = Span(gap.text + part, style)
    if word:
        yield gap, word


def _head(text: str, room: int) -> str:
    """The longest beginning that fits, up to a joint if that leaves at least half of it."""
    cut = min(len(text), room)
    while cut > 1 and cells(text[:cut]) > room:
        cut -= 1
    joint = max(text.rfind(item, 0, cut) for item in JOINTS) + 1
    return text[: joint if joint * 2 > cut else cut]

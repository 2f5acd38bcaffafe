"""Split ``nft list ruleset`` text into tokens (nft's scanner.l)."""

from __future__ import annotations

import re
from typing import NamedTuple

_TOKEN = re.compile(
    r"(?P<blank>[^\S\n]+)|(?P<newline>\n|;)|(?P<comment>#[^\n]*)"
    r'|(?P<string>"(?:[^"\\\n]|\\.)*")|(?P<punctuation>[{}(),])|(?P<word>[^\s{}(),;"#][^\s{}(),;"]*)'
)
_HANDLE = re.compile(r"# handle (\d+)")
END = "\n"


def integer(text: str) -> int:
    """A decimal number, also with zeros before it, or a hexadecimal one. Raises ValueError."""
    return int(text, 16 if text.startswith("0x") else 10)


class TextSyntaxError(Exception):
    """A text is not what nft prints. ``line``: counted from 1."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


class Token(NamedTuple):
    """One token.

    text: the word, the content of a string, a punctuation mark, or END for the end of a line
    quoted: whether it is a string
    line: in the text, from 1
    start, end: its position in the text
    """

    text: str
    quoted: bool
    line: int
    start: int
    end: int


class Tokens:
    """The tokens of a text, read from left to right.

    handle: the last one that a comment gave (``nft -a``)
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[Token] = []
        self._handles: dict[int, int] = {}
        line, place = 1, 0
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None:
                raise TextSyntaxError(line, f"{text[place : place + 20]!r} is not expected here")
            place = match.end()
            self._take(match, line)
            line += match[0].count("\n")
        self._tokens.append(Token(END, False, line, len(text), len(text)))
        self._place = 0

    def _take(self, match: re.Match[str], line: int) -> None:
        kind = match.lastgroup
        if kind == "comment":
            if handle := _HANDLE.match(match[0]):
                self._handles[line] = int(handle[1])
        elif kind == "string":
            text = re.sub(r"\\(.)", r"\1", match[0][1:-1])
            self._tokens.append(Token(text, True, line, *match.span()))
        elif kind == "newline":
            self._tokens.append(Token(END, False, line, *match.span()))
        elif kind != "blank":
            self._tokens.append(Token(match[0], False, line, *match.span()))

    # --- looking ahead ------------------------------------------------------------------------

    @property
    def token(self) -> Token:
        """The next token; the last one is END."""
        return self._tokens[min(self._place, len(self._tokens) - 1)]

    @property
    def word(self) -> str:
        """The text of the next token; empty for a string, which is no keyword."""
        return "" if self.token.quoted else self.token.text

    @property
    def following(self) -> str:
        """The text of the token after the next one."""
        place = min(self._place + 1, len(self._tokens) - 1)
        return "" if self._tokens[place].quoted else self._tokens[place].text

    @property
    def previous(self) -> Token:
        """The token that was read last."""
        return self._tokens[max(self._place - 1, 0)]

    @property
    def at_end(self) -> bool:
        return self._place >= len(self._tokens) - 1

    @property
    def at_line_end(self) -> bool:
        return self.word in (END, "}")

    def handle_of(self, line: int) -> int | None:
        """The handle that a comment in this line gives."""
        return self._handles.get(line)

    # --- reading ------------------------------------------------------------------------------

    def next(self) -> Token:
        """Read the next token. Raises TextSyntaxError at the end of the text."""
        token = self.token
        if self.at_end:
            raise TextSyntaxError(token.line, "the text is cut off")
        self._place += 1
        return token

    def accept(self, *alternatives: str) -> bool:
        """Read the next token if it is one of these words."""
        if self.word in alternatives and not self.at_end:
            self._place += 1
            return True
        return False

    def expect(self, word: str) -> None:
        """Read this word. Raises TextSyntaxError for another token."""
        if not self.accept(word):
            shown = "the end of the line" if self.word == END else repr(self.token.text)
            raise TextSyntaxError(self.token.line, f"{shown} instead of {word!r}")

    def skip_lines(self) -> None:
        """Read ends of lines."""
        while self.word == END and not self.at_end:
            self._place += 1

    def number(self) -> int:
        """Read a number. Raises TextSyntaxError for another token."""
        token = self.next()
        try:
            return integer(token.text)
        except ValueError:
            raise TextSyntaxError(token.line, f"{token.text!r} is no number") from None

    @property
    def place(self) -> int:
        """The index of the next token, for ``go_back``."""
        return self._place

    def go_back(self, place: int) -> None:
        """Continue with an earlier token."""
        self._place = place

    def text_until_line_end(self) -> str:
        """Read the rest of a rule, and return it as it stands."""
        start, end, depth = self.token.start, self.token.start, 0
        while not (depth == 0 and self.at_line_end) and not self.at_end:
            depth += {"{": 1, "}": -1}.get(self.word, 0)
            end = self.next().end
        return self._text[start:end]

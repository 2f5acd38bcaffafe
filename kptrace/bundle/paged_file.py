"""EDGE: a big text file in pages of whole lines, each read when it is asked for.

A text of 20 MB costs more to be laid out in memory (5,000 pages of it are mapped twice, as bytes
and as text) than to be looked through. Read in parts, the same small memory is used again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from kptrace.model.errors import ParseError

PAGE = 1 << 16
_KEPT = 32  # 2 MB: the rules of KUBE-SERVICES, which are gone through several times


class FilePages:
    """``name``: what to call the file in errors."""

    def __init__(self, path: Path, name: str) -> None:
        self._name = name
        self._starts = [0]  # of the pages up to the first that was not yet read
        self._kept: dict[int, str] = {}
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ParseError(name, 0, f"cannot be read: {error.strerror}") from None

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def __iter__(self) -> Iterator[str]:
        page = 0
        while text := self[page]:
            yield text
            page += 1

    def __getitem__(self, page: int, /) -> str:
        """One of those that an iterator has come to; empty behind the last one."""
        if page not in self._kept:
            if len(self._kept) >= _KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[page] = self._text(page)
        return self._kept[page]

    def _text(self, page: int) -> str:
        start = self._starts[page]
        data = self._read(start, PAGE)
        if page + 1 == len(self._starts):
            self._starts.append(start + len(data))
        try:
            text = str(data, "utf-8")
        except UnicodeDecodeError as error:
            raise ParseError(self._name, 0, f"not UTF-8 at byte {start + error.start}") from None
        return text if not text or text.endswith("\n") else f"{text}\n"

    def _read(self, start: int, size: int) -> memoryview:
        """About so many bytes: up to the end of a line, or of the file."""
        try:
            data = os.pread(self._file, size, start)
        except OSError as error:
            raise ParseError(self._name, 0, f"cannot be read: {error.strerror}") from None
        end = data.rfind(b"\n") + 1 if len(data) == size else len(data)
        return memoryview(data)[:end] if end or not data else self._read(start, 2 * size)

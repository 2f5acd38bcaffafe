"""An iptables-save text, table by table: where its chains and their rules stand.

In: the text in pages of whole lines. Out: a Section for each table, which gives a chain's
declaration and the stretches of text with its rules. All of it is proved to be what iptables-save
writes: whoever asks for one chain must not be told less than the file holds.

A regular expression goes over each page once and gives the names of the chains to which the rules
belong, run by run. As iptables-save keeps a chain's rules together, each name comes once, and the
page in which it came is all that need be known to find it. Where a text is not like that (written
by hand, or broken) the places are looked up one by one, which also says in which line a fault is.
Of more declarations than a hand writes only the number is proved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import repeat
from typing import Protocol

from kptrace.errors import BadDump

BUILT_IN = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
MANY = 2000
FEW = 50

DECLARED = re.compile(r":\S+ (\S+)(?: \[(\d+):(\d+)\])?")
_DECLARATIONS = re.compile(r"(?::.*+\n|(?!-A |\[|COMMIT).*+\n)*+")
_RUNS = re.compile(r"-A (\S++)(?: .*+)?+\n(?:-A \1(?: .*+)?+\n)*+|.*\n")
_COUNTED_RUNS = re.compile(
    r"(?:\[\d++:\d++\] )?+-A (\S++)(?: .*+)?+\n"
    r"(?:(?:\[\d++:\d++\] )?+-A \1(?: .*+)?+\n)*+|.*\n"
)
_COMMIT = re.compile(r"^COMMIT[^\S\n]*\n", re.MULTILINE)


class Pages(Protocol):
    """A text in parts of whole lines: a tuple of one, or those of a big file (kptrace/pages.py)."""

    def __iter__(self) -> Iterator[str]: ...

    def __getitem__(self, page: int, /) -> str: ...


class Bad(Protocol):
    """Makes the error for a page, a place in it, and so many lines further on."""

    def __call__(self, page: int, place: int, text: str, lines: int = 0) -> BadDump: ...


PAGE = 1 << 17


def paged(text: str) -> tuple[str, ...]:
    """Each page ends with a whole line."""
    pages, start = list[str](), 0
    while start < len(text):
        end = text.find("\n", start + PAGE - 1) + 1 or len(text)
        pages.append(text[start:end])
        start = end
    if pages and not pages[-1].endswith("\n"):
        pages[-1] += "\n"
    return tuple(pages)


Span = tuple[int, int, int]  # a page, and where whole lines begin and end in it


class Section:
    """One table, as ``sections`` comes upon it."""

    def __init__(self, name: str, pages: Pages, start: tuple[int, int], bad: Bad) -> None:
        self.name = name
        self._pages, self._start, self._bad = pages, start, bad
        self._head: list[str] = []
        self._parts: list[Span] = []  # what lies between the declarations and COMMIT
        self._firsts: list[str] = []  # the chain with which each part begins
        self._part_of: dict[str, int] = {}  # in which a chain's rules begin
        self._last = ""
        self._count = 0  # of runs
        self._runs = _RUNS
        self._scattered: Mapping[str, Sequence[Span]] | None = None
        self._found: dict[str, str | None] = {}  # the declarations that were asked for
        self._marks: dict[int, int] = {}  # how far a part was read the last time

    # --- reading it -----------------------------------------------------------------------------

    def read(self, number: int, page: str, place: int) -> int:
        """Takes what belongs to the table from a page, and returns where that ends."""
        if not self._parts:
            declared = _DECLARATIONS.match(page, place)
            assert declared is not None
            self._head.append(declared[0])
            place = declared.end()
            self._runs = _COUNTED_RUNS if page.startswith("[", place) else _RUNS
        end, names = len(page), self._runs.findall(page, place)
        if "" in names and (commit := _COMMIT.search(page, place)):
            end = commit.start()
            names = self._runs.findall(page, place, end)
        if names:
            self._take((number, place, end), names)
        return end

    def _take(self, part: Span, names: list[str]) -> None:
        first, number = names[0], len(self._parts)
        goes_on = first == self._last != ""
        self._parts.append(part)
        self._firsts.append(first)
        self._last = names[-1]
        del names[: int(goes_on)]
        self._count += len(names)
        self._part_of.update(zip(names, repeat(number)))

    def finish(self) -> None:
        """All of it is read: proves what can be proved without looking at each declaration."""
        together = len(self._part_of) == self._count and "" not in self._part_of
        if not together or (self._count < MANY and not all(map(self.has, self._part_of))):
            self._scattered = self._places()

    def _places(self) -> dict[str, Sequence[Span]]:
        """For each chain the stretches of text that hold its rules, and proof of all the rest."""
        found: dict[str, list[Span]] = {}
        for number, start, end in self._parts:
            for run in _COUNTED_RUNS.finditer(self._pages[number], start, end):
                if run[1] is None:
                    self._pass(number, run)
                elif not self.has(run[1]):
                    text = f"a rule of chain {run[1]}, which is not declared"
                    raise self._bad(number, run.start(), text)
                else:
                    found.setdefault(run[1], []).append((number, *run.span()))
        return dict(found)

    def _pass(self, number: int, found: re.Match[str]) -> None:
        """Between rules only comments and empty lines may stand."""
        line = found[0].removesuffix("\n")
        if line.strip() and not line.startswith("#"):
            raise self._bad(number, found.start(), f"{short(line)} is no rule")

    # --- the chains -----------------------------------------------------------------------------

    def names(self) -> Sequence[str]:
        return tuple(self._lines)

    def has(self, name: str) -> bool:
        return self.declaration(name) is not None

    def declaration(self, name: str) -> str | None:
        """``:CHAIN POLICY [packets:bytes]``"""
        if name not in self._found:
            few = len(self._found) < FEW
            self._found[name] = self._find(name) if few else self._lines.get(name)
        return self._found[name]

    def _find(self, name: str) -> str | None:
        start = self._header.find(f"\n:{name} ") + 1
        return self._header[start : self._header.index("\n", start)] if start else None

    @cached_property
    def _lines(self) -> dict[str, str]:
        """For who wants them all."""
        lines = self._header.split("\n")
        return {line[1 : line.find(" ")]: line for line in lines if line.startswith(":")}

    def bad(self, name: str, text: str) -> BadDump:
        """What is wrong with a declaration."""
        place = self._header.find(f"\n:{name} ") + 1
        return self._bad_line(self._header.count("\n", 1, place), text)

    def _bad_line(self, lines: int, text: str) -> BadDump:
        page, place = self._start
        return self._bad(page, place, text, lines)

    @cached_property
    def _header(self) -> str:
        """The declarations, each with a newline before and behind it."""
        header = "\n" + "".join(self._head)
        chains = header.count("\n:")
        plain = header.count("\n") == chains + 1 == header.count(" ") // 2 + 1
        if chains < MANY or not plain:
            self._prove(header)
        return header

    def _prove(self, header: str) -> None:
        """Only chains, each once, and comments may stand here."""
        seen = set[str]()
        for number, line in enumerate(header.split("\n")[1:]):
            name = line.split(" ")[0]
            if line and not line.startswith("#") and not DECLARED.fullmatch(line):
                raise self._bad_line(number, f"{short(line)} is no chain")
            if line.startswith(":") and name in seen:
                raise self._bad_line(number, f"chain {name[1:]} for the second time")
            seen.add(name)

    @cached_property
    def base_chains(self) -> Sequence[str]:
        """Those with a policy: the kernel's own, and what else a faulty text gives one."""
        known = [name for name in BUILT_IN if self.has(name)]
        header = self._header
        plain = header.count("\n:") == header.count("\n") - 1  # no comments
        if plain and len(known) == header.count("\n:") - header.count(" - "):
            return known
        lines = ((name, self.declaration(name) or "") for name in self.names())
        return [name for name, line in lines if not line.startswith(f":{name} -")]

    # --- their rules ----------------------------------------------------------------------------

    def spans(self, name: str) -> Sequence[Span]:
        """The stretches of text that hold the chain's rules."""
        if self._scattered is not None:
            return self._scattered.get(name, ())
        return tuple(self._run(name))

    def _run(self, name: str) -> Iterator[Span]:
        part = self._part_of.get(name, len(self._parts))
        while part < len(self._parts):
            number, start, end = self._parts[part]
            mark = self._marks.get(part, start)
            run = self._look(name, number, mark, end) or self._look(name, number, start, mark)
            assert run is not None  # else it were not among those of this part
            yield number, *run.span()
            self._marks[part] = run.end()
            part += 1
            if self._firsts[part : part + 1] != [name]:
                return

    def _look(self, name: str, page: int, start: int, end: int) -> re.Match[str] | None:
        runs = self._runs.finditer(self._pages[page], start, end)
        return next((run for run in runs if run[1] == name), None)


def sections(pages: Pages, bad: Bad) -> Iterator[Section]:
    """The tables. Raises BadDump for what is none, and for one that is cut off."""
    seen = {""}
    section, last = None, (0, 0)
    for number, page in enumerate(pages):
        place, last = 0, (number, len(page) - 1)
        while place < len(page):
            if section is None:
                end = page.index("\n", place) + 1
                line = page[place:end].rstrip()
                if line.startswith("*"):
                    if line[1:] in seen:
                        text = f"table {line[1:] or 'without a name'} for the second time"
                        raise bad(number, place, text)
                    seen.add(line[1:])
                    section = Section(line[1:], pages, (number, end), bad)
                elif line and not line.startswith("#"):
                    raise bad(number, place, f"{short(line)} stands outside a table")
                place = end
                continue
            place = section.read(number, page, place)
            if place < len(page):  # at COMMIT
                section.finish()
                yield section
                section, place = None, page.index("\n", place) + 1
    if section is not None:
        raise bad(*last, f"table {section.name} has no COMMIT: the text is cut off")


def short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")

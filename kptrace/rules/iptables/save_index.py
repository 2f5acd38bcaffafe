"""Index an iptables-save text: where the chains of each table and their rules are.

The text comes in pages of whole lines. ``sections`` makes a TableSection for each table, which
finds a chain's declaration and the spans of text with its rules. It proves that iptables-save
writes each line: a chain that is asked for must not have fewer rules than the file.

A regular expression goes over each page once and finds the names of the declared chains, and of the
chains of each run of rules. iptables-save prints the built-in chains first and then the others by
name, each chain's rules together. In a text with this order chains are found by binary search, so
no index is kept. In any other text (written by hand, or broken) the position of each run is
collected, which also gives the line of an error. Only this finds a rule of an undeclared chain that
nobody asks for, so small tables are always searched for that.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from operator import lt
from typing import NamedTuple, Protocol

from kptrace.model.errors import ParseError
from kptrace.rules.iptables.base_chains import BUILT_IN_CHAINS

MANY = 2000

DECLARED = re.compile(r":\S+ (\S+)(?: \[(\d+):(\d+)\])?")
_DECLARATIONS = re.compile(r"(?::.*+\n|(?!-A |\[|COMMIT).*+\n)*+")
_DECLARED = re.compile(r":([^ \n]++) [^ \n]++(?: \[\d++:\d++\])?+\n|.*\n")
_NEXT = " - [0:0]\n:"
_RUNS = re.compile(r"-A ([^ \n]++).*+\n(?:-A \1 .*+\n)*+|.*\n")  # the usual, strictly below
_USUAL_RUNS = re.compile(r"-A ([^ ]++).*+\n(?:-A \1 .*+\n)*+|.*\n")  # each rule has words
_COUNTED_RUNS = re.compile(
    r"(?:\[\d++:\d++\] )?+-A (\S++)(?: .*+)?+\n"
    r"(?:(?:\[\d++:\d++\] )?+-A \1(?: .*+)?+\n)*+|.*\n"
)
_COMMIT = re.compile(r"^COMMIT[^\S\n]*\n", re.MULTILINE)


class Pages(Protocol):
    """A text in pages of whole lines: a tuple, or a big file (kptrace/bundle/paged_file.py)."""

    def __iter__(self) -> Iterator[str]: ...

    def __getitem__(self, page: int, /) -> str: ...


class ErrorFactory(Protocol):
    """Makes the error for a page, a position in it, and a number of lines after that."""

    def __call__(self, page: int, place: int, text: str, lines: int = 0) -> ParseError: ...


PAGE = 1 << 17


def split_pages(text: str) -> tuple[str, ...]:
    """A text as pages of about 128 KiB, each of which ends with a whole line."""
    pages, start = list[str](), 0
    while start < len(text):
        end = text.find("\n", start + PAGE - 1) + 1 or len(text)
        pages.append(text[start:end])
        start = end
    if pages and not pages[-1].endswith("\n"):
        pages[-1] += "\n"
    return tuple(pages)


Span = tuple[int, int, int]  # a page, and where whole lines begin and end in it


class ChainOrder:
    """Checks page by page that names come in the order of iptables-save.

    own: the built-in chains; ``kept``: the order is right so far
    """

    def __init__(self) -> None:
        self.own: list[str] = []
        self.kept = True
        self._last = ""

    def take(self, names: Sequence[str]) -> None:
        """Check the names of a page, each of which comes once."""
        others = names
        if not self._last:
            kernel_chains = next(
                (index for index, name in enumerate(names) if name not in BUILT_IN_CHAINS),
                len(names),
            )
            self.own += names[:kernel_chains]
            others = names[kernel_chains:]
            self.kept = self.kept and len(set(self.own)) == len(self.own)
        if not others:
            return
        rising = others[0] > self._last and all(map(lt, others, islice(others, 1, None)))
        self.kept = (
            self.kept and rising and not any(_holds(others, name) for name in BUILT_IN_CHAINS)
        )
        self._last = others[-1]


def _holds(names: Sequence[str], name: str) -> bool:
    index = bisect_left(names, name)
    return names[index : index + 1] == [name]


class Declared(NamedTuple):
    """The declarations of a page.

    names: empty for a line that declares no chain
    users: the number of user-defined chains
    end: the position at which rules begin, or the page ends
    """

    names: list[str]
    users: int
    end: int


def _declared(page: str, place: int) -> Declared:
    """The declarations at a position.

    Most pages hold only user-defined chains without counters; the text between their names is then
    always the same.
    """
    if page.startswith(":", place) and page.endswith(_NEXT[:-1], place):
        names = page[place + 1 : len(page) - len(_NEXT) + 1].split(_NEXT)
        joined = "".join(names)
        if " " not in joined and "\n" not in joined:
            return Declared(names, len(names), len(page))
    match = _DECLARATIONS.match(page, place)
    end = match.end() if match else place
    return Declared(_DECLARED.findall(page, place, end), page.count(" - ", place, end), end)


class TableSection:
    """One table of the text; ``sections`` fills it page by page."""

    def __init__(self, name: str, pages: Pages, start: tuple[int, int], bad: ErrorFactory) -> None:
        self.name = name
        self._pages, self._start, self._bad = pages, start, bad
        self._head: list[str] = []
        self._declared = ChainOrder()
        self._kernels = 0  # chains with a policy
        self._parts: list[Span] = []  # what lies between the declarations and COMMIT
        self._ruled = ChainOrder()
        self._firsts: list[str] = []  # the chain with which each part begins
        self._last: str | None = None
        self._few: list[str] = []  # the chains with rules, if they are few
        self._runs = _RUNS
        self._scattered: Mapping[str, Sequence[Span]] | None = None
        self._asked: dict[str, str | None] = {}
        self._marks: dict[int, int] = {}  # how far a part was read the last time

    # --- reading it -----------------------------------------------------------------------------

    def read(self, number: int, page: str, place: int) -> int:
        """Read the part of a page that belongs to the table, and return where it ends."""
        if not self._parts:
            names, users, end = _declared(page, place)
            self._head.append(page[place:end])
            self._declared.take(names)
            self._kernels += len(names) - users
            place = end
            self._runs = _COUNTED_RUNS if page.startswith("[", place) else _RUNS
        end, names = len(page), self._names(page, place)
        if "" in names and (commit := _COMMIT.search(page, place)):
            end = commit.start()
            names = self._runs.findall(page, place, end)
        if names:
            self._take((number, place, end), names)
        return end

    def _names(self, page: str, place: int) -> list[str]:
        """The chain of each run of rules; empty for a line that is no rule."""
        if self._runs is _RUNS and "\n" not in "".join(names := _USUAL_RUNS.findall(page, place)):
            return names
        return self._runs.findall(page, place)

    def _take(self, part: Span, names: list[str]) -> None:
        self._parts.append(part)
        self._firsts.append(names[0])
        goes_on = int(names[0] == self._last)
        self._last = names[-1]
        self._ruled.take(names[goes_on:])
        if len(self._few) < MANY:
            self._few += names[goes_on:]

    def finish(self) -> None:
        """Check the table, now that all of it was read."""
        few = len(self._few) < MANY
        if not self._ruled.kept or (few and not all(map(self.has, self._few))):
            self._scattered = self._places()

    def _places(self) -> dict[str, Sequence[Span]]:
        """The spans of text with each chain's rules. Raises ParseError for any other line."""
        places: dict[str, list[Span]] = {}
        for number, start, end in self._parts:
            for run in _COUNTED_RUNS.finditer(self._pages[number], start, end):
                if run[1] is None:
                    self._pass(number, run)
                elif not self.has(run[1]):
                    text = f"a rule of chain {run[1]}, which is not declared"
                    raise self._bad(number, run.start(), text)
                else:
                    places.setdefault(run[1], []).append((number, *run.span()))
        return dict(places)

    def _pass(self, number: int, match: re.Match[str]) -> None:
        """Accept a line between rules: only comments and empty lines."""
        line = match[0].removesuffix("\n")
        if line.strip() and not line.startswith("#"):
            raise self._bad(number, match.start(), f"{shortened(line)} is no rule")

    # --- the chains -----------------------------------------------------------------------------

    def names(self) -> Sequence[str]:
        return tuple(self._lines)

    def has(self, name: str) -> bool:
        return self.declaration(name) is not None

    def declaration(self, name: str) -> str | None:
        """The line that declares a chain: ``:CHAIN POLICY [packets:bytes]``."""
        if name not in self._asked:
            self._asked[name] = self._find(name)
        return self._asked[name]

    def _find(self, name: str) -> str | None:
        if not self._declared.kept:
            return self._lines.get(name)
        if name in BUILT_IN_CHAINS:
            return self._line(name, 0, name in self._declared.own)
        header, low, high = self._header, 0, len(self._header) - 1
        while low < high:
            start = header.rfind("\n", low, (low + high) // 2 + 1)
            match = header[start + 2 : header.index(" ", start)]
            if match in BUILT_IN_CHAINS or match < name:
                low = header.index("\n", start + 1)
            elif match > name:
                high = start
            else:
                return self._line(name, start, True)
        return None

    def _line(self, name: str, low: int, is_declared: bool) -> str | None:
        if not is_declared:
            return None
        start = self._header.index(f"\n:{name} ", low) + 1
        return self._header[start : self._header.index("\n", start)]

    @cached_property
    def _lines(self) -> dict[str, str]:
        lines = self._header.split("\n")
        return {line[1 : line.find(" ")]: line for line in lines if line.startswith(":")}

    def bad(self, name: str, text: str) -> ParseError:
        """The error for a chain's declaration."""
        place = self._header.find(f"\n:{name} ") + 1
        return self._bad_line(self._header.count("\n", 1, place), text)

    def _bad_line(self, lines: int, text: str) -> ParseError:
        page, place = self._start
        return self._bad(page, place, text, lines)

    @cached_property
    def _header(self) -> str:
        """The declarations, each with a newline before and after it."""
        header = "\n" + "".join(self._head)
        if not self._declared.kept:
            self._prove(header)
        return header

    def _prove(self, header: str) -> None:
        """Raise ParseError for a declaration that is no chain's, or a chain's second one."""
        seen = set[str]()
        for number, line in enumerate(header.split("\n")[1:]):
            name = line.split(" ")[0]
            if line and not line.startswith("#") and not DECLARED.fullmatch(line):
                raise self._bad_line(number, f"{shortened(line)} is no chain")
            if line.startswith(":") and name in seen:
                raise self._bad_line(number, f"chain {name[1:]} for the second time")
            seen.add(name)

    @cached_property
    def base_chains(self) -> Sequence[str]:
        """The chains with a policy: built-in ones, and any other in a faulty text."""
        kernel_chains = self._declared.own
        if self._declared.kept and self._kernels == len(kernel_chains):
            return kernel_chains
        return [name for name, line in self._lines.items() if not line.startswith(f":{name} -")]

    # --- their rules ----------------------------------------------------------------------------

    def spans(self, name: str) -> Sequence[Span]:
        """The spans of text that hold the chain's rules."""
        if self._scattered is not None:
            return self._scattered.get(name, ())
        return tuple(self._run(name))

    def _run(self, name: str) -> Iterator[Span]:
        """Find a chain's rules: they begin in a part that begins with the chain or in the one
        before.
        """
        if name in BUILT_IN_CHAINS and name not in self._ruled.own:
            return
        rank = self._rank(name)
        low = max(bisect_left(self._firsts, rank, key=self._rank) - 1, 0)
        for part in range(low, bisect_right(self._firsts, rank, key=self._rank)):
            number, start, end = self._parts[part]
            mark = self._marks.get(part, start)
            run = self._look(name, number, mark, end) or self._look(name, number, start, mark)
            if run is not None:
                yield number, *run.span()
                self._marks[part] = run.end()

    def _rank(self, name: str) -> tuple[int, str]:
        kernel_chains = self._ruled.own
        return (
            (kernel_chains.index(name), "")
            if name in BUILT_IN_CHAINS
            else (len(kernel_chains), name)
        )

    def _look(self, name: str, page: int, start: int, end: int) -> re.Match[str] | None:
        text = self._pages[page]
        if self._runs is _RUNS:  # without counts: a line that begins so is a rule
            line = f"-A {name}"
            start = text.find(line, start, end)
            while start >= 0 and not _stands(text, start, start + len(line)):
                start = text.find(line, start + 1, end)
        runs = self._runs.finditer(text, start, end) if start >= 0 else ()
        return next((run for run in runs if run[1] == name), None)


def _stands(text: str, start: int, end: int) -> bool:
    """Whether the text from ``start`` to ``end`` is the first word of a line."""
    return (start == 0 or text[start - 1] == "\n") and text[end] in " \n"


def sections(pages: Pages, bad: ErrorFactory) -> Iterator[TableSection]:
    """The tables of a text.

    Raises the error that ``bad`` makes for a line outside a table, a table that comes twice and one
    without COMMIT.
    """
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
                        text = (
                            f"table {line[1:] or 'without a name'} for the second time: "
                            "the text holds two saves"
                        )
                        raise bad(number, place, text)
                    seen.add(line[1:])
                    section = TableSection(line[1:], pages, (number, end), bad)
                elif line and not line.startswith("#"):
                    raise bad(number, place, f"{shortened(line)} stands outside a table")
                place = end
                continue
            place = section.read(number, page, place)
            if place < len(page):  # at COMMIT
                section.finish()
                yield section
                section, place = None, page.index("\n", place) + 1
    if section is not None:
        raise bad(*last, f"table {section.name} has no COMMIT: the text is cut off")


def shortened(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")

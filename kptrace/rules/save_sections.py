"""One table's part of an iptables-save text: where its chains and their rules stand.

In: the text and where the part begins and ends. Out: a chain's declaration and the stretches of
text with its rules. All of it is proved to be what iptables-save writes: whoever asks for one chain
must not be told less than the file holds.

A text of some size is no one's handwork. It is proved by counting its lines by their kind, which
costs a tenth of an index; a chain is then found by its name, and that all its rules stand together,
as iptables-save writes them, is looked up for it. Where the proof or the looking fails, the index
is made, which also says in which line the fault is. What the index alone can see is a rule of a
chain that is nowhere declared and that nobody asks for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property

from kptrace.errors import BadDump

Span = tuple[int, int]
Bad = Callable[[int, str], BadDump]

BUILT_IN = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
BIG = 1 << 20
FEW = 200

_RUNS = re.compile(r"^-A (\S+)(?: .*)?\n(?:-A \1(?: .*)?\n)*", re.MULTILINE)
_COUNTED_RUNS = re.compile(
    r"^(?:\[\d+:\d+\] )?-A (\S+)(?: .*)?\n(?:(?:\[\d+:\d+\] )?-A \1(?: .*)?\n)*", re.MULTILINE
)
DECLARED = re.compile(r":\S+ (\S+)(?: \[(\d+):(\d+)\])?")


class Section:
    """One table's part of the text, indexed at its first use."""

    """The index of a part. ``bad``: makes the error for a place in the text."""

    def __init__(self, text: str, start: int, end: int, bad: Bad) -> None:
        self._text, self._bad = text, bad
        self._start, self._end = start, end

    def names(self) -> Sequence[str]:
        return tuple(self.declared)

    def has(self, name: str) -> bool:
        return name in self.declared

    def declaration(self, name: str) -> str | None:
        """``:CHAIN POLICY [packets:bytes]``"""
        return self.declared.get(name)

    def base_chains(self) -> list[str]:
        return [name for name, line in self.declared.items() if not line.startswith(f":{name} -")]

    def spans(self, name: str) -> tuple[Span, ...]:
        """The stretches of text that hold the chain's rules."""
        return self.runs.get(name, ())

    @cached_property
    def declared(self) -> dict[str, str]:
        """Chain name -> its ``:CHAIN POLICY [packets:bytes]`` line, in the order of the text."""
        text, start = self._text, self._start
        self._rules_start = self._rules_begin()
        lines = text[start : self._rules_start].split("\n")
        found = {line[1 : line.find(" ")]: line for line in lines if line[:1] == ":"}
        spaces = text.count(" ", start, self._rules_start)
        if len(found) != len(lines) - 1 or spaces != 2 * len(found):
            self._prove(lines)
        if not found and self._rules_start != self._end:  # nobody would ask for these
            raise self._bad(self._rules_start, "rules of chains that are not declared")
        return found

    def _rules_begin(self) -> int:
        text, start, end = self._text, self._start, self._end
        plain = text.find("\n-A ", start - 1, end)
        counted = text.find("\n[", start - 1, plain if plain >= 0 else end)
        return min((mark + 1 for mark in (plain, counted) if mark >= 0), default=end)

    def _prove(self, lines: list[str]) -> None:
        """Only chains, each once, and comments may stand here."""
        place, seen = self._start, set[str]()
        for line in lines:
            name = line.split(" ")[0]
            if line and not line.startswith("#") and not DECLARED.fullmatch(line):
                raise self._bad(place, f"{short(line)} is no chain")
            if line.startswith(":") and name in seen:
                raise self._bad(place, f"chain {name[1:]} for the second time")
            seen.add(name)
            place += len(line) + 1

    @cached_property
    def runs(self) -> dict[str, tuple[Span, ...]]:
        """For each chain the stretches of text that hold its rules, and proof of all the rest."""
        declared = self.declared  # also finds where the rules start
        text, place, end = self._text, self._rules_start, self._end
        counted = text.find("[", place, place + 1) == place or text.find("\n[", place, end) >= 0
        found: dict[str, tuple[Span, ...]] = {}
        for match in (_COUNTED_RUNS if counted else _RUNS).finditer(text, place, end):
            start = match.start()
            if start != place:
                self._skip(place, start)
            name = match.group(1)
            if name not in declared:
                raise self._bad(start, f"a rule of chain {name}, which is not declared")
            place = match.end()
            found[name] = (*found.get(name, ()), (start, place))
        if place != end:
            self._skip(place, end)
        return found

    def _skip(self, place: int, end: int) -> None:
        """Between chains and rules only comments and empty lines may stand."""
        while place < end:
            line = self._line(place)
            if line.strip() and not line.startswith("#"):
                raise self._bad(place, f"{short(line)} is no rule")
            place += len(line) + 1

    def _line(self, place: int) -> str:
        end = self._text.find("\n", place, self._end)
        return self._text[place : end if end >= 0 else self._end]


class BigSection(Section):
    """A part that is too big to be indexed for the sake of a few chains; for many it is."""

    _asked = 0

    def names(self) -> Sequence[str]:
        self._asked += FEW  # whoever wants all names wants all chains
        return super().names()

    @property
    def _indexed(self) -> bool:
        self._asked += 1
        return self._asked > FEW or not self._proved

    @cached_property
    def _header(self) -> str:
        """The declarations, each with a newline before and behind it."""
        self._rules_start = self._rules_begin()
        return "\n" + self._text[self._start : self._rules_start]

    @cached_property
    def _proved(self) -> bool:
        """Every line declares a chain or is a rule; nothing else stands here."""
        header, text = self._header, self._text
        chains = header.count("\n:")
        if not header.count("\n") == chains + 1 == header.count(" ") // 2 + 1:
            return False
        start, end = self._rules_start - 1, self._end
        lines = text.count("\n", self._rules_start, end)
        if self._counted:
            return text.count("\n[", start, end) == lines == text.count("] -A ", start, end)
        return text.count("\n-A ", start, end) == lines

    @property
    def _counted(self) -> bool:
        return self._text.startswith("[", self._rules_start)

    def has(self, name: str) -> bool:
        return self.declaration(name) is not None

    def declaration(self, name: str) -> str | None:
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    @cached_property
    def _found(self) -> dict[str, str | None]:
        return {}

    def _find(self, name: str) -> str | None:
        if self._indexed:
            return super().declaration(name)
        header = self._header
        start = header.find(f"\n:{name} ")
        return header[start + 1 : header.index("\n", start + 1)] if start >= 0 else None

    def base_chains(self) -> list[str]:
        return self._base_chains

    @cached_property
    def _base_chains(self) -> list[str]:
        """The built-in ones; a policy on another chain is a fault that the index finds."""
        found = [name for name in BUILT_IN if f"\n:{name} " in self._header]
        others = self._header.count("\n:") - self._header.count(" - ")
        return found if self._proved and len(found) == others else super().base_chains()

    def spans(self, name: str) -> tuple[Span, ...]:
        if self._indexed or not self.has(name):
            return super().spans(name)
        begin = self._next(name, self._rules_start)
        if begin < 0:
            return ()
        line = rf"(?:\[\d+:\d+\] )?-A {re.escape(name)}(?: .*)?\n"
        run = re.compile(f"(?:{line})+").match(self._text, begin, self._end)
        if run is None or self._next(name, run.end()) >= 0:
            return super().spans(name)
        return (run.span(),)

    def _next(self, name: str, place: int) -> int:
        """Where the next line with a rule of this chain begins; -1: there is none."""
        text, mark = (
            self._text,
            f"{']' if self._counted else chr(10)}{' ' * self._counted}-A {name}",
        )
        found = text.find(mark, place - 1, self._end)
        while found >= 0 and text[found + len(mark)] not in " \n":
            found = text.find(mark, found + len(mark), self._end)
        return text.rfind("\n", 0, found + 1) + 1 if found >= 0 else -1


def short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")

"""One table's part of an iptables-save text: where its chains and their rules stand.

In: the text and where the part begins and ends. Out: a chain's declaration and the stretches of
text with its rules. All of it is proved to be what iptables-save writes: whoever asks for one chain
must not be told less than the file holds.

Two passes of a regular expression prove the whole and give names alone: of the chains that are
declared, and of those to which the rules belong, run by run. As iptables-save keeps a chain's rules
together, each name comes once; the order of the names then is an index that costs nothing to write
down, and a chain is found in the text by halves. Where a text is not like that (written by hand,
or broken) its places are looked up one by one, which also says in which line a fault is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from kptrace.errors import BadDump

Span = tuple[int, int]
Bad = Callable[[int, str], BadDump]

BUILT_IN = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
_NEAR = 1 << 14  # so close to a chain its rules are looked for run by run

DECLARED = re.compile(r":\S+ (\S+)(?: \[(\d+):(\d+)\])?")
_DECLARATIONS = re.compile(r":(\S++) \S++(?: \[\d++:\d++\])?+\n|.*\n")
_RUNS = re.compile(r"-A (\S++)(?: .*+)?+\n(?:-A \1(?: .*+)?+\n)*+|.*\n")
_COUNTED_RUNS = re.compile(
    r"(?:\[\d++:\d++\] )?+-A (\S++)(?: .*+)?+\n"
    r"(?:(?:\[\d++:\d++\] )?+-A \1(?: .*+)?+\n)*+|.*\n"
)
_CHAIN = re.compile(r"(?:\[\d+:\d+\] )?-A (\S+)")


class Section:
    """The index of a part, made at its first use. ``bad``: makes the error for a place."""

    def __init__(self, text: str, start: int, end: int, bad: Bad) -> None:
        self._text, self._bad = text, bad
        self._start, self._end = start, end

    def names(self) -> Sequence[str]:
        return tuple(self._declared)

    def has(self, name: str) -> bool:
        return name in self._declared

    def declaration(self, name: str) -> str | None:
        """``:CHAIN POLICY [packets:bytes]``"""
        if name not in self._declared:
            return None
        start = self._text.find(f"\n:{name} ", self._start - 1) + 1
        return self._text[start : self._text.find("\n", start)]

    def base_chains(self) -> list[str]:
        return self._base_chains

    def spans(self, name: str) -> tuple[Span, ...]:
        """The stretches of text that hold the chain's rules."""
        if self._scattered is not None:
            return self._scattered.get(name, ())
        return (self._run(name),) if name in self._ranks else ()

    # --- the chains -----------------------------------------------------------------------------

    @cached_property
    def _rules_start(self) -> int:
        text, start, end = self._text, self._start, self._end
        plain = text.find("\n-A ", start - 1, end)
        counted = text.find("\n[", start - 1, plain if plain >= 0 else end)
        return min((mark + 1 for mark in (plain, counted) if mark >= 0), default=end)

    @cached_property
    def _declared(self) -> dict[str, None]:
        """The names, in the order of the text."""
        start, end = self._start, self._rules_start
        names = _DECLARATIONS.findall(self._text, start, end)
        found = dict.fromkeys(names)
        if "" in found or len(found) != len(names):
            self._prove(self._text[start:end])
            found.pop("")
        if not found and end != self._end:  # nobody would ask for these
            raise self._bad(end, "rules of chains that are not declared")
        return found

    def _prove(self, header: str) -> None:
        """Only chains, each once, and comments may stand here."""
        place, seen = self._start, set[str]()
        for line in header.split("\n"):
            name = line.split(" ")[0]
            if line and not line.startswith("#") and not DECLARED.fullmatch(line):
                raise self._bad(place, f"{short(line)} is no chain")
            if line.startswith(":") and name in seen:
                raise self._bad(place, f"chain {name[1:]} for the second time")
            seen.add(name)
            place += len(line) + 1

    @cached_property
    def _base_chains(self) -> list[str]:
        """Those with a policy: the kernel's own, and what else a faulty text gives one."""
        known = [name for name in BUILT_IN if name in self._declared]
        header = self._text[self._start : self._rules_start]
        plain = header.count("\n") == len(self._declared)  # no comments
        if plain and len(known) == len(self._declared) - header.count(" - "):
            return known
        lines = ((name, self.declaration(name) or "") for name in self._declared)
        return [name for name, line in lines if not line.startswith(f":{name} -")]

    # --- their rules ----------------------------------------------------------------------------

    @property
    def _runs(self) -> re.Pattern[str]:
        counted = self._text.startswith("[", self._rules_start)
        return _COUNTED_RUNS if counted else _RUNS

    @cached_property
    def _ranks(self) -> dict[str, int]:
        """The chains with rules, in the order of the text. Empty name: a line that is no rule."""
        names = self._runs.findall(self._text, self._rules_start, self._end)
        ranks = dict(zip(names, range(len(names)), strict=True))
        self._together = len(ranks) == len(names)
        return ranks

    @cached_property
    def _scattered(self) -> Mapping[str, tuple[Span, ...]] | None:
        """The places of all rules, where they do not stand chain by chain and nothing else."""
        ranks = self._ranks
        if self._together and ranks.keys() <= self._declared.keys():
            return None
        return self._places()

    def _run(self, name: str) -> Span:
        wanted, low, high = self._ranks[name], self._rules_start, self._end
        while high - low > _NEAR:
            middle = self._text.find("\n", (low + high) // 2, high) + 1
            if not low < middle < high:
                break
            chain = _CHAIN.match(self._text, middle)
            assert chain is not None  # every line is a rule
            if self._ranks[chain[1]] < wanted:
                low = middle
            else:
                high = middle
        runs = self._runs.finditer(self._text, low, self._end)
        return next(run.span() for run in runs if run[1] == name)

    def _places(self) -> dict[str, tuple[Span, ...]]:
        """For each chain the stretches of text that hold its rules, and proof of all the rest."""
        found: dict[str, tuple[Span, ...]] = {}
        for run in _COUNTED_RUNS.finditer(self._text, self._rules_start, self._end):
            name = run[1]
            if name is None:
                self._pass(run)
            elif name not in self._declared:
                text = f"a rule of chain {name}, which is not declared"
                raise self._bad(run.start(), text)
            else:
                found[name] = (*found.get(name, ()), run.span())
        return found

    def _pass(self, found: re.Match[str]) -> None:
        """Between rules only comments and empty lines may stand."""
        line = found[0].removesuffix("\n")
        if line.strip() and not line.startswith("#"):
            raise self._bad(found.start(), f"{short(line)} is no rule")


def short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")

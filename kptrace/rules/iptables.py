"""``iptables-save`` and ``ip6tables-save`` text (with or without counters) -> a Source.

The text is indexed once, by one pass of a regular expression that also proves that each line is
one that iptables-save writes; a rule is parsed when it is asked for. A line that does not belong
there, a table without COMMIT, a rule of a chain that was not declared, a quote that does not
close: BadDump with the line, since rules skipped in silence would make every later word a lie.

The grammar (iptables-save(8), xtables-save.c)::

    # comment
    *TABLE
    :CHAIN POLICY [packets:bytes]          POLICY is - for a chain of the user's
    [packets:bytes] -A CHAIN words         the counters only with -c
    COMMIT

iptables-save keeps a chain's rules together; a text written by hand need not, and is read too.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Literal, overload

from kptrace.errors import BadDump
from kptrace.rules.ruleset import Chain, Rule, Rules, Source, Table
from kptrace.rules.sets import Set
from kptrace.rules.xtables import compile_words

Backend = Literal["legacy", "nft"]
Span = tuple[int, int]

HOOKS = {
    "PREROUTING": "prerouting",
    "INPUT": "input",
    "FORWARD": "forward",
    "OUTPUT": "output",
    "POSTROUTING": "postrouting",
}
PRIORITIES = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}
_NFT_SECURITY = 150  # iptables-nft's own number for it (iptables/nft.c), behind source NAT
_SOURCE_NAT = 100  # nat in INPUT and POSTROUTING

_RUNS = re.compile(r"^-A (\S+).*\n(?:-A \1(?=\s).*\n)*", re.MULTILINE)
_COUNTED_RUNS = re.compile(
    r"^(?:\[\d+:\d+\] )?-A (\S+).*\n(?:(?:\[\d+:\d+\] )?-A \1(?=\s).*\n)*", re.MULTILINE
)
_DECLARED = re.compile(r":\S+ (\S+)(?: \[(\d+):(\d+)\])?")
_RULE = re.compile(r"(?:\[(\d+):(\d+)\] )?-A \S+ ?(.*)\n")
_WORD = re.compile(r'(?:"((?:[^"\\]|\\.)*)"|([^\s"]+))(?:\s+|$)')
_ESCAPED = re.compile(r"\\(.)")


class IptablesSave(Source):
    """One file. ``name``: what to call it in errors; ``ipset``: finds the sets that rules name.

    ages: of base chains, where nft tells them (nft.py)
    """

    def __init__(
        self,
        text: str,
        name: str,
        backend: Backend,
        family: str,
        ipset: Callable[[str], Set | None] = lambda name: None,
        ages: Mapping[tuple[Table, str], tuple[int, int]] | None = None,
    ) -> None:
        self.ages = ages or {}
        self.text = text
        self.name = name
        self.family = family
        self.ipset = ipset
        self._sections = {
            Table(backend=backend, family=family, name=name): _Section(self, start, end)
            for name, start, end in self._split()
        }

    def tables(self) -> Sequence[Table]:
        return tuple(self._sections)

    def base_chains(self, table: Table) -> Sequence[Chain]:
        declared = self._sections[table].declared
        names = [name for name, line in declared.items() if not line.startswith(f":{name} -")]
        return [chain for name in names if (chain := self.chain(table, name))]

    def chain(self, table: Table, name: str) -> Chain | None:
        section = self._sections[table]
        line = section.declared.get(name)
        if line is None:
            return None
        declared = _DECLARED.fullmatch(line)
        if declared is None:
            raise self.bad(self._place(line), f"{_short(line)} is no chain")
        policy, *counts = declared.groups()
        rules = SavedRules(self, section, table, name)
        if policy == "-":
            return Chain(table=table, name=name, rules=rules)
        hook = HOOKS.get(name)
        if hook is None or policy not in ("ACCEPT", "DROP"):
            raise self.bad(self._place(line), f"policy {policy} on chain {name}")
        packets, octets = (int(count) if count else None for count in counts)
        return Chain(
            table=table,
            name=name,
            rules=rules,
            hook=hook,
            priority=priority_of(table, hook),
            policy="drop" if policy == "DROP" else "accept",
            type=type_of(table.name, hook),
            age=self.ages.get((table, name), (0, 0)),
            packets=packets,
            bytes=octets,
        )

    def chain_names(self, table: Table) -> Sequence[str]:
        return tuple(self._sections[table].declared)

    def bad(self, place: int, text: str) -> BadDump:
        hint = "take it again with iptables-save, whole and unedited"
        return BadDump(self.name, self.line(place), text, hint)

    def _place(self, line: str) -> int:
        return f"\n{self.text}".index(f"\n{line}\n")

    def line(self, place: int) -> int:
        """1-based. Newlines are counted in steps, each from the nearest mark before."""
        known = bisect_right(self._marks, (place, 1 << 60)) - 1
        start, line = self._marks[known]
        line += self.text.count("\n", start, place)
        self._marks.insert(known + 1, (place, line))
        return line

    @cached_property
    def _marks(self) -> list[tuple[int, int]]:
        return [(0, 1)]

    def _split(self) -> Iterator[tuple[str, int, int]]:
        """(table, start, end) of what stands between ``*TABLE`` and COMMIT."""
        text, place, seen = self.text, 0, set[str]()
        while place < len(text):
            end = text.find("\n", place)
            line = text[place : end if end >= 0 else len(text)]
            if not line.startswith("*"):
                if line.strip() and not line.startswith("#"):
                    raise self.bad(place, f"{_short(line)} stands outside a table")
                place += len(line) + 1
                continue
            table, start = line[1:].strip(), place + len(line) + 1
            commit = text.find("COMMIT", start) if text.startswith("COMMIT", start) else -1
            if commit < 0:
                commit = text.find("\nCOMMIT", start - 1) + 1
            after = text.find("\n", commit) if commit > 0 else -1
            if commit <= 0 or text[commit : after if after >= 0 else None].rstrip() != "COMMIT":
                raise self.bad(len(text) - 1, f"table {table} has no COMMIT: the text is cut off")
            if not table or table in seen:
                raise self.bad(place, f"table {table or 'without a name'} for the second time")
            seen.add(table)
            yield table, start, commit
            place = commit + len("COMMIT\n")
        if not seen:
            raise BadDump(self.name, 0, "no table in it, so it is no iptables-save text")


def priority_of(table: Table, hook: str) -> int:
    if table.name == "nat" and hook in ("input", "postrouting"):
        return _SOURCE_NAT
    if table.name == "security" and table.backend == "nft":
        return _NFT_SECURITY
    return PRIORITIES.get(table.name, 0)


def type_of(table: str, hook: str) -> str:
    if table == "nat":
        return "nat"
    return "route" if table == "mangle" and hook == "output" else "filter"


class _Section:
    """One table's part of the text, indexed at its first use."""

    def __init__(self, save: IptablesSave, start: int, end: int) -> None:
        self._save = save
        self._start, self._end = start, end

    @cached_property
    def declared(self) -> dict[str, str]:
        """Chain name -> its ``:CHAIN POLICY [packets:bytes]`` line, in the order of the text."""
        text, start, end = self._save.text, self._start, self._end
        marks = (text.find(mark, start - 1, end) for mark in ("\n-A ", "\n["))
        self._rules_start = min((mark + 1 for mark in marks if mark >= 0), default=end)
        lines = text[start : self._rules_start].split("\n")
        found = {line[1 : line.find(" ")]: line for line in lines if line[:1] == ":"}
        spaces = text.count(" ", start, self._rules_start)
        if len(found) != len(lines) - 1 or spaces != 2 * len(found):
            self._prove(lines)
        return found

    def _prove(self, lines: list[str]) -> None:
        """Only chains, each once, and comments may stand here."""
        place, seen = self._start, set[str]()
        for line in lines:
            name = line.split(" ")[0]
            if line and not line.startswith("#") and not _DECLARED.fullmatch(line):
                raise self._save.bad(place, f"{_short(line)} is no chain")
            if line.startswith(":") and name in seen:
                raise self._save.bad(place, f"chain {name[1:]} for the second time")
            seen.add(name)
            place += len(line) + 1

    @cached_property
    def runs(self) -> dict[str, tuple[Span, ...]]:
        """For each chain the stretches of text that hold its rules, and proof of all the rest."""
        declared = self.declared  # also finds where the rules start
        text, place, end = self._save.text, self._rules_start, self._end
        counted = text.find("[", place, place + 1) == place or text.find("\n[", place, end) >= 0
        found: dict[str, tuple[Span, ...]] = {}
        for match in (_COUNTED_RUNS if counted else _RUNS).finditer(text, place, end):
            start = match.start()
            if start != place:
                self._skip(place, start)
            name = match.group(1)
            if name not in declared:
                raise self._save.bad(start, f"a rule of chain {name}, which is not declared")
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
                raise self._save.bad(place, f"{_short(line)} is no rule")
            place += len(line) + 1

    def _line(self, place: int) -> str:
        end = self._save.text.find("\n", place, self._end)
        return self._save.text[place : end if end >= 0 else self._end]


class SavedRules(Rules):
    """A chain's rules inside a text; each is parsed when it is reached, and then kept."""

    def __init__(self, save: IptablesSave, section: _Section, table: Table, chain: str) -> None:
        self._save, self._section = save, section
        self._table, self._chain = table, chain
        self._kept: dict[int, Rule] = {}

    @cached_property
    def _places(self) -> list[int]:
        """Where each rule begins."""
        text, places = self._save.text, list[int]()
        for start, end in self._section.runs.get(self._chain, ()):
            while start < end:
                places.append(start)
                start = text.find("\n", start) + 1
        return places

    def toward(self, address: str) -> Iterable[Rule]:
        """Skips the rules that begin with ``-d`` of another single address.

        KUBE-SERVICES has one or more such rules for each Service: 10,000 lines, of which a packet
        needs a handful. The skipping is done on the text.
        """
        if len(self._places) < _WORTH_FILTERING:
            return self
        pattern = re.compile(
            rf"^(?:\[\d+:\d+\] )?-A \S+ (?!-d (?!{re.escape(address)}/)[0-9a-f.:]+/(?:32|128) )",
            re.MULTILINE,
        )
        return self._matching(pattern)

    def saying(self, text: str) -> Iterable[Rule]:
        return self._matching(re.compile(rf"^.*{re.escape(text)}.*$", re.MULTILINE))

    def _matching(self, pattern: re.Pattern[str]) -> Iterator[Rule]:
        order = {place: index for index, place in enumerate(self._places)}
        for start, end in self._section.runs.get(self._chain, ()):
            for match in pattern.finditer(self._save.text, start, end):
                yield self._at(order[match.start()])

    def _at(self, index: int) -> Rule:
        rule = self._kept.get(index)
        if rule is None:
            rule = self._kept[index] = self._parse(index)
        return rule

    def _parse(self, index: int) -> Rule:
        place = self._places[index]
        match = _RULE.match(self._save.text, place)
        if match is None:
            raise self._save.bad(place, "no rule")
        packets, octets, words = match.groups()
        try:
            compiled = compile_words(
                split_words(words),
                self._save.family,
                self._section.declared.__contains__,
                self._save.ipset,
            )
        except ValueError as error:
            raise self._save.bad(place, str(error)) from error
        return Rule(
            table=self._table,
            chain=self._chain,
            number=index + 1,
            text=words,
            body=compiled.body,
            comment=compiled.comment,
            packets=int(packets) if packets else None,
            bytes=int(octets) if octets else None,
            source=self._save.name,
            line=self._save.line(place),
        )

    @overload
    def __getitem__(self, index: int) -> Rule: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Rule]: ...
    def __getitem__(self, index: int | slice) -> Rule | Sequence[Rule]:
        if isinstance(index, slice):
            return [self._at(each) for each in range(*index.indices(len(self)))]
        return self._at(range(len(self))[index])

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Rule]:
        return (self._at(index) for index in range(len(self)))


_WORTH_FILTERING = 16


def split_words(text: str) -> list[str]:
    """The words of a rule, quotes resolved. ValueError for a quote that does not close."""
    if '"' not in text:
        return text.split()
    words: list[str] = []
    place = len(text) - len(text.lstrip())
    while place < len(text):
        match = _WORD.match(text, place)
        if match is None:
            raise ValueError(f"a quote that does not close: {_short(text[place:])}")
        inside, plain = match.groups()
        words.append(plain if plain is not None else _ESCAPED.sub(r"\1", inside))
        place = match.end()
    return words


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")

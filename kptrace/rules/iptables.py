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
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Literal, overload

from kptrace.errors import BadDump
from kptrace.rules.ruleset import Chain, Rule, Rules, Source, Table
from kptrace.rules.save_sections import BIG, DECLARED, BigSection, Section, short
from kptrace.rules.sets import Set
from kptrace.rules.xtables import compile_words

Backend = Literal["legacy", "nft"]

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
            Table(backend=backend, family=family, name=name): self._section(start, end)
            for name, start, end in self._split()
        }

    def _section(self, start: int, end: int) -> Section:
        kind = BigSection if end - start > BIG else Section
        return kind(self.text, start, end, self.bad)

    def tables(self) -> Sequence[Table]:
        return tuple(self._sections)

    def base_chains(self, table: Table) -> Sequence[Chain]:
        names = self._sections[table].base_chains()
        return [chain for name in names if (chain := self.chain(table, name))]

    def chain(self, table: Table, name: str) -> Chain | None:
        section = self._sections[table]
        line = section.declaration(name)
        if line is None:
            return None
        declared = DECLARED.fullmatch(line)
        if declared is None:
            raise self.bad(self._place(line), f"{short(line)} is no chain")
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
        return self._sections[table].names()

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
                    raise self.bad(place, f"{short(line)} stands outside a table")
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


class SavedRules(Rules):
    """A chain's rules inside a text; each is parsed when it is reached, and then kept."""

    def __init__(self, save: IptablesSave, section: Section, table: Table, chain: str) -> None:
        self._save, self._section = save, section
        self._table, self._chain = table, chain
        self._kept: dict[int, Rule] = {}
        self._led: dict[str, tuple[Rule, ...]] = {}

    @cached_property
    def _places(self) -> list[int]:
        """Where each rule begins."""
        text, places = self._save.text, list[int]()
        for start, end in self._section.spans(self._chain):
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
        if address not in self._led:
            self._led[address] = tuple(map(self._at, self._leading(address)))
        return self._led[address]

    def _leading(self, address: str) -> Iterator[int]:
        text, head = self._save.text, f"-A {self._chain} -d "
        for index, place in enumerate(self._places):
            if text.startswith("[", place):
                place = text.find("] ", place) + 2
            begin = place + len(head)
            if text.startswith(head, place) and not text.startswith(f"{address}/", begin):
                mask = text.find("/", begin)
                if text.startswith(("/32 ", "/128 "), mask) and " " not in text[begin:mask]:
                    continue
            yield index

    def saying(self, text: str) -> Iterable[Rule]:
        return self._matching(re.compile(rf"^.*{re.escape(text)}.*$", re.MULTILINE))

    def _matching(self, pattern: re.Pattern[str]) -> Iterator[Rule]:
        for start, end in self._section.spans(self._chain):
            for match in pattern.finditer(self._save.text, start, end):
                if match.start() < end:  # an empty text also stands behind the last line
                    yield self._at(bisect_left(self._places, match.start()))

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
                self._section.has,
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
            raise ValueError(f"a quote that does not close: {short(text[place:])}")
        inside, plain = match.groups()
        words.append(plain if plain is not None else _ESCAPED.sub(r"\1", inside))
        place = match.end()
    return words

"""``iptables-save`` and ``ip6tables-save`` text (with or without counters) -> a Source.

The text is indexed once (save_index.py), which also proves that each line is one that
iptables-save writes; a rule is parsed when it is asked for. A line that does not belong
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import overload

from kptrace.model.errors import ParseError
from kptrace.rules.iptables.base_chains import HOOKS, Backend, priority_of, type_of
from kptrace.rules.iptables.parse_rule import compile_words
from kptrace.rules.iptables.save_index import (
    DECLARED,
    Pages,
    Span,
    TableSection,
    paged,
    sections,
    short,
)
from kptrace.rules.model.ruleset import Chain, Rule, Rules, RulesetSource, Table
from kptrace.rules.model.sets import Set

_RULE = re.compile(r"(?:\[(\d+):(\d+)\] )?-A \S+ ?(.*)\n")
_LEADING = re.compile(r"(?:(?:\[\d++:\d++\] )?+-A \S++ -d [^ /]++/(?:32|128) .*+\n)*+(.++\n)?")
_WORD = re.compile(r'(?:"((?:[^"\\]|\\.)*)"|([^\s"]+))(?:\s+|$)')
Place = tuple[int, int]  # a page, and where a rule begins in it
_ESCAPED = re.compile(r"\\(.)")


class IptablesSave(RulesetSource):
    """One file. ``name``: what to call it in errors; ``ipset``: finds the sets that rules name.

    ages: of base chains, where nft tells them (rules/nftables/json_ruleset.py)
    """

    def __init__(
        self,
        text: str | Pages,
        name: str,
        backend: Backend,
        family: str,
        ipset: Callable[[str], Set | None] = lambda name: None,
        ages: Mapping[tuple[Table, str], tuple[int, int]] | None = None,
    ) -> None:
        self.ages = ages or {}
        self.pages = paged(text) if isinstance(text, str) else text
        self.name = name
        self.family = family
        self.ipset = ipset
        self._sections = {
            Table(backend=backend, family=family, name=one.name): one
            for one in sections(self.pages, self.bad)
        }
        if not self._sections:
            raise ParseError(name, 0, "no table in it, so it is no iptables-save text")

    def tables(self) -> Sequence[Table]:
        return tuple(self._sections)

    def base_chains(self, table: Table) -> Sequence[Chain]:
        names = self._sections[table].base_chains
        return [chain for name in names if (chain := self.chain(table, name))]

    def chain(self, table: Table, name: str) -> Chain | None:
        section = self._sections[table]
        line = section.declaration(name)
        if line is None:
            return None
        declared = DECLARED.fullmatch(line)
        if declared is None:
            raise section.bad(name, f"{short(line)} is no chain")
        policy, *counts = declared.groups()
        rules = SavedRules(self, section, table, name)
        if policy == "-":
            return Chain(table=table, name=name, rules=rules)
        hook = HOOKS.get(name)
        if hook is None or policy not in ("ACCEPT", "DROP"):
            raise section.bad(name, f"policy {policy} on chain {name}")
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

    def bad(self, page: int, place: int, text: str, lines: int = 0) -> ParseError:
        before = sum(self.pages[each].count("\n") for each in range(page))
        line = before + self.pages[page].count("\n", 0, place) + lines + 1
        return ParseError(
            self.name, line, text, "take it again with iptables-save, whole and unedited"
        )


class SavedRules(Rules):
    """A chain's rules inside a text; each is parsed when it is reached, and then kept."""

    def __init__(self, save: IptablesSave, section: TableSection, table: Table, chain: str) -> None:
        self._save, self._section = save, section
        self._table, self._chain = table, chain
        self._kept: dict[Place, Rule] = {}
        self._numbered: dict[int, Rule] = {}
        self._led: dict[str, tuple[Rule, ...]] = {}

    @cached_property
    def _spans(self) -> Sequence[Span]:
        return self._section.spans(self._chain)

    @cached_property
    def _count(self) -> int:
        return sum(self._save.pages[page].count("\n", *part) for page, *part in self._spans)

    @cached_property
    def _places(self) -> list[Place]:
        """Where each rule begins."""
        places = list[Place]()
        for page, start, end in self._spans:
            text = self._save.pages[page]
            while start < end:
                places.append((page, start))
                start = text.find("\n", start) + 1
        return places

    def candidates_for_destination(self, address: str) -> Iterable[Rule]:
        """Skips the rules that begin with ``-d`` of another single address.

        KUBE-SERVICES has one or more such rules for each Service: 10,000 lines, of which a packet
        needs a handful.
        """
        if self._count < _WORTH_FILTERING:
            return self
        if address not in self._led:
            places = {*self._open, *self._holding(f" -d {address}/")}
            self._led[address] = tuple(self._at(place) for place in sorted(places))
        return self._led[address]

    @cached_property
    def _open(self) -> list[Place]:
        """Where the rules stand that do not begin with one destination."""
        return [
            (page, found.start(1))
            for page, *part in self._spans
            for found in _LEADING.finditer(self._save.pages[page], *part)
            if found[1]
        ]

    def containing_text(self, text: str) -> Iterable[Rule]:
        return (self._at(place) for place in self._holding(text)) if text else self

    def _holding(self, words: str) -> Iterator[Place]:
        """Where the rules stand in which these words are."""
        for page, start, end in self._spans:
            text = self._save.pages[page]
            found = text.find(words, start, end)
            while found >= 0:
                yield page, text.rfind("\n", 0, found) + 1
                found = text.find(words, text.find("\n", found), end)

    def _at(self, place: Place, number: int = 0) -> Rule:
        rule = self._kept.get(place)
        if rule is None:
            rule = self._kept[place] = self._parse(place, number or self._number(place))
            self._numbered[rule.number] = rule
        return rule

    def _number(self, place: Place) -> int:
        """1-based."""
        before = 0
        for page, start, end in self._spans:
            if (page, start) < place:
                end = min(end, place[1]) if page == place[0] else end
                before += self._save.pages[page].count("\n", start, end)
        return before + 1

    def _parse(self, place: Place, number: int) -> Rule:
        page, start = place
        match = _RULE.match(self._save.pages[page], start)
        if match is None:
            raise self._save.bad(page, start, "no rule")
        packets, octets, words = match.groups()
        try:
            compiled = compile_words(
                split_words(words),
                self._save.family,
                self._section.has,
                self._save.ipset,
            )
        except ValueError as error:
            raise self._save.bad(page, start, str(error)) from error
        return Rule(
            table=self._table,
            chain=self._chain,
            number=number,
            text=words,
            body=compiled.body,
            comment=compiled.comment,
            packets=int(packets) if packets else None,
            bytes=int(octets) if octets else None,
        )

    @overload
    def __getitem__(self, index: int) -> Rule: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Rule]: ...
    def __getitem__(self, index: int | slice) -> Rule | Sequence[Rule]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(self._count))]
        number = range(1, self._count + 1)[index]
        return self._numbered.get(number) or self._at(self._places[number - 1], number)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Rule]:
        return map(self._at, self._places, range(1, self._count + 1))


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

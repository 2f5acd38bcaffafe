"""Read ``iptables-save`` and ``ip6tables-save`` text, with or without counters.

The text is indexed once (save_index.py), which also proves that iptables-save writes each of its
lines; a rule is parsed when it is asked for. A line that does not belong there, a table without
COMMIT, a rule of a chain that was not declared and a quote that does not close are ParseErrors
with the line: a rule that was skipped silently would make every answer wrong.

The grammar (iptables-save(8), xtables-save.c)::

    # comment
    *TABLE
    :CHAIN POLICY [packets:bytes]          POLICY is - for a user-defined chain
    [packets:bytes] -A CHAIN options         the counters only with -c
    COMMIT

iptables-save keeps a chain's rules together; a text written by hand need not, and is read too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import overload

from kptrace.model.errors import ParseError
from kptrace.rules.iptables.base_chains import HOOKS, Backend, priority_of, type_of
from kptrace.rules.iptables.parse_rule import parse_rule_args
from kptrace.rules.iptables.save_index import (
    DECLARED,
    Pages,
    Span,
    TableSection,
    sections,
    shortened,
    split_pages,
)
from kptrace.rules.iptables.save_text import SaveText
from kptrace.rules.model.ruleset import Chain, Rule, Rules, RulesetSource, Table
from kptrace.rules.model.sets import Set

_RULE = re.compile(r"(?:\[(\d+):(\d+)\] )?-A \S+ ?(.*)\n")
_LEADING = re.compile(r"(?:(?:\[\d++:\d++\] )?+-A \S++ -d [0-9a-f.:]++/(?:32|128) .*+\n)*+(.++\n)?")
_WORD = re.compile(r'(?:"((?:[^"\\]|\\.)*)"|([^\s"]+))(?:\s+|$)')
Position = tuple[int, int]  # a page, and where a rule begins in it
_ESCAPED = re.compile(r"\\(.)")


class IptablesSave(RulesetSource):
    """One file.

    name: what to call it in errors
    ipset: finds the sets that rules name
    ages: of base chains, as nft lists them (rules/nftables/json_ruleset.py)
    excerpt: what another form of the text lacks; None for a save, which is whole
    """

    def __init__(
        self,
        text: str | Pages,
        name: str,
        backend: Backend,
        family: str,
        ipset: Callable[[str], Set | None] = lambda name: None,
        ages: Mapping[tuple[Table, str], tuple[int, int]] | None = None,
        excerpt: SaveText | None = None,
    ) -> None:
        self.ages = ages or {}
        self.excerpt = excerpt
        self.pages = split_pages(text) if isinstance(text, str) else text
        self.name = name
        self.family = family
        self.ipset = ipset
        self._sections = {
            Table(backend=backend, family=family, name=section.name): section
            for section in sections(self.pages, self.bad)
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
            raise section.bad(name, f"{shortened(line)} is no chain")
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

    def is_chain(self, table: Table, name: str) -> bool:
        """Whether a rule's target is a chain: one of the text, or one that the text lacks."""
        if self._sections[table].has(name):
            return True
        return self.excerpt is not None and name in self.excerpt.absent.get(table.name, ())

    def bad(self, page: int, place: int, text: str, lines: int = 0) -> ParseError:
        """The error for a line: ``lines`` after the one at a place of a page."""
        before = sum(self.pages[index].count("\n") for index in range(page))
        line = before + self.pages[page].count("\n", 0, place) + lines + 1
        if self.excerpt:
            line = self.excerpt.lines[line - 1]
        return ParseError(
            self.name, line, text, "take it again with iptables-save, whole and unedited"
        )


class SavedRules(Rules):
    """The rules of one chain of a text; each is parsed once, when it is reached."""

    def __init__(self, save: IptablesSave, section: TableSection, table: Table, chain: str) -> None:
        self._save, self._section = save, section
        self._table, self._chain = table, chain
        self._by_position: dict[Position, Rule] = {}
        self._by_number: dict[int, Rule] = {}
        self._by_destination: dict[str, tuple[Rule, ...]] = {}

    @cached_property
    def _spans(self) -> Sequence[Span]:
        return self._section.spans(self._chain)

    @cached_property
    def _count(self) -> int:
        return sum(self._save.pages[page].count("\n", *part) for page, *part in self._spans)

    @cached_property
    def _positions(self) -> list[Position]:
        """The position of each rule."""
        places = list[Position]()
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
        if self._count < _MIN_FILTERED:
            return self
        if address not in self._by_destination:
            places = {*self._any_destination, *self._positions_of_text(f" -d {address}/")}
            self._by_destination[address] = tuple(
                self._rule_at(position) for position in sorted(places)
            )
        return self._by_destination[address]

    @cached_property
    def _any_destination(self) -> list[Position]:
        """The positions of the rules that do not begin with a single destination."""
        return [
            (page, match.start(1))
            for page, *part in self._spans
            for match in _LEADING.finditer(self._save.pages[page], *part)
            if match[1]
        ]

    def containing_text(self, text: str) -> Iterable[Rule]:
        return (
            (self._rule_at(position) for position in self._positions_of_text(text))
            if text
            else self
        )

    def _positions_of_text(self, text: str) -> Iterator[Position]:
        """The positions of the rules that contain this text."""
        for page, start, end in self._spans:
            page_text = self._save.pages[page]
            position = page_text.find(text, start, end)
            while position >= 0:
                yield page, page_text.rfind("\n", 0, position) + 1
                position = page_text.find(text, page_text.find("\n", position), end)

    def _rule_at(self, position: Position, number: int = 0) -> Rule:
        rule = self._by_position.get(position)
        if rule is None:
            rule = self._by_position[position] = self._parse(
                position, number or self._number(position)
            )
            self._by_number[rule.number] = rule
        return rule

    def _number(self, position: Position) -> int:
        """The number of the rule at a position, counted from 1."""
        before = 0
        for page, start, end in self._spans:
            if (page, start) < position:
                end = min(end, position[1]) if page == position[0] else end
                before += self._save.pages[page].count("\n", start, end)
        return before + 1

    def _parse(self, position: Position, number: int) -> Rule:
        page, start = position
        match = _RULE.match(self._save.pages[page], start)
        if match is None:
            raise self._save.bad(page, start, "no rule")
        packets, octets, args_text = match.groups()
        try:
            compiled = parse_rule_args(
                split_args(args_text),
                self._save.family,
                partial(self._save.is_chain, self._table),
                self._save.ipset,
            )
        except ValueError as error:
            raise self._save.bad(page, start, str(error)) from error
        return Rule(
            table=self._table,
            chain=self._chain,
            number=number,
            text=args_text,
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
            return [self[index_] for index_ in range(*index.indices(self._count))]
        number = range(1, self._count + 1)[index]
        return self._by_number.get(number) or self._rule_at(self._positions[number - 1], number)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Rule]:
        return map(self._rule_at, self._positions, range(1, self._count + 1))


_MIN_FILTERED = 16


def split_args(text: str) -> list[str]:
    """The arguments of a rule, quotes resolved.

    Raises ValueError for a quote that does not close.
    """
    if '"' not in text:
        return text.split()
    args_text: list[str] = []
    position = len(text) - len(text.lstrip())
    while position < len(text):
        match = _WORD.match(text, position)
        if match is None:
            raise ValueError(f"a quote that does not close: {shortened(text[position:])}")
        inside, plain = match.groups()
        args_text.append(plain if plain is not None else _ESCAPED.sub(r"\1", inside))
        position = match.end()
    return args_text

"""The chain of rules of one way in, for all its senders together. Pure.

A rule has its place, what it means, below that its own text and what it counted, where that is
known. One that only some senders meet says which. What an earlier way in has shown is named in one
line; where a Service has many backends, the rules of the first few stand for all.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from kptrace.model import ClientKind, MatchedRule, ServiceEntrypoint
from kptrace.render.layout import Span, TextLayout, glue, span
from kptrace.render.sanitize import cells, clean, pad, shorten
from kptrace.simulate.matched_rules import hook_order, merge

Key = tuple[str, str, str, str, int]

# the most that table and place take, and the least that is left for words beside them
MOST_TABLE = 14
COLUMN = 28
LEAST_WORDS = 24
MOST_RULES = 24
_HEAD, _TAIL = 14, 6


class Row(NamedTuple):
    """senders: who meets it, if not all do."""

    rule: MatchedRule
    senders: tuple[ClientKind, ...]


class SeenRules:
    """The rules that the page has already."""

    def __init__(self, wide: bool) -> None:
        self.wide = wide
        self._keys: set[Key] = set()

    def fresh(self, row: Row) -> bool:
        return self.wide or _key(row.rule) not in self._keys

    def add(self, rows: Iterable[Row]) -> None:
        self._keys |= {_key(row.rule) for row in rows}


def show_chain(
    page: TextLayout, entries: Sequence[ServiceEntrypoint], shown: SeenRules, indent: int
) -> None:
    rows = _merged(entries)
    tables = max((cells(_table(row.rule)) for row in rows), default=0) + 2
    most = min(COLUMN, page.width - indent - tables - LEAST_WORDS)
    fresh = [cells(clean(_place(row.rule))) for row in rows if shown.fresh(row)]
    room = max((number for number in fresh if number <= most), default=0)
    table, folded = "", list[Row]()
    for row in _few(_begin(rows, shown), shown.wide):
        if row is not None and not shown.fresh(row):
            folded.append(row)
            continue
        _fold(page, folded, indent + tables)
        if row is None:
            page.line(span("... and so on for each backend (-o wide)", "quiet"), indent=indent)
            table = ""
            continue
        name = _table(row.rule) if row.rule.table != table else ""
        table = row.rule.table
        _row(page, row, span(pad(name, tables), "quiet"), room, indent, shown.wide)
    _fold(page, folded, indent + tables)
    shown.add(rows)


def _begin(rows: Sequence[Row], shown: SeenRules) -> Sequence[Row]:
    """From the first that the page does not have yet, if there is one."""
    for index, row in enumerate(rows):
        if shown.fresh(row):
            return rows[index:]
    return rows


def _few(rows: Sequence[Row], wide: bool) -> list[Row | None]:
    """All of them, or the first and last with a None between."""
    if wide or len(rows) <= MOST_RULES:
        return list(rows)
    return [*rows[:_HEAD], None, *rows[-_TAIL:]]


def _row(page: TextLayout, row: Row, table: Span, room: int, indent: int, wide: bool) -> None:
    netns = clean(_place(row.rule))
    below = indent + table.width + 4
    first, *more = _told(row, wide)
    if cells(netns) <= room:
        label = [table, span(pad(netns, room + 2))]
        page.line(*first, label=label, indent=indent)
    else:
        page.line(span(netns), label=[table], indent=indent, hang=below)
        page.line(*first, indent=below)
    for spans in more:
        page.line(*spans, indent=below)


def _told(row: Row, wide: bool) -> list[list[Span]]:
    """What it means and who meets it; its own text; what it counted."""
    rule = row.rule
    only = f"({', '.join(row.senders)})" if row.senders else ""
    met = f"{rule.packets} packet{'s' if rule.packets != 1 else ''}" if rule.packets else ""
    rows = [[span(rule.description or _own(rule, wide))]]
    for text in (only, met):
        rows[0] += [span("  "), glue(text, "quiet")] if text else []
    if rule.description and (own := _own(rule, wide)):
        rows.append([span(own, "quiet")])
    if wide and rule.packets is not None:
        size = f", {rule.bytes} bytes" if rule.bytes is not None else ""
        rows.append([span(f"counted {rule.packets} packets{size}", "quiet")])
    return rows


def _own(rule: MatchedRule, wide: bool) -> str:
    """The rule's own text; the short form lacks what its place and its words say already."""
    text = rule.text.removeprefix(f"-A {rule.chain} ")
    if wide:
        return text
    text = _COMMENT.sub("", text).strip()
    return "" if _BARE_JUMP.fullmatch(text) else text


_COMMENT = re.compile(r'(?:-m comment --)?comment (?:"(?:[^"\\]|\\.)*"|[^\s"]+) ?')
_BARE_JUMP = re.compile(r"(?:-[jg]|jump|goto) [A-Za-z-]\S*")


def _table(rule: MatchedRule) -> str:
    return shorten(clean(rule.table), MOST_TABLE)


def _place(rule: MatchedRule) -> str:
    return f"{rule.chain} {rule.number}" if rule.number else f"{rule.chain} policy"


def _fold(page: TextLayout, rows: list[Row], indent: int) -> None:
    """``as above: KUBE-SVC-X and on``"""
    chains = list(dict.fromkeys(row.rule.chain for row in rows))
    if chains:
        more = " and on" if len(chains) > 1 else ""
        page.line(span(f"as above: {chains[0]}{more}", "quiet"), indent=indent)
    rows.clear()


# --- the rules of several senders as one list ---------------------------------------------------


def _merged(entries: Sequence[ServiceEntrypoint]) -> list[Row]:
    """In the kernel's order for each of them: new ones stand before what both meet next."""
    order: list[Key] = []
    rules: dict[Key, MatchedRule] = {}
    met: dict[Key, list[ClientKind]] = {}
    for entry in entries:
        for rule in entry.rules:
            rules.setdefault(_key(rule), rule)
            senders = met.setdefault(_key(rule), [])
            if entry.sender not in senders:
                senders.append(entry.sender)
        order = merge(order, [_key(rule) for rule in entry.rules], partial(_when, rules))
    everybody = {entry.sender for entry in entries}
    return [Row(rules[key], () if set(met[key]) == everybody else tuple(met[key])) for key in order]


def _when(rules: Mapping[Key, MatchedRule], key: Key) -> tuple[int, Hashable, int]:
    return hook_order(rules[key].hook), key[:-1], rules[key].number


def _key(rule: MatchedRule) -> Key:
    return rule.backend, rule.family, rule.table, rule.chain, rule.number

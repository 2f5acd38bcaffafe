"""The rules of one chain of a live node: ``AskedRules``.

Few come with the chain; of many those that are needed are asked for: by address, by a text, or as
a last resort all.

In: the chain's fact. Out: Rules as the text readers make them: of iptables by the words that
iptables-save would print, of nft by the JSON that nft would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

from kptrace.errors import BadDump
from kptrace.model import Value
from kptrace.rules import legacy_xt, nft_wire, nft_xt
from kptrace.rules.blob import Short
from kptrace.rules.iptables import split_words
from kptrace.rules.nft import rule_of
from kptrace.rules.nft_registers import SetTold
from kptrace.rules.nft_types import Unprintable
from kptrace.rules.nft_wire_set import SetReader
from kptrace.rules.parts import Opaque
from kptrace.rules.ruleset import Rule, Rules, Table
from kptrace.rules.sets import Set
from kptrace.rules.wanted import Wanted, in_table
from kptrace.rules.xt_entry import Entry, Foreign
from kptrace.rules.xtables import compile_words

Tree = Mapping[str, Any]
_STRANGE = (KeyError, ValueError, TypeError, AttributeError, IndexError, Unprintable, Short)


class Reading(Value):
    """What it takes to read the rules of a table.

    asked: gives a fact; ``iptables``: iptables-nft wrote the table, or it is a legacy one
    """

    table: Table
    asked: Callable[[Wanted], Tree | None]
    iptables: bool
    interfaces: Mapping[int, str]
    ipset_name: Callable[[int], str]
    ipset: Callable[[str], Set | None]


class AskedRules(Rules):
    def __init__(self, reading: Reading, chain: str, told: Tree) -> None:
        self._reading, self._chain = reading, chain
        self._wanted = in_table(reading.table, "chain", chain)
        self._count = int(told.get("count", 0))
        self._kept: dict[int, Rule] = {}
        self._whole = "rules" in told
        if self._whole:
            self._take(self._wanted, told)

    def toward(self, address: str) -> Iterable[Rule]:
        return self if self._whole else self._some(self._wanted.narrowed("toward", address))

    def saying(self, text: str) -> Iterable[Rule]:
        return self if self._whole else self._some(self._wanted.narrowed("saying", text))

    def _some(self, wanted: Wanted) -> list[Rule]:
        told = self._reading.asked(wanted)
        if told is None or "rules" not in told:
            text = f"the {self._count} rules of chain {self._chain} were not asked for"
            raise BadDump(wanted.file, 0, text, "trace anew; a saved run holds what was asked")
        return self._take(wanted, told)

    def _all(self) -> None:
        if not self._whole:
            self._some(self._wanted.narrowed("all"))
            self._whole = True

    def _take(self, wanted: Wanted, told: Tree) -> list[Rule]:
        sets = self._sets(told)
        rules = []
        for tree in told["rules"]:
            number = int(tree.get("number", 0))
            if number not in self._kept:
                self._kept[number] = self._rule(number, tree, sets, wanted.file)
            rules.append(self._kept[number])
        return rules

    def _sets(self, told: Tree) -> dict[str, SetTold]:
        found: dict[str, SetTold] = {}
        for name, tree in told.get("sets", {}).items():
            try:
                found[name] = SetReader(tree, self._reading.interfaces).told()
            except _STRANGE:
                continue  # the rule that looks it up becomes opaque
        return found

    # --- one rule -------------------------------------------------------------------------------

    def _rule(self, number: int, tree: Tree, sets: Mapping[str, SetTold], file: str) -> Rule:
        try:
            if self._reading.table.backend == "legacy":
                entry = legacy_xt.read(tree, self._reading.table.family, self._reading.ipset_name)
                return self._of_entry(number, entry, tree, tree)
            return self._nft_rule(number, tree, sets)
        except _STRANGE as error:
            raise BadDump(file, 0, f"rule {number}: {type(error).__name__}: {error}") from error

    def _nft_rule(self, number: int, tree: Tree, sets: Mapping[str, SetTold]) -> Rule:
        reading = self._reading
        family, userdata = reading.table.family, tree.get("userdata", "")
        expressions = tree.get("expressions", [])
        if reading.iptables:
            try:
                entry = nft_xt.read(expressions, family, reading.ipset_name, userdata)
                return self._of_entry(number, entry, tree, _counter(expressions))
            except Foreign:
                pass
        statements = nft_wire.statements(expressions, family, sets, reading.interfaces)
        comment = nft_wire.comment(userdata)
        return rule_of(reading.table, self._chain, number, statements, comment, tree.get("handle"))

    def _of_entry(self, number: int, entry: Entry, tree: Tree, counts: Tree) -> Rule:
        """By the words of iptables-save."""
        text = entry.text()
        try:
            compiled = compile_words(
                split_words(text),
                self._reading.table.family,
                lambda name: name == entry.chain,
                self._reading.ipset,
            )
            body, comment = compiled.body, compiled.comment
        except ValueError:  # a name of a list or of an interface that holds a quote
            body, comment = (Opaque(text=text),), ""
        return Rule(
            table=self._reading.table,
            chain=self._chain,
            number=number,
            text=text,
            body=body,
            comment=comment,
            handle=tree.get("handle"),
            packets=counts.get("packets"),
            bytes=counts.get("bytes"),
        )

    # --- a sequence -----------------------------------------------------------------------------

    @overload
    def __getitem__(self, index: int) -> Rule: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Rule]: ...
    def __getitem__(self, index: int | slice) -> Rule | Sequence[Rule]:
        if isinstance(index, slice):
            return [self._at(each) for each in range(*index.indices(self._count))]
        return self._at(range(self._count)[index])

    def _at(self, index: int) -> Rule:
        number = index + 1
        if number not in self._kept:
            self._some(self._wanted.narrowed("number", str(number)))
        if number not in self._kept:
            raise BadDump(self._wanted.file, 0, f"it has no rule {number} any more", "look again")
        return self._kept[number]

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Rule]:
        self._all()
        return (self._kept[number] for number in range(1, self._count + 1))


def _counter(expressions: Sequence[Tree]) -> Tree:
    return next((each["counter"] for each in expressions if "counter" in each), {})

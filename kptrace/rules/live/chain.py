"""The rules of one chain of a live node: ``LiveRules``.

Few come with the chain; of many those that are needed are asked for: by address, by a text, or as
a last resort all.

In: the chain's fact. Out: Rules as the text readers make them: of iptables by the words that
iptables-save would print, of nft by the JSON that nft would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

from kptrace.model import Value
from kptrace.model.errors import ParseError
from kptrace.rules.byte_reader import TruncatedData
from kptrace.rules.iptables import legacy_rule, nft_rule
from kptrace.rules.iptables.kernel_rule import KernelRule, NotIptablesError
from kptrace.rules.iptables.parse_rule import compile_words
from kptrace.rules.iptables.save import split_words
from kptrace.rules.live.queries import RuleQuery, in_table
from kptrace.rules.model.expressions import UnknownStatement
from kptrace.rules.model.ruleset import Rule, Rules, Table
from kptrace.rules.model.sets import Set
from kptrace.rules.nftables import kernel_rule
from kptrace.rules.nftables.data_types import UnformattableValueError
from kptrace.rules.nftables.json_ruleset import rule_of
from kptrace.rules.nftables.kernel_set import SetReader
from kptrace.rules.nftables.registers import SetInfo

Tree = Mapping[str, Any]
_STRANGE = (
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    UnformattableValueError,
    TruncatedData,
)


class RuleDecoder(Value):
    """What it takes to read the rules of a table.

    asked: gives a fact; ``iptables``: iptables-nft wrote the table, or it is a legacy one
    """

    table: Table
    asked: Callable[[RuleQuery], Tree | None]
    iptables: bool
    interfaces: Mapping[int, str]
    ipset_name: Callable[[int], str]
    ipset: Callable[[str], Set | None]


class LiveRules(Rules):
    def __init__(self, reading: RuleDecoder, chain: str, told: Tree) -> None:
        self._reading, self._chain = reading, chain
        self._wanted = in_table(reading.table, "chain", chain)
        self._count = int(told.get("count", 0))
        self._kept: dict[int, Rule] = {}
        self._whole = "rules" in told
        if self._whole:
            self._take(self._wanted, told)

    def candidates_for_destination(self, address: str) -> Iterable[Rule]:
        return self if self._whole else self._some(self._wanted.narrowed("toward", address))

    def containing_text(self, text: str) -> Iterable[Rule]:
        return self if self._whole else self._some(self._wanted.narrowed("saying", text))

    def _some(self, wanted: RuleQuery) -> list[Rule]:
        told = self._reading.asked(wanted)
        if told is None or "rules" not in told:
            text = f"the {self._count} rules of chain {self._chain} were not asked for"
            raise ParseError(wanted.file, 0, text, "trace anew; a saved run holds what was asked")
        return self._take(wanted, told)

    def _all(self) -> None:
        if not self._whole:
            self._some(self._wanted.narrowed("all"))
            self._whole = True

    def _take(self, wanted: RuleQuery, told: Tree) -> list[Rule]:
        sets = self._sets(told)
        rules = []
        for tree in told["rules"]:
            number = int(tree.get("number", 0))
            if number not in self._kept:
                self._kept[number] = self._rule(number, tree, sets, wanted.file)
            rules.append(self._kept[number])
        return rules

    def _sets(self, told: Tree) -> dict[str, SetInfo]:
        found: dict[str, SetInfo] = {}
        for name, tree in told.get("sets", {}).items():
            try:
                found[name] = SetReader(tree, self._reading.interfaces).told()
            except _STRANGE:
                continue  # the rule that looks it up becomes opaque
        return found

    # --- one rule -------------------------------------------------------------------------------

    def _rule(self, number: int, tree: Tree, sets: Mapping[str, SetInfo], file: str) -> Rule:
        try:
            if self._reading.table.backend == "legacy":
                entry = legacy_rule.read(tree, self._reading.table.family, self._reading.ipset_name)
                return self._of_entry(number, entry, tree, tree)
            return self._nft_rule(number, tree, sets)
        except _STRANGE as error:
            raise ParseError(file, 0, f"rule {number}: {type(error).__name__}: {error}") from error

    def _nft_rule(self, number: int, tree: Tree, sets: Mapping[str, SetInfo]) -> Rule:
        reading = self._reading
        family, userdata = reading.table.family, tree.get("userdata", "")
        expressions = tree.get("expressions", [])
        if reading.iptables:
            try:
                entry = nft_rule.read(expressions, family, reading.ipset_name, userdata)
                return self._of_entry(number, entry, tree, _counter(expressions))
            except NotIptablesError:
                pass
        statements = kernel_rule.statements(expressions, family, sets, reading.interfaces)
        comment = kernel_rule.comment(userdata)
        return rule_of(reading.table, self._chain, number, statements, comment, tree.get("handle"))

    def _of_entry(self, number: int, entry: KernelRule, tree: Tree, counts: Tree) -> Rule:
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
            body, comment = (UnknownStatement(text=text),), ""
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
            raise ParseError(
                self._wanted.file, 0, f"it has no rule {number} any more", "look again"
            )
        return self._kept[number]

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Rule]:
        self._all()
        return (self._kept[number] for number in range(1, self._count + 1))


def _counter(expressions: Sequence[Tree]) -> Tree:
    return next((each["counter"] for each in expressions if "counter" in each), {})

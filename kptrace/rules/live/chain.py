"""Read the rules of one chain of a live node: ``LiveRules``.

A short chain comes with its rules. Of a long one only the rules that are needed are asked for: by
destination, by a text, or at last all of them. The rules equal those of the text readers: a rule of
iptables is read from the text that iptables-save would print, one of nft from nft's JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

from kptrace.model import Value
from kptrace.model.errors import ParseError
from kptrace.rules.byte_reader import TruncatedData
from kptrace.rules.iptables import legacy_rule, nft_rule
from kptrace.rules.iptables.kernel_rule import KernelRule, NotIptablesError
from kptrace.rules.iptables.parse_rule import parse_rule_args
from kptrace.rules.iptables.save import split_args
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
_MALFORMED = (
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    UnformattableValueError,
    TruncatedData,
)


class RuleDecoder(Value):
    """What is needed to read the rules of a table.

    ask: gives the fact that answers a query, None if there is none
    iptables: iptables-nft wrote the table, or it is a legacy one
    interfaces: names by index
    ipset_name, ipset: find a set by number and by name
    """

    table: Table
    ask: Callable[[RuleQuery], Tree | None]
    iptables: bool
    interfaces: Mapping[int, str]
    ipset_name: Callable[[int], str]
    ipset: Callable[[str], Set | None]


class LiveRules(Rules):
    """The rules of a chain.

    Raises ParseError for a fact that was not recorded or has another form.
    """

    def __init__(self, decoder: RuleDecoder, chain: str, fact: Tree) -> None:
        self._decoder, self._chain = decoder, chain
        self._query = in_table(decoder.table, "chain", chain)
        self._count = int(fact.get("count", 0))
        self._by_number: dict[int, Rule] = {}
        self._complete = "rules" in fact
        if self._complete:
            self._take(self._query, fact)

    def candidates_for_destination(self, address: str) -> Iterable[Rule]:
        return (
            self if self._complete else self._ask(self._query.part_query("by-destination", address))
        )

    def containing_text(self, text: str) -> Iterable[Rule]:
        return self if self._complete else self._ask(self._query.part_query("containing", text))

    def _ask(self, query: RuleQuery) -> list[Rule]:
        fact = self._decoder.ask(query)
        if fact is None or "rules" not in fact:
            text = f"the {self._count} rules of chain {self._chain} were not asked for"
            raise ParseError(query.file, 0, text, "trace anew; a saved run holds what was asked")
        return self._take(query, fact)

    def _read_all(self) -> None:
        if not self._complete:
            self._ask(self._query.part_query("all"))
            self._complete = True

    def _take(self, query: RuleQuery, fact: Tree) -> list[Rule]:
        sets = self._sets(fact)
        rules = []
        for tree in fact["rules"]:
            number = int(tree.get("number", 0))
            if number not in self._by_number:
                self._by_number[number] = self._rule(number, tree, sets, query.file)
            rules.append(self._by_number[number])
        return rules

    def _sets(self, fact: Tree) -> dict[str, SetInfo]:
        infos: dict[str, SetInfo] = {}
        for name, tree in fact.get("sets", {}).items():
            try:
                infos[name] = SetReader(tree, self._decoder.interfaces).info()
            except _MALFORMED:
                continue  # the rule that looks it up becomes opaque
        return infos

    # --- one rule -------------------------------------------------------------------------------

    def _rule(self, number: int, tree: Tree, sets: Mapping[str, SetInfo], file: str) -> Rule:
        try:
            if self._decoder.table.backend == "legacy":
                entry = legacy_rule.read(tree, self._decoder.table.family, self._decoder.ipset_name)
                return self._iptables_rule(number, entry, tree, tree)
            return self._nft_rule(number, tree, sets)
        except _MALFORMED as error:
            raise ParseError(file, 0, f"rule {number}: {type(error).__name__}: {error}") from error

    def _nft_rule(self, number: int, tree: Tree, sets: Mapping[str, SetInfo]) -> Rule:
        decoder = self._decoder
        family, userdata = decoder.table.family, tree.get("userdata", "")
        expressions = tree.get("expressions", [])
        if decoder.iptables:
            try:
                entry = nft_rule.read(expressions, family, decoder.ipset_name, userdata)
                return self._iptables_rule(number, entry, tree, _counter(expressions))
            except NotIptablesError:
                pass
        statements = kernel_rule.statements(expressions, family, sets, decoder.interfaces)
        comment = kernel_rule.comment(userdata)
        return rule_of(decoder.table, self._chain, number, statements, comment, tree.get("handle"))

    def _iptables_rule(self, number: int, parsed: KernelRule, tree: Tree, counts: Tree) -> Rule:
        """A rule of iptables, parsed from the text that iptables-save prints."""
        text = parsed.text()
        try:
            compiled = parse_rule_args(
                split_args(text),
                self._decoder.table.family,
                lambda name: name == parsed.chain,
                self._decoder.ipset,
            )
            body, comment = compiled.body, compiled.comment
        except ValueError:  # a name of a list or of an interface that holds a quote
            body, comment = (UnknownStatement(text=text),), ""
        return Rule(
            table=self._decoder.table,
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
            return [self._rule_at(position) for position in range(*index.indices(self._count))]
        return self._rule_at(range(self._count)[index])

    def _rule_at(self, index: int) -> Rule:
        number = index + 1
        if number not in self._by_number:
            self._ask(self._query.part_query("number", str(number)))
        if number not in self._by_number:
            raise ParseError(self._query.file, 0, f"it has no rule {number} any more", "look again")
        return self._by_number[number]

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Rule]:
        self._read_all()
        return (self._by_number[number] for number in range(1, self._count + 1))


def _counter(expressions: Sequence[Tree]) -> Tree:
    return next(
        (expression["counter"] for expression in expressions if "counter" in expression), {}
    )

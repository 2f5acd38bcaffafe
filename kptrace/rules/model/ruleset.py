"""The rules of one network namespace: Table, Chain, Rule, and the Ruleset over all.

A RulesetSource has some tables: an iptables-save text, ``nft -j`` JSON, an ``ipset save`` text, a
live node. The Ruleset of all sources finds base chains by hook, chains and sets by name. Nothing is
parsed before it is asked for: among 10,000 Services a simulation reaches some twenty chains.

The kernel runs the base chains of a hook by ascending priority; of two with the same priority the
one registered later runs first (nf_hook_entries_grow inserts before its equals). Registration
order is known between nft tables only (handles grow); a legacy table counts as the oldest.

The parts of a rule are in ``expressions.py``, sets in ``sets.py``, IPVS services in
``rules/ipvs/ipvsadm.py``, how much of the rules was read in ``coverage.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal, overload

from kptrace.model import RuleRef, Value
from kptrace.rules.model.coverage import RulesetCoverage
from kptrace.rules.model.expressions import Part, SetRef
from kptrace.rules.model.sets import Set

if TYPE_CHECKING:
    from kptrace.rules.ipvs.ipvsadm import VirtualService

Hook = Literal["prerouting", "input", "forward", "output", "postrouting", "ingress", "egress"]


class Table(Value, order=True):
    """The identity of a table. The tables of iptables-nft have backend ``nft``.

    family: ip, ip6, inet, arp, bridge, netdev
    """

    backend: Literal["legacy", "nft"]
    family: str
    name: str


class Rule(Value):
    """One rule.

    number: in its chain, from 1
    text: the rule as its source prints it, without ``-A CHAIN``
    packets, bytes: its counters, None if the source does not have them
    """

    table: Table
    chain: str
    number: int
    text: str
    body: tuple[Part, ...] = ()
    comment: str = ""
    handle: int | None = None
    packets: int | None = None
    bytes: int | None = None

    def ref(self, description: str = "") -> RuleRef:
        return RuleRef(
            backend=self.table.backend,
            family=self.table.family,
            table=self.table.name,
            chain=self.chain,
            number=self.number,
            text=self.text,
            description=description,
        )


class Rules(Sequence[Rule]):
    """The rules of a chain in order. A reader of big texts parses those that are asked for."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._rules = tuple(rules)

    def candidates_for_destination(self, address: str) -> Iterable[Rule]:
        """The rules in order, without some that surely do not match a packet to this address.

        A simulation that runs these instead of the whole chain has the same result, sooner.
        """
        return self

    def containing_text(self, text: str) -> Iterable[Rule]:
        """The rules in order, without some that surely do not contain this text."""
        return self

    @overload
    def __getitem__(self, index: int) -> Rule: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Rule]: ...
    def __getitem__(self, index: int | slice) -> Rule | Sequence[Rule]:
        return self._rules[index]

    def __len__(self) -> int:
        return len(self._rules)

    def __iter__(self) -> Iterator[Rule]:
        return iter(self._rules)


class Chain(Value):
    """A chain. A base chain has ``hook``, ``priority``, ``policy`` and ``type``; others have none.

    type: filter, nat, route
    device: of netdev and inet ingress chains
    age: (table handle, chain handle) if known; the greater, the later registered
    packets, bytes: that the policy decided, None if the source does not have them
    """

    table: Table
    name: str
    rules: Rules = Rules()
    hook: str = ""
    priority: int = 0
    policy: Literal["accept", "drop"] = "accept"
    type: str = ""
    device: str = ""
    age: tuple[int, int] = (0, 0)
    packets: int | None = None
    bytes: int | None = None


class RulesetSource(ABC):
    """Has some tables, or the ipsets (table None), of a namespace."""

    @abstractmethod
    def tables(self) -> Sequence[Table]: ...

    @abstractmethod
    def base_chains(self, table: Table) -> Sequence[Chain]:
        """The chains that the kernel calls; empty for a dormant table."""

    @abstractmethod
    def chain(self, table: Table, name: str) -> Chain | None: ...

    @abstractmethod
    def chain_names(self, table: Table) -> Sequence[str]: ...

    def set(self, table: Table | None, name: str) -> Set | None:
        return None

    def set_names(self, table: Table | None) -> Sequence[str]:
        return ()


class InMemorySource(RulesetSource):
    """Chains and sets in memory, for tests and small readers."""

    def __init__(
        self,
        chains: Iterable[Chain] = (),
        sets: Mapping[Table | None, Iterable[Set]] | None = None,
    ) -> None:
        self._chains: dict[Table, dict[str, Chain]] = {}
        for chain in chains:
            self._chains.setdefault(chain.table, {})[chain.name] = chain
        self._sets = {
            table: {set_.name: set_ for set_ in sets_} for table, sets_ in (sets or {}).items()
        }

    def tables(self) -> Sequence[Table]:
        return tuple(self._chains)

    def base_chains(self, table: Table) -> Sequence[Chain]:
        return [chain for chain in self._chains.get(table, {}).values() if chain.hook]

    def chain(self, table: Table, name: str) -> Chain | None:
        return self._chains.get(table, {}).get(name)

    def chain_names(self, table: Table) -> Sequence[str]:
        return tuple(self._chains.get(table, ()))

    def set(self, table: Table | None, name: str) -> Set | None:
        return self._sets.get(table, {}).get(name)

    def set_names(self, table: Table | None) -> Sequence[str]:
        return tuple(self._sets.get(table, ()))


_WHOLE = RulesetCoverage()


class Ruleset:
    """All tables of one namespace. Where two sources hold the same table, the first is used.

    missing: files that were not there, so their rules are not known
    coverage: how much of the node's rules was read; a function is called on demand
    """

    def __init__(
        self,
        sources: Iterable[RulesetSource] = (),
        ipvs: Sequence[VirtualService] = (),
        missing: Sequence[str] = (),
        coverage: RulesetCoverage | Callable[[], RulesetCoverage] = _WHOLE,
    ) -> None:
        self._sources = tuple(sources)
        self._of: dict[Table, RulesetSource] = {}
        for source in self._sources:
            for table in source.tables():
                self._of.setdefault(table, source)
        self._hooks: dict[tuple[str, str], tuple[Chain, ...]] = {}
        self._chains: dict[tuple[Table, str], Chain | None] = {}
        self._sets: dict[tuple[Table | None, str], Set | None] = {}
        self.ipvs = tuple(ipvs)
        self.missing = tuple(missing)
        self._coverage = coverage

    @cached_property
    def coverage(self) -> RulesetCoverage:
        """Which stores of rules were read whole, partly or not at all: ask before concluding
        anything from an absence.
        """
        return self._coverage() if callable(self._coverage) else self._coverage

    def tables(self) -> tuple[Table, ...]:
        return tuple(self._of)

    def base_chains(self, family: str, hook: str) -> tuple[Chain, ...]:
        """The chains that a packet of this family traverses at a hook, in the kernel's order.

        For ip and ip6 these include the chains of inet tables.
        """
        key = (family, hook)
        if key not in self._hooks:
            families = {family, "inet"} if family in ("ip", "ip6") else {family}
            chains = [
                chain
                for table, source in self._of.items()
                if table.family in families
                for chain in source.base_chains(table)
                if chain.hook == hook
            ]
            newest_first = sorted(chains, key=lambda chain: chain.age, reverse=True)
            self._hooks[key] = tuple(sorted(newest_first, key=lambda chain: chain.priority))
        return self._hooks[key]

    def chain(self, table: Table, name: str) -> Chain | None:
        key = (table, name)
        if key not in self._chains:
            source = self._of.get(table)
            self._chains[key] = source.chain(table, name) if source else None
        return self._chains[key]

    def chain_names(self, table: Table) -> Sequence[str]:
        source = self._of.get(table)
        return source.chain_names(table) if source else ()

    def set(self, table: Table | None, name: str) -> Set | None:
        """A set of an nft table, or with table None an ipset."""
        key = (table, name)
        if key not in self._sets:
            sources = self._sources if table is None else filter(None, [self._of.get(table)])
            sets = (source.set(table, name) for source in sources)
            self._sets[key] = next((set_ for set_ in sets if set_ is not None), None)
        return self._sets[key]

    def set_names(self, table: Table | None) -> Sequence[str]:
        if table is None:
            return [name for source in self._sources for name in source.set_names(None)]
        source = self._of.get(table)
        return source.set_names(table) if source else ()

    def referenced_set(self, rule: Rule, ref: SetRef) -> Set | None:
        """The set that a reference in a rule means."""
        return self.set(None if ref.ipset else rule.table, ref.name)

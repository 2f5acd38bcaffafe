"""Read a live node's rules: each chain, set and element is asked for when it is reached.

The tables, chains, rules and sets equal those that the text readers make of the same kernel's
``-save`` texts and JSON.

A table of iptables-nft is known by its base chains (nft_is_chain_compatible in iptables); a rule in
it that iptables could not have written is read as nft's own. If a fact is not available, its chain
or set does not exist for the reader: a chain that cannot be followed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import msgspec

from kptrace.model.errors import ParseError
from kptrace.rules.ipset.kernel_set import save_text
from kptrace.rules.ipset.save import IpsetSave
from kptrace.rules.iptables.base_chains import HOOKS, PRIORITIES, priority_of, type_of
from kptrace.rules.live.chain import LiveRules, RuleDecoder
from kptrace.rules.live.elements import LiveElements, encodable
from kptrace.rules.live.queries import TABLES, RuleQuery, in_ipset, in_table
from kptrace.rules.model.ruleset import Chain, RulesetSource, Table
from kptrace.rules.model.sets import Set, SetElements
from kptrace.rules.nftables.data_types import UnformattableValueError
from kptrace.rules.nftables.json_ruleset import element_of
from kptrace.rules.nftables.kernel_set import SetReader

Tree = Mapping[str, Any]
Ask = Callable[[Sequence[str]], Mapping[str, str]]

_HOOK_NAMES = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
_OTHER_HOOKS = {"netdev": ("ingress", "egress"), "arp": ("input", "output", "forward")}
_DORMANT = 1
_DROP = 0
_HINT = "look again; if it stays so, this is a bug: please report the file"
_MAX_PREFETCHED = 16  # to be read before it is known which of them are taken
_MALFORMED = (KeyError, ValueError, TypeError, AttributeError, IndexError, UnformattableValueError)


class LiveSource(RulesetSource):
    """The rules of one namespace.

    ``ask``: gives the facts of some names (queries.py): an agent, or the files of a saved run.
    Raises ParseError for a fact of another form.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._facts: dict[str, Tree | None] = {}
        self._ipsets: dict[str, Set | None] = {}
        self._chains: dict[tuple[Table, str], Chain | None] = {}

    # --- facts ----------------------------------------------------------------------------------

    def fact(self, query: RuleQuery) -> Tree | None:
        """The fact that answers a query; None if there is none."""
        return self._fact(query.file)

    def _fact(self, file: str) -> Tree | None:
        self._fetch([file])
        return self._facts[file]

    def _fetch(self, files: Sequence[str]) -> None:
        """Ask for the facts that are not known yet, all at once."""
        unknown = [file for file in files if file not in self._facts]
        if unknown:
            texts = self._ask(unknown)
            for file in unknown:
                self._facts[file] = self._read(file, texts[file]) if file in texts else None

    def _read(self, file: str, text: str) -> Tree:
        try:
            return msgspec.json.decode(text, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            raise ParseError(file, 0, str(error), _HINT) from None

    @cached_property
    def _index(self) -> Tree:
        """The fact TABLES. Numbers in facts have the byte order of the node."""
        facts = self._fact(TABLES) or {}
        if facts.get("byteorder", sys.byteorder) != sys.byteorder:
            text = (
                f"the numbers of a {facts['byteorder']}-endian machine cannot be read on this one"
            )
            raise ParseError(TABLES, 0, text, "replay it on a machine of the same kind")
        return facts

    @property
    def has_tables(self) -> bool:
        """Whether the node gave its tables."""
        return bool(self._index)

    @cached_property
    def _interfaces(self) -> dict[int, str]:
        return {int(index): name for index, name in self._index.get("interfaces", {}).items()}

    # --- tables and chains ----------------------------------------------------------------------

    @cached_property
    def _nft(self) -> dict[Table, Tree]:
        return {
            Table(backend="nft", family=tree["family"], name=tree["name"]): tree
            for tree in self._index.get("tables", ())
        }

    @cached_property
    def _legacy(self) -> tuple[Table, ...]:
        return tuple(
            Table(backend="legacy", family=family, name=name)
            for family, names in self._index.get("legacy", {}).items()
            for name in names
        )

    def tables(self) -> Sequence[Table]:
        return (*self._legacy, *self._nft)

    @cached_property
    def _hooked(self) -> dict[Table, dict[str, Tree]]:
        hooked: dict[Table, dict[str, Tree]] = {}
        for tree in self._index.get("base chains", ()):
            table = Table(backend="nft", family=tree["family"], name=tree["table"])
            hooked.setdefault(table, {})[tree["name"]] = tree
        return hooked

    def base_chains(self, table: Table) -> Sequence[Chain]:
        self._fetch(self._entry_queries)
        if table.backend == "legacy":
            names = [tree["name"] for tree in self._kernel_chains(table)]
        elif self._nft[table].get("flags", 0) & _DORMANT:
            return ()
        else:
            names = list(self._hooked.get(table, ()))
        return [chain for name in names if (chain := self.chain(table, name))]

    @cached_property
    def _entry_queries(self) -> list[str]:
        """The facts of all base chains, which every simulation needs."""
        hooked = ((table, name) for table, chains in self._hooked.items() for name in chains)
        return [
            *(in_table(table, "table").file for table in self._legacy),
            *(in_table(table, "chain", name).file for table, name in hooked),
        ]

    def chain(self, table: Table, name: str) -> Chain | None:
        key = (table, name)
        if key not in self._chains:
            self._chains[key] = self._chain(table, name)
        return self._chains[key]

    def _chain(self, table: Table, name: str) -> Chain | None:
        fact = self.fact(in_table(table, "chain", name))
        if fact is None or fact.get("chain") is None:
            return None
        targets = _jump_targets(fact)
        if len(targets) <= _MAX_PREFETCHED:
            self._fetch([in_table(table, "chain", target).file for target in targets])
        rules = LiveRules(self._decoder(table), name, fact)
        if table.backend == "legacy":
            return self._legacy_chain(table, name, rules)
        return self._nft_chain(table, fact["chain"], rules)

    def _kernel_chains(self, table: Table) -> Sequence[Tree]:
        fact = self.fact(in_table(table, "table")) or {}
        chains = tuple(fact.get("chains", ()))
        self._fetch([in_table(table, "chain", tree["name"]).file for tree in chains])
        return chains

    def _legacy_chain(self, table: Table, name: str, rules: LiveRules) -> Chain:
        head = next((tree for tree in self._kernel_chains(table) if tree["name"] == name), None)
        if head is None:
            return Chain(table=table, name=name, rules=rules)
        hook = HOOKS[name]
        return Chain(
            table=table,
            name=name,
            rules=rules,
            hook=hook,
            priority=priority_of(table, hook),
            policy=_policy(head),
            type=type_of(table.name, hook),
            packets=head["packets"],
            bytes=head["bytes"],
        )

    def _nft_chain(self, table: Table, tree: Tree, rules: LiveRules) -> Chain:
        age = (self._nft[table].get("handle", 0), tree.get("handle", 0))
        hook = tree.get("hook")
        if hook is None:
            return Chain(table=table, name=tree["name"], rules=rules, age=age)
        counters = tree.get("counters", {})
        return Chain(
            table=table,
            name=tree["name"],
            rules=rules,
            hook=_hook(table.family, hook["hooknum"]),
            priority=hook["priority"],
            policy=_policy(tree),
            type=tree.get("type", ""),
            device=",".join([hook["dev"]] if "dev" in hook else hook.get("devs", ())),
            age=age,
            packets=counters.get("packets"),
            bytes=counters.get("bytes"),
        )

    def chain_names(self, table: Table) -> Sequence[str]:
        return tuple((self.fact(in_table(table, "chains")) or {}).get("names", ()))

    def _decoder(self, table: Table) -> RuleDecoder:
        return RuleDecoder(
            table=table,
            ask=self.fact,
            iptables=self._is_iptables(table),
            interfaces=self._interfaces,
            ipset_name=self._ipset_name,
            ipset=self._ipset,
        )

    def _is_iptables(self, table: Table) -> bool:
        if table.family not in ("ip", "ip6") or table.name not in PRIORITIES:
            return False
        hooked = self._hooked.get(table, {}).values()
        return table.backend == "legacy" or all(
            HOOKS.get(tree["name"]) == _hook(table.family, tree["hook"]["hooknum"])
            for tree in hooked
        )

    # --- sets -----------------------------------------------------------------------------------

    def set(self, table: Table | None, name: str) -> Set | None:
        if table is None:
            return self._ipset(name)
        query = in_table(table, "set", name)
        fact = self.fact(query)
        if fact is None or fact.get("set") is None:
            return None
        try:
            return self._set(query, fact)
        except _MALFORMED as error:
            raise ParseError(query.file, 0, f"{type(error).__name__}: {error}", _HINT) from error

    def _set(self, query: RuleQuery, fact: Tree) -> Set:
        reader = SetReader(fact["set"], self._interfaces)
        types, data = reader.key.types, reader.data.types
        kinds = " . ".join(types), " . ".join(data)

        exact = encodable(types) and not reader.has_intervals

        def read(trees: Sequence[Tree]) -> list[Any]:
            return [element_of(element_tree, *kinds) for element_tree in reader.elements(trees)]

        members = (
            SetElements(read(fact["elements"]))
            if "elements" in fact
            else LiveElements(query, self.fact, read, types if exact else None)
        )
        return Set(
            name=query.name,
            kind="set" if not data else "vmap" if data == ("verdict",) else "map",
            type=types,
            members=members,
            flags=reader.flag_names(),
            timeout=reader.timeout,
            comment=reader.comment,
        )

    def set_names(self, table: Table | None) -> Sequence[str]:
        query = in_ipset("sets") if table is None else in_table(table, "sets")
        return tuple((self.fact(query) or {}).get("names", ()))

    def _ipset_name(self, number: int) -> str:
        fact = self.fact(in_ipset("number", str(number))) or {}
        return str(fact.get("name") or f"#{number}")

    def _ipset(self, name: str) -> Set | None:
        if name not in self._ipsets:
            texts = self._save_texts(name, 0)
            file = in_ipset("set", name).file
            self._ipsets[name] = IpsetSave("".join(texts), file).set(None, name) if texts else None
        return self._ipsets[name]

    def _save_texts(self, name: str, depth: int) -> list[str]:
        """The set as ``ipset save`` prints it, after the sets that it lists."""
        query = in_ipset("set", name)
        tree = (self.fact(query) or {}).get("set")
        if tree is None or depth > _MAX_DEPTH:
            return []
        try:
            inner = [
                bytes.fromhex(element["name"]).split(b"\0")[0].decode(errors="replace")
                for element in (tree["elements"] if tree["type"] == "list:set" else ())
            ]
            own_text = save_text(tree)
        except _MALFORMED as error:
            raise ParseError(query.file, 0, f"{type(error).__name__}: {error}", _HINT) from error
        return [
            *(text for inner_name in inner for text in self._save_texts(inner_name, depth + 1)),
            own_text,
        ]


_MAX_DEPTH = 1  # a list:set holds no lists


def _jump_targets(fact: Tree) -> list[str]:
    """The chains that a chain's rules jump to without a map."""
    chains: dict[str, None] = {}
    try:
        for rule in fact.get("rules", ()):
            for expression in rule.get("expressions", ()):
                data = expression.get("immediate", {}).get("data")
                if isinstance(data, Mapping) and "chain" in data:
                    chains[str(data["chain"])] = None
    except _MALFORMED:
        return []  # who reads the rules will say so
    return list(chains)


def _policy(tree: Tree) -> Literal["accept", "drop"]:
    return "drop" if tree.get("policy") == _DROP else "accept"


def _hook(family: str, number: int) -> str:
    names = _OTHER_HOOKS.get(family, _HOOK_NAMES)
    return names[number] if number < len(names) else ""

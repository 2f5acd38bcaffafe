"""``nft -j list ruleset`` -> a Source. libnftables-json(5) is the grammar.

The text is decoded once into its objects; the expressions of a rule and the elements of a set stay
raw until the chain or set is asked for.

Traps, seen in nft 1.0.6: ``dnat ip addr . port to ... map`` has no ``port`` (the map's data is a
concatenation); an element with a comment or timeout is wrapped in ``elem``; ``-s`` leaves counters
null. Newer ones can write a set's type as ``{"typeof": expression}``.

iptables-nft's own tables are listed here too, but with ``xt`` objects that lack all parameters.
It is the same kernel table when backend, family and name agree, so no guessing by content is
needed: the Ruleset takes such a table from iptables-nft-save, and from here only if that file is
missing or does not know the table; then its ``xt`` parts are opaque. What only nft tells of it is
the age of its chains (``ages``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from kptrace.model import Value
from kptrace.model.errors import ParseError
from kptrace.rules.iptables.base_chains import PRIORITIES
from kptrace.rules.model.expressions import Expr, Field, InterfaceWildcard
from kptrace.rules.model.ruleset import Chain, Rule, Rules, RulesetSource, Table
from kptrace.rules.model.sets import Element, Set, SetElements
from kptrace.rules.nftables import json_expressions, json_statements, text_format
from kptrace.rules.nftables.json_expressions import Json, UnknownExpressionError

_HINT = "take it again with: nft -j list ruleset"


_UNREADABLE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    UnknownExpressionError,
)


class _TableJson(Value):
    family: str
    name: str
    handle: int = 0
    flags: object = ()


class _ChainJson(Value):
    family: str
    table: str
    name: str
    handle: int = 0
    type: str = ""
    hook: str = ""
    prio: int = 0
    policy: Literal["accept", "drop"] = "accept"
    dev: str | list[str] = ""


class _RuleJson(Value):
    family: str
    table: str
    chain: str
    expr: msgspec.Raw = msgspec.Raw(b"[]")
    handle: int | None = None
    comment: str = ""


class _SetJson(Value):
    family: str
    table: str
    name: str
    type: msgspec.Raw
    map: msgspec.Raw = msgspec.Raw(b"null")
    elem: msgspec.Raw = msgspec.Raw(b"[]")
    flags: str | list[str] = ()  # type: ignore[assignment]
    timeout: int | None = None
    comment: str = ""


class _ElementJson(Value):
    """Elements that are listed apart from their set."""

    family: str
    table: str
    name: str
    elem: msgspec.Raw


class _Object(Value):
    """One of these; objects of other kinds (flowtable, ct helper, ...) are not rules."""

    table: _TableJson | None = None
    chain: _ChainJson | None = None
    rule: _RuleJson | None = None
    set: _SetJson | None = None
    map: _SetJson | None = None
    element: _ElementJson | None = None


class _Document(Value):
    nftables: list[_Object]


class _Home:
    """What one table holds."""

    def __init__(self, json: _TableJson) -> None:
        self.json = json
        self.chains: dict[str, _ChainJson] = {}
        self.rules: dict[str, list[_RuleJson]] = {}
        self.sets: dict[str, _SetJson] = {}
        self.more: dict[str, list[msgspec.Raw]] = {}
        # nft 1.0.6 prints a table's only flag out of memory that it has freed: it can be anything
        self.dormant = "dormant" in (json.flags if isinstance(json.flags, str | list) else ())


class NftRuleset(RulesetSource):
    """One file. ``ages``: (table handle, chain handle) of each chain: the order of registration."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self._homes: dict[Table, _Home] = {}
        for each in self._decode(text):
            self._take(each)
        self.ages = {
            (table, chain.name): (home.json.handle, chain.handle)
            for table, home in self._homes.items()
            for chain in home.chains.values()
        }

    def tables(self) -> Sequence[Table]:
        return tuple(self._homes)

    def iptables_tables(self, family: str) -> Sequence[Table]:
        """The tables of this family that have a name of iptables' own."""
        return [
            table for table in self._homes if table.family == family and table.name in PRIORITIES
        ]

    def has_opaque_rules(self, family: str) -> bool:
        """Whether rules of iptables-nft are listed without what they match and do: as ``xt``."""
        return any(
            b'"xt"' in bytes(rule.expr)
            for table in self.iptables_tables(family)
            for rules in self._homes[table].rules.values()
            for rule in rules
        )

    def base_chains(self, table: Table) -> Sequence[Chain]:
        home = self._homes[table]
        if home.dormant:
            return ()
        hooked = [chain.name for chain in home.chains.values() if chain.hook]
        return [chain for name in hooked if (chain := self.chain(table, name))]

    def chain(self, table: Table, name: str) -> Chain | None:
        home = self._homes[table]
        json = home.chains.get(name)
        if json is None:
            return None
        given = home.rules.get(name, ())
        return Chain(
            table=table,
            name=name,
            rules=Rules(self._rule(table, each, n) for n, each in enumerate(given, start=1)),
            hook=json.hook,
            priority=json.prio,
            policy=json.policy,
            type=json.type,
            device=",".join(_listed(json.dev)),
            age=self.ages[table, name],
        )

    def chain_names(self, table: Table) -> Sequence[str]:
        return tuple(self._homes[table].chains)

    def set(self, table: Table | None, name: str) -> Set | None:
        json = self._homes[table].sets.get(name) if table else None
        if table is None or json is None:
            return None
        try:
            return self._set(self._homes[table], json)
        except _UNREADABLE as error:
            raise ParseError(self.name, 0, f"set {name} of {table.name}: {error}", _HINT) from error

    def set_names(self, table: Table | None) -> Sequence[str]:
        return tuple(self._homes[table].sets) if table else ()

    # --- reading ------------------------------------------------------------------------------

    def _decode(self, text: str) -> list[_Object]:
        data = text.encode(errors="replace")
        try:
            return msgspec.json.decode(data, type=_Document).nftables
        except (msgspec.DecodeError, RecursionError) as error:
            byte = re.search(r"byte (\d+)", str(error))
            line = data.count(b"\n", 0, int(byte.group(1))) + 1 if byte else 0
            raise ParseError(self.name, line, str(error), _HINT) from error

    def _take(self, given: _Object) -> None:
        if given.table:
            table = Table(backend="nft", family=given.table.family, name=given.table.name)
            self._homes[table] = _Home(given.table)
        elif given.chain:
            self._home(given.chain).chains[given.chain.name] = given.chain
        elif given.rule:
            home = self._home(given.rule)
            if given.rule.chain not in home.chains:
                raise ParseError(
                    self.name, 0, f"a rule of chain {given.rule.chain}, which is not there"
                )
            home.rules.setdefault(given.rule.chain, []).append(given.rule)
        elif found := given.set or given.map:
            self._home(found).sets[found.name] = found
        elif given.element:
            more = self._home(given.element).more
            more.setdefault(given.element.name, []).append(given.element.elem)

    def _home(self, of: _ChainJson | _RuleJson | _SetJson | _ElementJson) -> _Home:
        table = Table(backend="nft", family=of.family, name=of.table)
        if table not in self._homes:
            raise ParseError(self.name, 0, f"table {of.family} {of.table} is not there", _HINT)
        return self._homes[table]

    def _rule(self, table: Table, json: _RuleJson, number: int) -> Rule:
        statements = _decoded(json.expr)
        if not isinstance(statements, list):
            raise ParseError(self.name, 0, f"rule {number} of {json.chain} has no expr list", _HINT)
        try:
            return rule_of(table, json.chain, number, statements, json.comment, json.handle)
        except RecursionError as error:
            raise ParseError(self.name, 0, f"rule {number} of {json.chain} is too deep") from error

    def _set(self, home: _Home, json: _SetJson) -> Set:
        types = _types(_decoded(json.type))
        data = _types(_decoded(json.map))
        listed = [_decoded(json.elem), *map(_decoded, home.more.get(json.name, ()))]
        key_kind, data_kind = " . ".join(types), " . ".join(data)
        return Set(
            name=json.name,
            kind="set" if not data else "vmap" if data == ("verdict",) else "map",
            type=types,
            members=SetElements(
                element_of(each, key_kind, data_kind) for some in listed for each in some
            ),
            flags=_listed(json.flags),
            timeout=json.timeout,
            comment=json.comment,
        )


def rule_of(
    table: Table,
    chain: str,
    number: int,
    statements: Sequence[Json],
    comment: str,
    handle: int | None,
) -> Rule:
    """A rule from its statements as ``nft -j`` has them."""
    counter: dict[str, int] = next((each["counter"] for each in statements if _counts(each)), {})
    return Rule(
        table=table,
        chain=chain,
        number=number,
        text=text_format.line(statements, table.family, comment),
        body=json_statements.body(statements),
        comment=comment,
        handle=handle,
        packets=counter.get("packets"),
        bytes=counter.get("bytes"),
    )


def _counts(statement: Json) -> bool:
    return isinstance(statement, dict) and isinstance(statement.get("counter"), dict)


def _decoded(raw: msgspec.Raw) -> Json:
    return msgspec.json.decode(raw)


def _listed(value: str | Sequence[str]) -> tuple[str, ...]:
    """nft writes one as a text and several as a list."""
    if isinstance(value, str):
        return (value,) if value else ()
    return tuple(value)


def _types(given: Json) -> tuple[str, ...]:
    """``ipv4_addr`` or a list of such; newer nft also the expression whose type it is."""
    if isinstance(given, dict):
        given = given["typeof"]
        parts = given.get("concat", [given])
        return tuple(_type_of(json_expressions.expression(part)) for part in parts)
    return _listed(given or ())


def _type_of(expr: Expr) -> str:
    key = expr.key if isinstance(expr, Field) else ""
    for end, name in _TYPES.items():
        if key.endswith(end):
            return name.format(6 if key.startswith("ip6 ") else 4)
    return "unknown"


_TYPES = {
    " saddr": "ipv{}_addr",
    " daddr": "ipv{}_addr",
    " sport": "inet_service",
    " dport": "inet_service",
    " l4proto": "inet_proto",
    " protocol": "inet_proto",
    "ifname": "ifname",
    " mark": "mark",
}


def element_of(given: Json, key_kind: str, data_kind: str) -> Element:
    data = None
    if data_kind:
        given, datum = given
        data = json_expressions.datum(datum, data_kind)
    inner = {"val": given}
    if isinstance(given, dict) and "elem" in given:
        inner = given["elem"]
    whole = inner["val"] == "*"
    return Element(
        key=InterfaceWildcard(start="")
        if whole
        else json_expressions.expression(inner["val"], key_kind),
        data=data,
        timeout=inner.get("timeout"),
        expires=inner.get("expires"),
        comment=inner.get("comment", ""),
    )

"""Read ``nft -j list ruleset`` (libnftables-json(5)).

The text is decoded once into its objects; the expressions of a rule and the elements of a set stay
raw until the chain or set is asked for.

Peculiarities of nft 1.0.6: ``dnat ip addr . port to ... map`` has no ``port`` (the map's data is a
concatenation); an element with a comment or timeout is wrapped in ``elem``; with ``-s`` counters
are null. Newer versions can write a set's type as ``{"typeof": expression}``.

The tables of iptables-nft are listed too, but with ``xt`` objects that lack all parameters. Tables
with the same family and name are the same kernel table: the Ruleset takes such a table from
iptables-nft-save, and from here only if that save is missing or lacks the table; then its ``xt``
parts are opaque. Only nft lists the age of its chains (``ages``).
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

_XT = re.compile(rb'"xt"\s*:\s*\{[^{}]*\}')  # of these a comment is always true
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
    """Elements that are listed separately from their set."""

    family: str
    table: str
    name: str
    elem: msgspec.Raw


class _Object(Value):
    """One object; objects of other kinds (flowtable, ct helper, ...) are ignored."""

    table: _TableJson | None = None
    chain: _ChainJson | None = None
    rule: _RuleJson | None = None
    set: _SetJson | None = None
    map: _SetJson | None = None
    element: _ElementJson | None = None


class _Document(Value):
    nftables: list[_Object]


class _TableContent:
    """The objects of one table."""

    def __init__(self, json: _TableJson) -> None:
        self.json = json
        self.chains: dict[str, _ChainJson] = {}
        self.rules: dict[str, list[_RuleJson]] = {}
        self.sets: dict[str, _SetJson] = {}
        self.added: dict[str, list[msgspec.Raw]] = {}
        # nft 1.0.6 prints a table's only flag out of memory that it has freed: it can be anything
        self.dormant = "dormant" in (json.flags if isinstance(json.flags, str | list) else ())


class NftRuleset(RulesetSource):
    """One file.

    ages: (table handle, chain handle) of each chain: the order of registration

    Raises ParseError for a text that is no such JSON, and for an object whose table is not there.
    """

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self._contents: dict[Table, _TableContent] = {}
        for item in self._decode(text):
            self._take(item)
        self.ages = {
            (table, chain.name): (content.json.handle, chain.handle)
            for table, content in self._contents.items()
            for chain in content.chains.values()
        }

    def tables(self) -> Sequence[Table]:
        return tuple(self._contents)

    def iptables_tables(self, family: str) -> Sequence[Table]:
        """The tables of this family that have a name of iptables' own."""
        return [
            table for table in self._contents if table.family == family and table.name in PRIORITIES
        ]

    def has_opaque_rules(self, family: str) -> bool:
        """Whether rules of iptables-nft are listed without what they match and do: as ``xt``."""
        return any(
            b"comment" not in xt
            for table in self.iptables_tables(family)
            for rules in self._contents[table].rules.values()
            for rule in rules
            for xt in _XT.findall(bytes(rule.expr))
        )

    def base_chains(self, table: Table) -> Sequence[Chain]:
        content = self._contents[table]
        if content.dormant:
            return ()
        hooked = [chain.name for chain in content.chains.values() if chain.hook]
        return [chain for name in hooked if (chain := self.chain(table, name))]

    def chain(self, table: Table, name: str) -> Chain | None:
        content = self._contents[table]
        json = content.chains.get(name)
        if json is None:
            return None
        rules = content.rules.get(name, ())
        return Chain(
            table=table,
            name=name,
            rules=Rules(self._rule(table, item, n) for n, item in enumerate(rules, start=1)),
            hook=json.hook,
            priority=json.prio,
            policy=json.policy,
            type=json.type,
            device=",".join(_listed(json.dev)),
            age=self.ages[table, name],
        )

    def chain_names(self, table: Table) -> Sequence[str]:
        return tuple(self._contents[table].chains)

    def set(self, table: Table | None, name: str) -> Set | None:
        json = self._contents[table].sets.get(name) if table else None
        if table is None or json is None:
            return None
        try:
            return self._set(self._contents[table], json)
        except _UNREADABLE as error:
            raise ParseError(self.name, 0, f"set {name} of {table.name}: {error}", _HINT) from error

    def set_names(self, table: Table | None) -> Sequence[str]:
        return tuple(self._contents[table].sets) if table else ()

    # --- reading ------------------------------------------------------------------------------

    def _decode(self, text: str) -> list[_Object]:
        data = text.encode(errors="replace")
        try:
            return msgspec.json.decode(data, type=_Document).nftables
        except (msgspec.DecodeError, RecursionError) as error:
            byte = re.search(r"byte (\d+)", str(error))
            line = data.count(b"\n", 0, int(byte.group(1))) + 1 if byte else 0
            raise ParseError(self.name, line, str(error), _HINT) from error

    def _take(self, item: _Object) -> None:
        if item.table:
            table = Table(backend="nft", family=item.table.family, name=item.table.name)
            self._contents[table] = _TableContent(item.table)
        elif item.chain:
            self._content(item.chain).chains[item.chain.name] = item.chain
        elif item.rule:
            content = self._content(item.rule)
            if item.rule.chain not in content.chains:
                raise ParseError(
                    self.name, 0, f"a rule of chain {item.rule.chain}, which is not there"
                )
            content.rules.setdefault(item.rule.chain, []).append(item.rule)
        elif set_ := item.set or item.map:
            self._content(set_).sets[set_.name] = set_
        elif item.element:
            added = self._content(item.element).added
            added.setdefault(item.element.name, []).append(item.element.elem)

    def _content(self, of: _ChainJson | _RuleJson | _SetJson | _ElementJson) -> _TableContent:
        table = Table(backend="nft", family=of.family, name=of.table)
        if table not in self._contents:
            raise ParseError(self.name, 0, f"table {of.family} {of.table} is not there", _HINT)
        return self._contents[table]

    def _rule(self, table: Table, json: _RuleJson, number: int) -> Rule:
        statements = _decoded(json.expr)
        if not isinstance(statements, list):
            raise ParseError(self.name, 0, f"rule {number} of {json.chain} has no expr list", _HINT)
        try:
            return rule_of(table, json.chain, number, statements, json.comment, json.handle)
        except RecursionError as error:
            raise ParseError(self.name, 0, f"rule {number} of {json.chain} is too deep") from error

    def _set(self, content: _TableContent, json: _SetJson) -> Set:
        types = _types(_decoded(json.type))
        data = _types(_decoded(json.map))
        listed = [_decoded(json.elem), *map(_decoded, content.added.get(json.name, ()))]
        key_kind, data_kind = " . ".join(types), " . ".join(data)
        return Set(
            name=json.name,
            kind="set" if not data else "vmap" if data == ("verdict",) else "map",
            type=types,
            members=SetElements(
                element_of(item, key_kind, data_kind)
                for listed_elements in listed
                for item in listed_elements
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
    """A rule from its statements in the JSON of ``nft -j``."""
    counter: dict[str, int] = next((item["counter"] for item in statements if _counts(item)), {})
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
    """A tuple of texts: nft writes one text plainly and several as a list."""
    if isinstance(value, str):
        return (value,) if value else ()
    return tuple(value)


def _types(value: Json) -> tuple[str, ...]:
    """The types of a key: one type, a list of types, or in newer nft a ``typeof`` expression."""
    if isinstance(value, dict):
        value = value["typeof"]
        parts = value.get("concat", [value])
        return tuple(_type_of(json_expressions.expression(part)) for part in parts)
    return _listed(value or ())


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


def element_of(tree: Json, key_kind: str, data_kind: str) -> Element:
    """An element of a set, or of a map if ``data_kind`` is not empty, in the JSON of ``nft -j``."""
    data = None
    if data_kind:
        tree, datum = tree
        data = json_expressions.map_data(datum, data_kind)
    inner = {"val": tree}
    if isinstance(tree, dict) and "elem" in tree:
        inner = tree["elem"]
    is_catchall = inner["val"] == "*"
    return Element(
        key=InterfaceWildcard(start="")
        if is_catchall
        else json_expressions.expression(inner["val"], key_kind),
        data=data,
        timeout=inner.get("timeout"),
        expires=inner.get("expires"),
        comment=inner.get("comment", ""),
    )

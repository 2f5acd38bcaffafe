"""Name the facts about rules that are asked for one by one: a chain, a set, a key of a set.

A fact is a file of a saved run like any other, and its name is the query, so a run is replayed by
looking its queries up::

    rules/tables.json                                    all tables, and nft's base chains
    rules/generation.json                                how often nft's rules were changed
    rules/legacy/ip/nat/table.json                       the kernel's own chains of a legacy table
    rules/nft/ip/nat/chains.json, .../sets.json          all names
    rules/nft/ip/nat/chain/KUBE-SERVICES.json            one chain; its rules too if they are few
    rules/nft/ip/nat/chain/KUBE-SERVICES/all.json        all its rules
    .../chain/KUBE-SERVICES/by-destination/10.96.0.10.json  less those for another destination
    .../chain/KUBE-SERVICES/containing/default%2Fweb.json   those that contain this text
    .../chain/KUBE-SERVICES/number/17.json               the 17th
    rules/nft/ip/kube-proxy/set/service-ips.json         one set; its elements too if they are few
    .../set/service-ips/all.json, .../containing/TEXT.json, .../key/HEX.json
    .../set/service-ips/key-pattern/HEX.json             keys of which some bytes are dots
    rules/ipset/sets.json, rules/ipset/set/NAME.json, rules/ipset/number/3.json

Names of chains and sets may contain any character: all but letters, digits, ``-`` and ``_`` is
escaped as in a URL, so a path never leaves its folder.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from kptrace.model import Value

if TYPE_CHECKING:
    from kptrace.rules.model.ruleset import Table

TABLES = "rules/tables.json"
GENERATION = "rules/generation.json"
_ROOT, _END = "rules/", ".json"
_PARTS = ("all", "by-destination", "containing", "number", "key", "key-pattern")


class RuleQuery(Value):
    """One query.

    kind: tables, generation, table, chains, sets, chain, set, number
    backend: legacy, nft, ipset
    name: of the chain or set, or the number of an ipset
    part: one of _PARTS; empty: the chain or set itself
    argument: of the part: an address, a text, a number, or a key in hexadecimal
    """

    kind: str
    backend: str = ""
    family: str = ""
    table: str = ""
    name: str = ""
    part: str = ""
    argument: str = ""

    @property
    def file(self) -> str:
        """The name of the fact."""
        store = (self.backend, self.family, self.table) if self.family else (self.backend,)
        parts = [*store, self.kind, self.name, self.part, self.argument]
        return _ROOT + "/".join(_escaped(word) for word in parts if word) + _END

    def part_query(self, part: str, argument: str = "") -> RuleQuery:
        """A query about a part of the same chain or set."""
        return RuleQuery(
            kind=self.kind,
            backend=self.backend,
            family=self.family,
            table=self.table,
            name=self.name,
            part=part,
            argument=argument,
        )


def in_table(table: Table, kind: str, name: str = "") -> RuleQuery:
    """A query about a table."""
    return RuleQuery(
        kind=kind, backend=table.backend, family=table.family, table=table.name, name=name
    )


def in_ipset(kind: str, name: str = "") -> RuleQuery:
    """A query about ipsets."""
    return RuleQuery(kind=kind, backend="ipset", name=name)


def parse_query(file: str) -> RuleQuery | None:
    """The query that a file's name is; None for any other file."""
    if not is_query(file):
        return None
    parts = [unquote(word) for word in file[len(_ROOT) : -len(_END)].split("/")]
    if parts in (["tables"], ["generation"]):
        return RuleQuery(kind=parts[0])
    backend, rest = parts[0], parts[1:]
    if backend == "ipset":
        return _query("ipset", "", "", rest)
    if backend in ("legacy", "nft") and len(rest) >= 3:
        return _query(backend, rest[0], rest[1], rest[2:])
    return None


def is_query(file: str) -> bool:
    """Whether a file has the name of a fact about rules."""
    return file.startswith(_ROOT) and file.endswith(_END)


def _query(backend: str, family: str, table: str, parts: list[str]) -> RuleQuery | None:
    kind, name, part, argument = (parts + [""] * 4)[:4]
    named = kind in ("chain", "set", "number")
    if not kind or len(parts) > 4 or named != bool(name) or (part and part not in _PARTS):
        return None
    return RuleQuery(
        kind=kind,
        backend=backend,
        family=family,
        table=table,
        name=name,
        part=part,
        argument=argument,
    )


@lru_cache(4096)  # a simulation asks for the same few names thousands of times
def _escaped(word: str) -> str:
    return quote(word, safe="").replace(".", "%2E") if word.startswith(".") else quote(word, "")

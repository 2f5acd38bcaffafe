"""The names of facts about rules that are asked for one by one: a chain, a set, a key of a set.

Such a fact is a file of a saved run like any other; its name is the question, so that a run is
replayed by looking its questions up::

    rules/tables.json                                    all tables, and nft's base chains
    rules/generation.json                                how often nft's rules were changed
    rules/legacy/ip/nat/table.json                       the kernel's own chains of a legacy table
    rules/nft/ip/nat/chains.json, .../sets.json          all names
    rules/nft/ip/nat/chain/KUBE-SERVICES.json            one chain; its rules too if they are few
    rules/nft/ip/nat/chain/KUBE-SERVICES/all.json        all its rules
    .../chain/KUBE-SERVICES/toward/10.96.0.10.json       less those for another single destination
    .../chain/KUBE-SERVICES/saying/default%2Fweb.json    those that hold this text
    .../chain/KUBE-SERVICES/number/17.json               the 17th
    rules/nft/ip/kube-proxy/set/service-ips.json         one set; its elements too if they are few
    .../set/service-ips/all.json, .../saying/TEXT.json, .../key/HEX.json
    .../set/service-ips/like/HEX.json                    keys of which some bytes, dots, are open
    rules/ipset/sets.json, rules/ipset/set/NAME.json, rules/ipset/number/3.json

Names of chains and sets may hold anything: all but letters, digits, ``-`` and ``_`` is escaped as
in a URL, so a path never leaves its folder.
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
_PARTS = ("all", "toward", "saying", "number", "key", "like")


class RuleQuery(Value):
    """One question. ``kind``: tables, generation, table, chains, sets, chain, set, number.

    backend: legacy, nft, ipset; ``part``: one of _PARTS; empty: the thing itself
    """

    kind: str
    backend: str = ""
    family: str = ""
    table: str = ""
    name: str = ""
    part: str = ""
    of: str = ""

    @property
    def file(self) -> str:
        where = (self.backend, self.family, self.table) if self.family else (self.backend,)
        words = [*where, self.kind, self.name, self.part, self.of]
        return _ROOT + "/".join(_escaped(word) for word in words if word) + _END

    def narrowed(self, part: str, of: str = "") -> RuleQuery:
        return RuleQuery(
            kind=self.kind,
            backend=self.backend,
            family=self.family,
            table=self.table,
            name=self.name,
            part=part,
            of=of,
        )


def in_table(table: Table, kind: str, name: str = "") -> RuleQuery:
    return RuleQuery(
        kind=kind, backend=table.backend, family=table.family, table=table.name, name=name
    )


def in_ipset(kind: str, name: str = "") -> RuleQuery:
    return RuleQuery(kind=kind, backend="ipset", name=name)


def parse_query(file: str) -> RuleQuery | None:
    """The question that a file's name is; None for any other file."""
    if not is_query(file):
        return None
    words = [unquote(word) for word in file[len(_ROOT) : -len(_END)].split("/")]
    if words in (["tables"], ["generation"]):
        return RuleQuery(kind=words[0])
    backend, rest = words[0], words[1:]
    if backend == "ipset":
        return _thing("ipset", "", "", rest)
    if backend in ("legacy", "nft") and len(rest) >= 3:
        return _thing(backend, rest[0], rest[1], rest[2:])
    return None


def is_query(file: str) -> bool:
    return file.startswith(_ROOT) and file.endswith(_END)


def _thing(backend: str, family: str, table: str, words: list[str]) -> RuleQuery | None:
    kind, name, part, of = (words + [""] * 4)[:4]
    named = kind in ("chain", "set", "number")
    if not kind or len(words) > 4 or named != bool(name) or (part and part not in _PARTS):
        return None
    return RuleQuery(
        kind=kind, backend=backend, family=family, table=table, name=name, part=part, of=of
    )


@lru_cache(4096)  # a walk says the same few names thousands of times
def _escaped(word: str) -> str:
    return quote(word, safe="").replace(".", "%2E") if word.startswith(".") else quote(word, "")

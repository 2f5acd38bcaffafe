"""Facts about rules, one by one, read from the kernel without any program (rules/live/queries.py).

In: a namespace and the names of facts. Out: JSON text for each, one rule or element a line: what
the kernel holds, by its own names, uninterpreted. ``generation`` is the ruleset's own count of
changes, by which a reader knows that two facts belong together.

Looking changes nothing: legacy tables are read only where they exist. A legacy table is kept once
it is read, because the kernel gives it as a whole, until all tables are asked for: with that a new
look begins. nf_tables is asked anew for each fact.
"""

from __future__ import annotations

import errno
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from ipaddress import ip_address
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from kptrace.agent.netlink import ipset
from kptrace.agent.netns import run_in_netns
from kptrace.agent.nftables.client import FEW, Nftables, decoded
from kptrace.agent.nftables.prefilter import DestinationPrefilter, KeyPrefilter
from kptrace.agent.xtables import getsockopt
from kptrace.model import Netns
from kptrace.model.family import Family
from kptrace.protocol import FileContent
from kptrace.rules.iptables.legacy_table import XtTable
from kptrace.rules.live.queries import RuleQuery, parse_query

if TYPE_CHECKING:
    from kptrace.agent.nftables.prefetch import Prefetcher

Tree = dict[str, Any]
T = TypeVar("T")
_OF_NFT = ("", "nft")  # and all tables
_NO_NFT = 0  # the generation of a kernel without nf_tables
_TRIES = 5
RIGHTS = "run as root, or grant CAP_NET_ADMIN"


class ReadError(Exception):
    """Why a fact could not be had; ``hint``: what would let it be."""

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(why)
        self.hint = hint


class RuleReader:
    """The rulesets of one namespace. Several threads may ask, one at a time.

    ahead: what was read there before
    """

    def __init__(self, netns: str, ahead: Prefetcher | None = None) -> None:
        self._netns, self._ahead = netns, ahead
        self._lock = threading.Lock()
        self._nft: Nftables | None = None
        self._legacy: dict[tuple[str, str], XtTable | None] = {}

    def read(self, files: Iterable[str]) -> dict[str, str | ReadError]:
        """The text of each, or why there is none."""
        with self._lock:
            return {file: self._text(file) for file in files}

    def _inside(self, work: Callable[[], T]) -> T:
        """In the namespace. What is opened there stays there, so most questions need no such."""
        return run_in_netns(self._netns, work)

    def facts(self, id: int, netns: Netns, files: Iterable[str]) -> Iterator[FileContent]:
        for file, text in self.read(files).items():
            if isinstance(text, ReadError):
                yield FileContent(
                    id=id, netns=netns, file=file, unavailable=str(text), hint=text.hint
                )
            else:
                yield FileContent(id=id, netns=netns, file=file, text=text)

    def close(self) -> None:
        if self._nft:
            self._nft.close()

    def _text(self, file: str) -> str | ReadError:
        rule_query = parse_query(file)
        reader = _READERS.get((rule_query.backend, rule_query.kind)) if rule_query else None
        if rule_query is None or reader is None:
            return ReadError("this agent does not know such a file")
        try:
            read = partial(reader, self, rule_query)
            return _json(
                self._retry_on_generation_change(read) if rule_query.backend in _OF_NFT else read()
            )
        except ReadError as why:
            return why
        except PermissionError as error:
            return ReadError(f"not permitted ({error.strerror})", RIGHTS)
        except (OSError, ValueError, KeyError) as error:
            return ReadError(f"{type(error).__name__}: {error}")

    def _retry_on_generation_change(self, read: Callable[[], Tree]) -> Tree:
        """What is told while no commit comes: one that comes between two parts of a listing makes
        the kernel leave rules out, or tell them twice.
        """
        for _ in range(_TRIES):
            answer = read()
            if answer["generation"] == _NO_NFT or answer["generation"] == self.nft.generation():
                return answer
        raise ReadError("the rules change faster than they can be read", "look again")

    @property
    def nft(self) -> Nftables:
        if self._nft is None:
            self._nft = self._inside(lambda: Nftables(self._inside, self._ahead))
        return self._nft

    def blob(self, rule_query: RuleQuery) -> XtTable | None:
        asked = (rule_query.family, rule_query.table)
        if asked not in self._legacy:
            family = Family(rule_query.family)
            self._legacy[asked] = self._inside(lambda: getsockopt.table(family, rule_query.table))
        return self._legacy[asked]

    # --- all --------------------------------------------------------------------------------------

    def tables(self, _: RuleQuery) -> Tree:
        self._legacy.clear()
        answer: Tree = {"byteorder": sys.byteorder, **self._inside(_names)}
        try:
            answer["generation"] = self.nft.generation()
            answer["tables"] = self.nft.tables()
            answer["base chains"] = self.nft.base_chains()
        except OSError as error:
            if error.errno not in (errno.EPROTONOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP):
                raise
            answer |= {
                "generation": _NO_NFT,
                "tables": [],
                "base chains": [],
            }  # a kernel without it
        return answer

    # --- nf_tables --------------------------------------------------------------------------------

    def generation(self, _: RuleQuery) -> Tree:
        return {"generation": self.nft.generation()}

    def nft_names(self, rule_query: RuleQuery) -> Tree:
        names = self.nft.chain_names if rule_query.kind == "chains" else self.nft.set_names
        generation = self.nft.generation()
        return {"generation": generation, "names": names(rule_query.family, rule_query.table)}

    def nft_chain(self, rule_query: RuleQuery) -> Tree:
        where = rule_query.family, rule_query.table, rule_query.name
        generation = self.nft.generation()
        chain = self.nft.chain(*where)
        if chain is None:
            return {"generation": generation, "chain": None}
        rules = self.nft.rules(*where)
        answer: Tree = {"generation": generation, "chain": chain, "count": len(rules)}
        chosen = _chosen(rule_query, rules, len(rules) <= FEW)
        if chosen is not None:
            answer["rules"] = list(self.nft.told(chosen))
            answer["sets"] = self.nft.sets_of(rule_query.family, rule_query.table, answer["rules"])
        return answer

    def nft_set(self, rule_query: RuleQuery) -> Tree:
        where = rule_query.family, rule_query.table, rule_query.name
        generation = self.nft.generation()
        answer: Tree = {"generation": generation, "set": self.nft.set(*where)}
        if answer["set"] is None:
            return answer
        if rule_query.part == "key":
            answer["elements"] = decoded(
                self.nft.element(*where, bytes.fromhex(rule_query.argument))
            )
        elif rule_query.part == "containing":
            answer["elements"] = decoded(self.nft.holding(*where, rule_query.argument.encode()))
        elif rule_query.part == "key-pattern":
            like = KeyPrefilter(rule_query.argument)
            chunks = filter(like.may_hold, self.nft.holding(*where, like.holding))
            answer["elements"] = decoded([*chunks, *self.nft.catchall(*where)])
        elif rule_query.part == "all":
            answer["elements"] = decoded(self.nft.elements(*where))
        else:
            first = list(islice(self.nft.elements(*where), FEW + 1))
            if len(first) <= FEW:
                answer["elements"] = decoded(first)
        return answer

    # --- legacy tables ----------------------------------------------------------------------------

    def legacy_table(self, rule_query: RuleQuery) -> Tree:
        blob = self.blob(rule_query)
        return {"chains": blob.kernel_chains() if blob else []}

    def legacy_names(self, rule_query: RuleQuery) -> Tree:
        blob = self.blob(rule_query)
        kernels = [chain["name"] for chain in blob.kernel_chains()] if blob else []
        return {"names": kernels + (blob.names() if blob else [])}

    def legacy_chain(self, rule_query: RuleQuery) -> Tree:
        blob = self.blob(rule_query)
        if blob is None or not blob.has(rule_query.name):
            return {"chain": None}
        count = blob.count(rule_query.name)
        answer: Tree = {"chain": {"name": rule_query.name}, "count": count}
        if rule_query.part == "by-destination":
            answer["rules"] = blob.rules(
                rule_query.name, destination=ip_address(rule_query.argument).packed
            )
        elif rule_query.part == "containing":
            answer["rules"] = blob.rules(rule_query.name, text=rule_query.argument.encode())
        elif rule_query.part == "number":
            answer["rules"] = blob.rules(rule_query.name, only_number=int(rule_query.argument))
        elif rule_query.part == "all" or count <= FEW:
            answer["rules"] = blob.rules(rule_query.name)
        return answer

    # --- ipsets -----------------------------------------------------------------------------------

    def ipset_names(self, _: RuleQuery) -> Tree:
        return {"names": self._inside(ipset.names)}

    def ipset_number(self, rule_query: RuleQuery) -> Tree:
        return {"name": self._inside(lambda: ipset.name(int(rule_query.name)))}

    def ipset(self, rule_query: RuleQuery) -> Tree:
        return {"set": self._inside(lambda: ipset.described(rule_query.name))}


def _names() -> Tree:
    return {
        "interfaces": {str(index): name for index, name in socket.if_nameindex()},
        "legacy": {family: getsockopt.names(family) for family in Family},
    }


def _chosen(
    rule_query: RuleQuery, rules: list[bytes], few: bool
) -> Iterable[tuple[int, bytes]] | None:
    """The rules that are asked for, by their numbers; None where only their count is."""
    numbered = enumerate(rules, start=1)
    if rule_query.part == "by-destination":
        toward = DestinationPrefilter(rule_query.argument)
        return ((number, rule) for number, rule in numbered if not toward.elsewhere(rule))
    if rule_query.part == "containing":
        said = rule_query.argument.encode()
        return ((number, rule) for number, rule in numbered if said in rule)
    if rule_query.part == "number":
        netns = int(rule_query.argument)
        return ((number, rule) for number, rule in numbered if number == netns)
    return numbered if rule_query.part == "all" or few else None


_LISTS = ("rules", "elements", "names", "tables", "base chains", "chains")


def _json(answer: Mapping[str, Any]) -> str:
    """One thing a line, so that two runs can be compared by eye."""
    parts = []
    for key, value in answer.items():
        shown = json.dumps(value, ensure_ascii=False)
        if key in _LISTS and value:
            lines = ",\n  ".join(json.dumps(item, ensure_ascii=False) for item in value)
            shown = f"[\n  {lines}\n ]"
        parts.append(f" {json.dumps(key)}: {shown}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


_READERS: dict[tuple[str, str], Callable[[RuleReader, RuleQuery], Tree]] = {
    ("", "tables"): RuleReader.tables,
    ("", "generation"): RuleReader.generation,
    ("nft", "chains"): RuleReader.nft_names,
    ("nft", "sets"): RuleReader.nft_names,
    ("nft", "chain"): RuleReader.nft_chain,
    ("nft", "set"): RuleReader.nft_set,
    ("legacy", "table"): RuleReader.legacy_table,
    ("legacy", "chains"): RuleReader.legacy_names,
    ("legacy", "chain"): RuleReader.legacy_chain,
    ("ipset", "sets"): RuleReader.ipset_names,
    ("ipset", "number"): RuleReader.ipset_number,
    ("ipset", "set"): RuleReader.ipset,
}

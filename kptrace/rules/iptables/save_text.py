"""Write tables as iptables-save prints them: the common form of all textual readers.

A reader of another form (``commands.py``, ``listing.py``) makes a TableText for each table that it
finds; ``save_text`` joins them to a text that ``IptablesSave`` reads, so a rule has one reader in
whatever form it came. What the text lacks is kept: which tables are whole, which chains are jumped
to without being there, and in which line of the original a line of the new text stood.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from kptrace.model import Value
from kptrace.rules.iptables.base_chains import BUILT_IN_CHAINS
from kptrace.rules.iptables.targets import TARGETS, VERDICTS

# targets of the kernel and its extensions that TARGETS has no reader for
_OTHER_TARGETS = frozenset(
    {"BALANCE", "CLUSTERIP", "DELUDE", "DNPT", "HMARK", "LOGMARK", "MIRROR", "NETFLOW", "NETMAP"}
    | {"RAWDNAT", "RAWSNAT", "RTPENGINE", "SAME", "SNPT", "SYNPROXY", "SYSRQ", "TARPIT"}
)
CUT = "..."  # stands for lines that were left out


class RuleLine(NamedTuple):
    """A rule of a chain.

    text: its options as iptables-save prints them, or CUT
    counters: ``packets:bytes``, empty if unknown
    line: in the original text, from 1; 0 for a rule that is assumed
    """

    chain: str
    text: str
    counters: str = ""
    line: int = 0


class TableText:
    """A table as far as a text shows it.

    declarations: chain -> ``POLICY [packets:bytes]``, a policy ``-`` for a user-defined chain
    whole: the text shows the table from its first chain to its last
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.declarations: dict[str, str] = {}
        self.rules: list[RuleLine] = []
        self.whole = False

    def declare(self, chain: str, policy: str = "-", counters: str = "0:0") -> None:
        """Note that a chain exists. Without a policy an earlier declaration stays."""
        if policy != "-" or chain not in self.declarations:
            self.declarations[chain] = f"{policy} [{counters}]"

    def declare_chains_of_rules(self) -> None:
        """Declare the chains that have rules and no declaration."""
        for rule in self.rules:
            if rule.chain not in self.declarations:
                self.declare(rule.chain, "ACCEPT" if rule.chain in BUILT_IN_CHAINS else "-")


class SaveText(Value):
    """A text as iptables-save prints it.

    whole: the tables that are shown whole
    absent: for each table the chains that its rules jump to and that are not in the text
    lines: for each line of the text its number in the original
    assumed: rules that the original lacks, as ``TABLE CHAIN OPTIONS``
    """

    text: str
    whole: frozenset[str] = frozenset()
    absent: Mapping[str, frozenset[str]] = {}
    lines: Sequence[int] = ()
    assumed: tuple[str, ...] = ()


def save_text(tables: Iterable[TableText], header: str = "") -> SaveText:
    """Join tables; those of one name become one."""
    merged: dict[str, TableText] = {}
    for table in tables:
        earlier = merged.setdefault(table.name, table)
        if earlier is not table:
            for chain, declaration in table.declarations.items():
                earlier.declarations.setdefault(chain, declaration)
            earlier.rules += table.rules
            earlier.whole = earlier.whole or table.whole
    lines: list[tuple[str, int]] = [(line, 0) for line in header.splitlines()]
    absent = {}
    for name, table in merged.items():
        table.declare_chains_of_rules()
        absent[name] = frozenset(_jumps(table)) - table.declarations.keys()
        lines += _lines(table)
    return SaveText(
        text="".join(f"{line}\n" for line, _ in lines),
        whole=frozenset(name for name, table in merged.items() if table.whole),
        absent=absent,
        lines=tuple(number for _, number in lines),
        assumed=tuple(
            f"{name} {rule.chain} {rule.text}"
            for name, table in merged.items()
            for rule in table.rules
            if not rule.line
        ),
    )


def _lines(table: TableText) -> Iterable[tuple[str, int]]:
    """The lines of a table, each chain's rules together, the chains as iptables-save sorts them."""
    chains = sorted(table.declarations, key=_rank)
    yield f"*{table.name}", 0
    for chain in chains:
        yield f":{chain} {table.declarations[chain]}", 0
    by_chain: dict[str, list[RuleLine]] = {chain: [] for chain in chains}
    for rule in table.rules:
        by_chain[rule.chain].append(rule)
    for chain in chains:
        for rule in by_chain[chain]:
            counters = f"[{rule.counters}] " if rule.counters else ""
            yield f"{counters}-A {chain} {rule.text}".rstrip(), rule.line
    yield "COMMIT", 0


def _rank(chain: str) -> tuple[int, str]:
    if chain in BUILT_IN_CHAINS:
        return BUILT_IN_CHAINS.index(chain), ""
    return len(BUILT_IN_CHAINS), chain


def _jumps(table: TableText) -> Iterable[str]:
    for rule in table.rules:
        target = target_of(rule.text)
        if target and is_chain_name(target):
            yield target


def target_of(text: str) -> str:
    """The target that a rule's options name; empty if there is none."""
    before, separator, after = f" {text}".rpartition(" -j ")
    if not separator or before.count('"') % 2:
        before, separator, after = f" {text}".rpartition(" -g ")
    if not separator or before.count('"') % 2:
        return ""
    return after.split(" ", 1)[0]


def is_chain_name(target: str) -> bool:
    """Whether a target is no verdict and no known extension, so that it must be a chain."""
    return target not in VERDICTS and target not in TARGETS and target not in _OTHER_TARGETS

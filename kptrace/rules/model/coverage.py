"""How much of a node's rules was read: ``RulesetCoverage``.

A rule that was not seen proves nothing where a part of the rules was not read. A finding that rests
on an absence therefore asks the Ruleset for its coverage first, and names the file that is missing
and the command that writes it.

The kernel keeps rules in five stores that do not know of each other: the tables of
iptables-legacy, those of iptables-nft, the tables of nftables itself, IPVS and ipsets. iptables-nft
and nftables share nf_tables; they are two stores here since each program shows only its own rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from kptrace.model import Value
from kptrace.model.family import Family

# the whole content of a file whose program listed nothing and ended with status 0
LISTED_NOTHING = "# listed nothing, exit status 0"


class RuleStore(StrEnum):
    """Where the kernel keeps rules."""

    IPTABLES_LEGACY = "iptables-legacy"
    IPTABLES_NFT = "iptables-nft"
    NFTABLES = "nftables"
    IPVS = "ipvs"
    IPSET = "ipset"


class Extent(StrEnum):
    """How much of a store was read."""

    WHOLE = "whole"
    PARTIAL = "partial"
    UNREAD = "unread"


class CoverageReason(StrEnum):
    """Why a store was not read whole.

    NO_FILE: the file is not there
    EMPTY_FILE: the file holds no line; a program that failed leaves the same
    REPORTED: not read, and another file says that the store holds rules
    EXCERPT: the text holds some tables or chains only
    OPAQUE: the file lists the rules without what they match and do
    """

    NO_FILE = "no-file"
    EMPTY_FILE = "empty-file"
    REPORTED = "reported"
    EXCERPT = "excerpt"
    OPAQUE = "opaque"


class StoreCoverage(Value):
    """One store and family. ``reason``: None for a store that was read whole.

    tables: of a store that was read partly, the tables that were read whole
    assumed: rules of kube-proxy that the text lacks and that were taken as there, as
        ``TABLE CHAIN OPTIONS``
    file: the file of a bundle that holds the store
    command: the command that writes this file's content
    """

    store: RuleStore
    family: Family
    extent: Extent
    reason: CoverageReason | None = None
    tables: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    file: str = ""
    command: str = ""


class RulesetCoverage(Value):
    """The coverage of every store and family; a store that is not listed was read whole."""

    parts: tuple[StoreCoverage, ...] = ()

    def of(self, store: RuleStore, family: Family) -> StoreCoverage:
        """The coverage of one store."""
        for part in self.parts:
            if part.store == store and part.family == family:
                return part
        return StoreCoverage(store=store, family=family, extent=Extent.WHOLE)

    def gaps(
        self, family: Family, stores: Iterable[RuleStore] = tuple(RuleStore), table: str = ""
    ) -> tuple[StoreCoverage, ...]:
        """The stores of a family that were not read whole.

        ``table``: ask about this table only; a store that was read partly, but this table whole,
        is then no gap.
        """
        coverages = (self.of(store, family) for store in stores)
        return tuple(
            coverage
            for coverage in coverages
            if coverage.extent is not Extent.WHOLE and (not table or table not in coverage.tables)
        )

    def is_whole(
        self, family: Family, stores: Iterable[RuleStore] = tuple(RuleStore), table: str = ""
    ) -> bool:
        """Whether an absence in these stores is proved: nothing of them was left unread."""
        return not self.gaps(family, stores, table)

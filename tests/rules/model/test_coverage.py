"""What the coverage of a ruleset says of an absence."""

from __future__ import annotations

from kptrace.rules.model.coverage import (
    CoverageReason,
    Extent,
    RulesetCoverage,
    RuleStore,
    StoreCoverage,
)

PARTLY = StoreCoverage(
    store=RuleStore.IPTABLES_NFT,
    family="ip",
    extent=Extent.PARTIAL,
    reason=CoverageReason.EXCERPT,
    tables=("nat",),
)
UNREAD = StoreCoverage(
    store=RuleStore.IPVS, family="ip", extent=Extent.UNREAD, reason=CoverageReason.NO_FILE
)
COVERAGE = RulesetCoverage(parts=(PARTLY, UNREAD))


def test_a_store_that_is_not_listed_was_read_whole() -> None:
    assert RulesetCoverage().is_whole("ip")
    assert COVERAGE.is_whole("ip6")
    assert COVERAGE.of(RuleStore.NFTABLES, "ip").extent is Extent.WHOLE


def test_gaps() -> None:
    assert COVERAGE.gaps("ip") == (PARTLY, UNREAD)
    assert COVERAGE.gaps("ip", (RuleStore.NFTABLES, RuleStore.IPVS)) == (UNREAD,)
    assert not COVERAGE.is_whole("ip")


def test_a_table_of_a_store_that_was_read_partly() -> None:
    stores = (RuleStore.IPTABLES_NFT,)
    assert COVERAGE.is_whole("ip", stores, table="nat")
    assert COVERAGE.gaps("ip", stores, table="filter") == (PARTLY,)

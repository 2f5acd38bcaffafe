"""Whether "no rule for this Service" was read, or only not seen: ``unread_rules``."""

from __future__ import annotations

from collections.abc import Iterator

from kptrace.model import Value
from kptrace.model.family import Family
from kptrace.rules.model.coverage import (
    CoverageReason,
    Extent,
    RulesetCoverage,
    RuleStore,
    StoreCoverage,
)
from kptrace.rules.model.ruleset import Ruleset
from kptrace.simulate.snapshot.proxy_mode import CILIUM_LINK, NFTABLES, service_tables
from kptrace.simulate.snapshot.snapshot import Snapshot

CILIUM_CHAIN = "CILIUM_POST_nat"
# kube-proxy's nat table has it in IPVS mode only (ipvs/proxier.go, iptablesChains)
IPVS_CHAIN = "KUBE-LOAD-BALANCER"
IPTABLES_STORES = (RuleStore.IPTABLES_NFT, RuleStore.IPTABLES_LEGACY)
_REASONS = {
    CoverageReason.NO_FILE: "{file} is not there",
    CoverageReason.EMPTY_FILE: "{file} is empty",
    CoverageReason.REPORTED: "{file} is not there, and another file says that the node has some",
    CoverageReason.EXCERPT: "{file} holds some tables or chains only",
    CoverageReason.OPAQUE: "{file} lists rules without what they match",
}


class UnreadRules(Value):
    """Rules of a node that may translate a Service, and that were not read.

    description: what was not read, and why; hint: the file to add and the command that writes it
    """

    description: str
    hint: str


def unread_rules(snapshot: Snapshot, family: Family) -> UnreadRules | None:
    """What of a node's rules must be read before "no rule translates it" is known; None: all was.

    kube-proxy writes all its rules of a family into one store: where its chains were read, a
    Service that they lack is not programmed.
    """
    ruleset = snapshot.ruleset
    if snapshot.programs is not None:
        return None
    tables = [table for table in service_tables(ruleset) if table.family in (family, "inet")]
    if tables:
        ipvs = any(ruleset.chain(table, IPVS_CHAIN) is not None for table in tables)
        stores = (RuleStore.IPVS,) if ipvs and not ruleset.ipvs else ()
        gap = next(iter(ruleset.coverage.gaps(family, stores)), None)
        gap = gap or next(_partial(ruleset.coverage, family), None)
        return _unread(snapshot, gap) if gap else None
    if _has_cilium(snapshot):
        return UnreadRules(
            description=f"{snapshot.netns.node} has Cilium, whose Services were not read",
            hint="add cilium-service-list.json: cilium-dbg service list -o json",
        )
    gap = next(_gaps_without_proxy(ruleset, family), None)
    return _unread(snapshot, gap) if gap else None


def _gaps_without_proxy(ruleset: Ruleset, family: Family) -> Iterator[StoreCoverage]:
    """The stores in which kube-proxy's rules may stand, where none of them was seen."""
    coverage = ruleset.coverage
    iptables = [coverage.of(store, family) for store in IPTABLES_STORES]
    yield from (store for store in iptables if store.reason is CoverageReason.REPORTED)
    yield from _partial(coverage, family)
    modes = {table.name for table in service_tables(ruleset)}  # those of the other family
    if modes != {NFTABLES} and all(store.extent is Extent.UNREAD for store in iptables):
        yield iptables[0]
    if not modes or NFTABLES in modes:
        yield from coverage.gaps(family, (RuleStore.NFTABLES,))


def _partial(coverage: RulesetCoverage, family: Family) -> Iterator[StoreCoverage]:
    for gap in coverage.gaps(family, IPTABLES_STORES, table="nat"):
        if gap.extent is Extent.PARTIAL:
            yield gap


def _has_cilium(snapshot: Snapshot) -> bool:
    ruleset = snapshot.ruleset
    return snapshot.link(CILIUM_LINK) is not None or any(
        ruleset.chain(table, CILIUM_CHAIN) is not None
        for table in ruleset.tables()
        if table.name == "nat"
    )


def _unread(snapshot: Snapshot, gap: StoreCoverage) -> UnreadRules:
    file, command = gap.file, gap.command
    if gap.store is RuleStore.IPTABLES_NFT and gap.extent is Extent.UNREAD:
        # of either backend: the program of the node knows which
        command = "ip6tables-save" if gap.family == Family.IPV6 else "iptables-save"
        file = f"{command}.txt"
    rules = {RuleStore.NFTABLES: "nftables rules", RuleStore.IPVS: "IPVS services"}.get(
        gap.store, "iptables rules"
    )
    assert gap.reason is not None
    why = _REASONS[gap.reason].format(file=file)
    version = Family(gap.family).version
    read = "were read in part" if gap.extent is Extent.PARTIAL else "were not read"
    return UnreadRules(
        description=f"the IPv{version} {rules} of {snapshot.netns.node} {read}: {why}",
        hint=f"add {file}: {command}",
    )

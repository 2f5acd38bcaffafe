"""How much of a node's rules its files hold: files -> RulesetCoverage.

A store counts as read only where its own file says so: a table that is listed, or LISTED_NOTHING.
What another file says of it is used too: ``nft -j list ruleset`` lists all of nf_tables, so a
store of iptables-nft that it does not show is empty; iptables-nft-save says where tables of
iptables-legacy are there too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from kptrace.model.family import Family
from kptrace.rules.iptables.base_chains import Backend
from kptrace.rules.iptables.save import IptablesSave
from kptrace.rules.load import COUNTS, IPSET, IPVS, NFT, has_lines, pages_of
from kptrace.rules.model.coverage import (
    LISTED_NOTHING,
    CoverageReason,
    Extent,
    RulesetCoverage,
    RuleStore,
    StoreCoverage,
)
from kptrace.rules.model.ruleset import RulesetSource
from kptrace.rules.nftables.json_ruleset import NftRuleset

Saves = Mapping[Family, Mapping[Backend, str]]

_PROGRAMS: dict[Family, str] = {Family.IPV4: "iptables", Family.IPV6: "ip6tables"}
# a text with these shows all that anybody writes; security is SELinux's
_USUAL_TABLES = frozenset({"filter", "nat", "mangle", "raw"})
_NFT_COMMAND = "nft -j list ruleset"
# what iptables-nft-save prints of tables that it does not show (nft_check_xt_legacy, __do_output)
_LEGACY_PRESENT = "-legacy tables present, use "
_INCOMPATIBLE = "is incompatible, use 'nft' tool"


def coverage_of(
    files: Mapping[str, str], saves: Saves, sources: Sequence[RulesetSource]
) -> RulesetCoverage:
    """What ``files`` hold of every store.

    saves: for each family the file of each backend of iptables; sources: what was read
    """
    nft = next((source for source in sources if isinstance(source, NftRuleset)), None)
    read = {source.name: source for source in sources if isinstance(source, IptablesSave)}
    parts: list[StoreCoverage] = []
    for family in Family:
        parts.append(_legacy(files, family, saves[family], read))
        parts.append(_iptables_nft(files, family, saves[family], read, nft))
        nft_file = nft.name if nft else NFT
        nft_place = _Place(RuleStore.NFTABLES, family, nft_file, _NFT_COMMAND)
        parts.append(_by_file(files, nft_place))
        parts.append(_by_file(files, _Place(RuleStore.IPSET, family, IPSET, "ipset save")))
        parts.append(_ipvs_coverage(files, family))
    return RulesetCoverage(parts=tuple(parts))


def live_coverage(files: Mapping[str, str]) -> RulesetCoverage:
    """On a live node all is asked for but IPVS, which is a file that its agent wrote."""
    if IPVS in files:
        return RulesetCoverage()
    return RulesetCoverage(parts=tuple(_ipvs_coverage(files, family) for family in Family))


class _Place(NamedTuple):
    """A store, the file that holds it and the command that writes that."""

    store: RuleStore
    family: Family
    file: str
    command: str

    def coverage(
        self, extent: Extent, reason: CoverageReason | None = None, tables: tuple[str, ...] = ()
    ) -> StoreCoverage:
        return StoreCoverage(
            store=self.store,
            family=self.family,
            extent=extent,
            reason=reason,
            tables=tables,
            file=self.file,
            command=self.command,
        )


def _ipvs_coverage(files: Mapping[str, str], family: Family) -> StoreCoverage:
    """``ipvsadm -Ln`` lists the same services as ``ipvsadm -Sn``; it always prints a header."""
    place = _Place(RuleStore.IPVS, family, IPVS, "ipvsadm -Sn")
    if not has_lines(files, IPVS) and has_lines(files, COUNTS):
        place = place._replace(file=COUNTS, command="ipvsadm -Ln")
    return _by_file(files, place)


def _legacy(
    files: Mapping[str, str],
    family: Family,
    saves: Mapping[Backend, str],
    read: Mapping[str, IptablesSave],
) -> StoreCoverage:
    name, command = _save_of("legacy", family, saves, read)
    place = _Place(RuleStore.IPTABLES_LEGACY, family, name, command)
    if name in read:
        return _of_save(place, read[name])
    coverage = _by_file(files, place)
    reported = any(_says(files, save, _LEGACY_PRESENT) for save in saves.values())
    if coverage.extent is Extent.UNREAD and reported:
        return place.coverage(Extent.UNREAD, CoverageReason.REPORTED)
    return coverage


def _iptables_nft(
    files: Mapping[str, str],
    family: Family,
    saves: Mapping[Backend, str],
    read: Mapping[str, IptablesSave],
    nft: NftRuleset | None,
) -> StoreCoverage:
    name, command = _save_of("nft", family, saves, read)
    place = _Place(RuleStore.IPTABLES_NFT, family, name, command)
    by_nft = place._replace(file=NFT, command=_NFT_COMMAND)
    if name in read:
        if not nft and _says(files, name, _INCOMPATIBLE):
            tables = tuple(table.name for table in read[name].tables())
            return by_nft.coverage(Extent.PARTIAL, CoverageReason.OPAQUE, tables)
        return _of_save(place, read[name])
    if nft and nft.has_opaque_rules(family):
        return place.coverage(Extent.PARTIAL, CoverageReason.OPAQUE)
    return by_nft.coverage(Extent.WHOLE) if nft else _by_file(files, place)


def _save_of(
    backend: Backend,
    family: Family,
    saves: Mapping[Backend, str],
    read: Mapping[str, IptablesSave],
) -> tuple[str, str]:
    """The file that holds a backend's tables, and its command. An ``iptables-save.txt`` without
    tables does not say whose save it is.
    """
    command = f"{_PROGRAMS[family]}-{backend}-save"
    name = saves.get(backend, "")
    return (name if name in read else f"{command}.txt"), command


def _of_save(place: _Place, save: IptablesSave) -> StoreCoverage:
    """A save is whole, unless it lacks a table that must be there: ``iptables-save -t nat``.

    kube-proxy writes KUBE-SERVICES into nat and filter (proxier.go, iptablesJumpChains).
    """
    if save.excerpt:
        if save.excerpt.whole >= _USUAL_TABLES:
            return place.coverage(Extent.WHOLE)
        whole = tuple(sorted(save.excerpt.whole))
        coverage = place.coverage(Extent.PARTIAL, CoverageReason.EXCERPT, whole)
        return replace(coverage, assumed=save.excerpt.assumed)
    tables = {table.name: table for table in save.tables()}
    nat = tables.get("nat")
    if nat and "filter" not in tables and save.chain(nat, "KUBE-SERVICES"):
        return place.coverage(Extent.PARTIAL, CoverageReason.EXCERPT, tuple(tables))
    return place.coverage(Extent.WHOLE)


def _by_file(files: Mapping[str, str], place: _Place) -> StoreCoverage:
    """A store that is whole if its file has a line, or says that there was nothing to list."""
    name = place.file
    if has_lines(files, name) or (name in files and files[name].strip() == LISTED_NOTHING):
        return place.coverage(Extent.WHOLE)
    empty = name in files
    reason = CoverageReason.EMPTY_FILE if empty else CoverageReason.NO_FILE
    return place.coverage(Extent.UNREAD, reason)


def _says(files: Mapping[str, str], name: str, text: str) -> bool:
    return name in files and any(text in page for page in pages_of(files, name))

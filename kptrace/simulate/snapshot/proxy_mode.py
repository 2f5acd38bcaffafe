"""Who translates Services on a node, by what it left in the kernel."""

from __future__ import annotations

from kptrace.model import Proxy
from kptrace.rules.model.ruleset import Ruleset, Table
from kptrace.simulate.snapshot.snapshot import Snapshot

NFTABLES = "kube-proxy"
IPTABLES_CHAIN = "KUBE-SERVICES"
CILIUM_LINK = "cilium_host"


def proxy_of(snapshot: Snapshot) -> Proxy:
    """Return the mode of the proxy whose rules, IPVS services or devices are in the snapshot."""
    tables = service_tables(snapshot.ruleset)
    if snapshot.ruleset.ipvs:
        return "ipvs"
    if any(table.name == NFTABLES for table in tables):
        return "nftables"
    if tables:
        return "iptables"
    return "cilium" if snapshot.link(CILIUM_LINK) else "none"


def service_tables(ruleset: Ruleset) -> list[Table]:
    """Return the tables that hold rules for Services."""
    return [table for table in ruleset.tables() if _translates(ruleset, table)]


def _translates(ruleset: Ruleset, table: Table) -> bool:
    if table.name == NFTABLES:
        return table.backend == "nft"
    chain = ruleset.chain(table, IPTABLES_CHAIN) if table.name == "nat" else None
    return chain is not None and len(chain.rules) > 0

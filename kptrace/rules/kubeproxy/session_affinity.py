"""A Ruleset as a client meets it who was never there before: ``WithoutAffinity``.

With session affinity kube-proxy in nftables mode remembers each client in a set for each endpoint
(``affinity-...``), IPVS in templates of connections, and a dump holds those of the moment. What is
asked of a Service in general must not depend on who happened to be there; the lists of iptables
mode (``recent``) are in no dump.
"""

from __future__ import annotations

from msgspec.structs import replace

from kptrace.rules.model.ruleset import Ruleset, Table
from kptrace.rules.model.sets import Set, SetElements

_PREFIX = "affinity-"


class WithoutAffinity(Ruleset):
    def __init__(self, ruleset: Ruleset) -> None:
        unbound = tuple(replace(one, bound=()) if one.bound else one for one in ruleset.ipvs)
        super().__init__(ruleset._sources, unbound, ruleset.missing, lambda: ruleset.coverage)

    def set(self, table: Table | None, name: str) -> Set | None:
        found = super().set(table, name)
        if found is None or table is None or not name.startswith(_PREFIX):
            return found
        return replace(found, members=SetElements())

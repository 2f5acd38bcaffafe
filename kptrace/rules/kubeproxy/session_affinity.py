"""A Ruleset as a new client finds it: ``WithoutAffinity``.

With session affinity kube-proxy in nftables mode keeps each client in a set for each endpoint
(``affinity-...``), IPVS in templates of connections. An answer about a Service in general must not
depend on the clients of the moment. The lists of iptables mode (``recent``) are in no file.
"""

from __future__ import annotations

from msgspec.structs import replace

from kptrace.rules.model.ruleset import Ruleset, Table
from kptrace.rules.model.sets import Set, SetElements

_PREFIX = "affinity-"


class WithoutAffinity(Ruleset):
    """A view of a Ruleset in which no client is kept at an endpoint."""

    def __init__(self, ruleset: Ruleset) -> None:
        unbound = tuple(
            replace(service, persistent_clients=()) if service.persistent_clients else service
            for service in ruleset.ipvs
        )
        super().__init__(ruleset._sources, unbound, ruleset.missing, lambda: ruleset.coverage)

    def set(self, table: Table | None, name: str) -> Set | None:
        affinity = super().set(table, name)
        if affinity is None or table is None or not name.startswith(_PREFIX):
            return affinity
        return replace(affinity, members=SetElements())

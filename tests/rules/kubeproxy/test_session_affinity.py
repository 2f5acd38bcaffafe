"""A client who was never there before is in no affinity set; other sets are as they are."""

from __future__ import annotations

from kptrace.rules.kubeproxy.session_affinity import WithoutAffinity
from kptrace.rules.model.expressions import Const
from kptrace.rules.model.ruleset import InMemorySource, Ruleset, Table
from kptrace.rules.model.sets import Element, Set, SetElements

TABLE = Table(backend="nft", family="ip", name="kube-proxy")
NAMES = ("affinity-ABCDEFGH-shop/web/tcp/http__10.244.1.11/8080", "cluster-ips")


def test_affinity_sets_are_empty() -> None:
    members = SetElements([Element(key=Const(value="10.244.1.99"))])
    sets = [Set(name=name, kind="set", type=("ipv4_addr",), members=members) for name in NAMES]
    known = Ruleset([InMemorySource(sets={TABLE: sets, None: sets})])
    assert TABLE not in known.tables()  # Plain knows tables by their chains
    fresh = WithoutAffinity(Ruleset([_WithTable(sets={TABLE: sets, None: sets})]))
    remembered, other = (fresh.set(TABLE, name) for name in NAMES)
    assert remembered is not None
    assert remembered.members.lookup(("10.244.1.99",)) is None
    assert other is not None
    assert other.members.lookup(("10.244.1.99",)) is not None
    ipset = fresh.set(None, NAMES[0])
    assert ipset is not None
    assert len(ipset.members) == 1


class _WithTable(InMemorySource):
    def tables(self) -> tuple[Table, ...]:
        return (TABLE,)

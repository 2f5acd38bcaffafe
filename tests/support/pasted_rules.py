"""Rules as people paste them, and how they are read, for tests."""

from __future__ import annotations

from kptrace.rules.iptables.save import IptablesSave
from kptrace.rules.iptables.text import read_iptables
from kptrace.rules.model.ruleset import Table

SERVICE = """\
-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m comment --comment "default/web cluster IP" -m tcp --dport 80 -j KUBE-SVC-AAAAAAAAAAAAAAAA
-A KUBE-SVC-AAAAAAAAAAAAAAAA -m comment --comment "default/web -> 10.244.0.5:8080" -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-AAAAAAAAAAAAAAAA
-A KUBE-SVC-AAAAAAAAAAAAAAAA -m comment --comment "default/web -> 10.244.0.6:8080" -j KUBE-SEP-BBBBBBBBBBBBBBBB
-A KUBE-SEP-AAAAAAAAAAAAAAAA -p tcp -m tcp -j DNAT --to-destination 10.244.0.5:8080
"""  # noqa: E501
NAT = Table(backend="legacy", family="ip", name="nat")
FILTER = Table(backend="legacy", family="ip", name="filter")


def source_of(text: str) -> IptablesSave:
    return read_iptables(text, "pasted", "legacy", "ip")


def texts(source: IptablesSave) -> dict[tuple[str, str], list[str]]:
    return {
        (table.name, name): [rule.text for rule in chain.rules]
        for table in source.tables()
        for name in source.chain_names(table)
        if (chain := source.chain(table, name))
    }

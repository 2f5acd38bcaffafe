"""iptables -L of single chains."""

from __future__ import annotations

from support.pasted_rules import NAT, source_of

LISTED = """\
Chain KUBE-SVC-AAAAAAAAAAAAAAAA (2 references)
target     prot opt source               destination
KUBE-SEP-AAAAAAAAAAAAAAAA  all  --  anywhere  anywhere  /* default/web */ statistic mode random probability 0.50000000000
KUBE-SEP-BBBBBBBBBBBBBBBB  all  --  anywhere  anywhere  /* default/web */
"""  # noqa: E501


def test_one_chain_of_a_list() -> None:
    source = source_of(LISTED)
    assert source.tables() == (NAT,)
    assert source.excerpt is not None
    assert source.excerpt.absent["nat"] == {
        "KUBE-SEP-AAAAAAAAAAAAAAAA",
        "KUBE-SEP-BBBBBBBBBBBBBBBB",
    }

"""The table of rules that do not name it."""

from __future__ import annotations

from support.pasted_rules import NAT, SERVICE, source_of, texts


def test_lines_without_their_table() -> None:
    source = source_of(SERVICE)
    assert source.tables() == (NAT,)
    assert source.excerpt is not None
    assert source.excerpt.whole == frozenset()
    chain = source.chain(NAT, "KUBE-SVC-AAAAAAAAAAAAAAAA")
    assert chain is not None
    assert [rule.number for rule in chain.rules] == [1, 2]


MIXED = """\
-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-AAAAAAAAAAAAAAAA
-A KUBE-SERVICES -d 10.96.0.11/32 -p tcp -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A MINE -j KUBE-SVC-AAAAAAAAAAAAAAAA
-A PREROUTING -d 169.254.20.10/32 -p udp -m udp --dport 53 -j NOTRACK
"""  # noqa: E501


def test_each_line_goes_to_the_table_of_its_target() -> None:
    assert texts(source_of(MIXED)) == {
        ("nat", "PREROUTING"): [
            '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
        ],
        ("nat", "OUTPUT"): ['-m comment --comment "kubernetes service portals" -j KUBE-SERVICES'],
        ("nat", "KUBE-SERVICES"): [
            "-d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-AAAAAAAAAAAAAAAA"
        ],
        ("nat", "MINE"): ["-j KUBE-SVC-AAAAAAAAAAAAAAAA"],
        ("filter", "FORWARD"): [
            "-m conntrack --ctstate NEW -m comment --comment "
            '"kubernetes service portals" -j KUBE-SERVICES'
        ],
        ("filter", "OUTPUT"): [
            "-m conntrack --ctstate NEW -m comment --comment "
            '"kubernetes service portals" -j KUBE-SERVICES'
        ],
        ("filter", "KUBE-SERVICES"): [
            "-d 10.96.0.11/32 -p tcp -m tcp --dport 80 -j REJECT "
            "--reject-with icmp-port-unreachable"
        ],
        ("filter", "KUBE-FORWARD"): ["-m mark --mark 0x4000/0x4000 -j ACCEPT"],
        ("raw", "PREROUTING"): ["-d 169.254.20.10/32 -p udp -m udp --dport 53 -j NOTRACK"],
    }

"""The texts behind the columns of iptables -L, as options of a save."""

from __future__ import annotations

import pytest

from kptrace.rules.iptables.listing_matches import extra_args

# (target, text, options of the matches, options of the target)
TEXTS = [
    ("ACCEPT", "", "", ""),
    ("ACCEPT", "/* a b */ tcp dpt:80", '-m comment --comment "a b" -m tcp --dport 80', ""),
    ("ACCEPT", "tcp spts:1024:65535 dpt:!22", "-m tcp --sport 1024:65535 ! --dport 22", ""),
    ("ACCEPT", "tcp flags:0x17/0x02", "-m tcp --tcp-flags FIN,SYN,RST,ACK SYN", ""),
    ("ACCEPT", "udp dpt:domain", "-m udp --dport 53", ""),
    ("ACCEPT", "ctstate RELATED,ESTABLISHED", "-m conntrack --ctstate RELATED,ESTABLISHED", ""),
    ("DROP", "! ctstate INVALID", "-m conntrack ! --ctstate INVALID", ""),
    ("DROP", "state NEW", "-m state --state NEW", ""),
    ("RETURN", "mark match ! 0x4000/0x4000", "-m mark ! --mark 0x4000/0x4000", ""),
    ("X", "ADDRTYPE match dst-type LOCAL", "-m addrtype --dst-type LOCAL", ""),
    ("X", "ADDRTYPE match src-type !LOCAL", "-m addrtype ! --src-type LOCAL", ""),
    (
        "X",
        "statistic mode random probability 0.33333333349",
        "-m statistic --mode random --probability 0.33333333349",
        "",
    ),
    (
        "X",
        "recent: CHECK seconds: 10800 reap name: KUBE-SEP-A side: source mask: 255.255.255.255",
        "-m recent --rcheck --seconds 10800 --reap --name KUBE-SEP-A --mask 255.255.255.255 "
        "--rsource",
        "",
    ),
    ("X", "match-set KUBE-CLUSTER-IP dst,dst", "-m set --match-set KUBE-CLUSTER-IP dst,dst", ""),
    ("X", "multiport dports 80,443", "-m multiport --dports 80,443", ""),
    ("X", "limit: avg 5/min burst 5", "-m limit --limit 5/min", ""),
    ("X", "limit: avg 5/min burst 9", "-m limit --limit 5/min --limit-burst 9", ""),
    ("DNAT", "tcp to:10.0.0.1:80", "-m tcp", "--to-destination 10.0.0.1:80"),
    ("DNAT", "to:10.0.0.1:80 random", "", "--to-destination 10.0.0.1:80 --random"),
    ("MASQUERADE", "random-fully", "", "--random-fully"),
    ("MASQUERADE", "masq ports: 1024-65535", "", "--to-ports 1024-65535"),
    ("REJECT", "reject-with icmp-port-unreachable", "", "--reject-with icmp-port-unreachable"),
    ("MARK", "MARK or 0x4000", "", "--set-xmark 0x4000/0x4000"),
    ("MARK", "MARK and 0xffffbfff", "", "--set-xmark 0x0/0x4000"),
    ("MARK", "MARK set 0x1", "", "--set-xmark 0x1/0xffffffff"),
    ("CONNMARK", "CONNMARK restore", "", "--restore-mark --nfmask 0xffffffff --ctmask 0xffffffff"),
    ("LOG", 'LOG flags 0 level 4 prefix "a b"', "", '--log-prefix "a b"'),
    ("X", "fancy 1 2", '-m listed --text "fancy 1 2"', ""),
    (
        "DNAT",
        "fancy 1 2 to:10.0.0.1:80",
        '-m listed --text "fancy 1 2"',
        "--to-destination 10.0.0.1:80",
    ),
]


@pytest.mark.parametrize(("target", "text", "matches", "options"), TEXTS)
def test_text(target: str, text: str, matches: str, options: str) -> None:
    own_matches, own = extra_args(text, target)
    assert (" ".join(own_matches), " ".join(own)) == (matches, options)

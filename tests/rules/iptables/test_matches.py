"""iptables' matches, as iptables-save prints them, against what the kernel does."""

from __future__ import annotations

import pytest
from support.rule_parts import bits, c, compiled, equal, f, names

from kptrace.rules.model.expressions import (
    AnonymousSet,
    AnyOf,
    Comparison,
    Concat,
    Count,
    Fib,
    InterfaceWildcard,
    Limit,
    Masked,
    NthMatch,
    Part,
    Prefix,
    RandomMatch,
    Range,
    Recent,
    SetRef,
    Socket,
    UnknownExpr,
    UnknownStatement,
)

PORTS = AnonymousSet(items=(c(80), Range(low=8000, high=8080)))
MATCHES: list[tuple[str, tuple[Part, ...]]] = [
    ("-s 10.0.0.1/32", (equal("ip saddr", "10.0.0.1"),)),
    (
        "! -d 10.0.0.0/8",
        (Comparison(left=f("ip daddr"), op="!=", right=Prefix(address="10.0.0.0", length=8)),),
    ),
    (
        "-s 10.0.0.0/255.0.255.0",
        (
            Comparison(
                left=f("ip saddr"), op="==", right=Masked(address="10.0.0.0", mask="255.0.255.0")
            ),
        ),
    ),
    (
        "-i cali+",
        (Comparison(left=f("meta iifname"), op="==", right=InterfaceWildcard(start="cali")),),
    ),
    ("! -o docker0", (Comparison(left=f("meta oifname"), op="!=", right=c("docker0")),)),
    ("-p ipencap", (equal("meta l4proto", "ipip"),)),
    ("-p 112", (equal("meta l4proto", "vrrp"),)),
    ("-p 200", (equal("meta l4proto", "200"),)),
    ("-p tcp -m tcp --dport 80", (equal("meta l4proto", "tcp"), equal("tcp dport", 80))),
    (
        "-p udp -m udp ! --sport 1024:65535",
        (
            equal("meta l4proto", "udp"),
            Comparison(left=f("udp sport"), op="!=", right=Range(low=1024, high=65535)),
        ),
    ),
    (
        "-m tcp --tcp-flags FIN,SYN,RST,ACK SYN",
        (Comparison(left=bits("and", f("tcp flags"), 1 | 2 | 4 | 16), op="==", right=c(2)),),
    ),
    ("-m icmp --icmp-type 8", (equal("icmp type", 8),)),
    ("-m icmp --icmp-type 3/1", (equal("icmp type", 3), equal("icmp code", 1))),
    ("-m icmp --icmp-type any", ()),
    (
        "-m multiport --dports 80,8000:8080",
        (Comparison(left=f("th dport"), op="==", right=PORTS),),
    ),
    (
        "-m multiport ! --ports 80,8000:8080",
        (
            AnyOf(
                tests=(
                    Comparison(left=f("th sport"), op="==", right=PORTS),
                    Comparison(left=f("th dport"), op="==", right=PORTS),
                ),
                negated=True,
            ),
        ),
    ),
    (
        "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT",
        (
            Comparison(
                left=f("ct state"), op="not in", right=names("related", "established", "dnat")
            ),
        ),
    ),
    ("-m state --state NEW", (Comparison(left=f("ct state"), op="in", right=names("new")),)),
    (
        "-m conntrack --ctstatus ASSURED,SEEN_REPLY",
        (Comparison(left=f("ct status"), op="in", right=names("assured", "seen-reply")),),
    ),
    (
        "-m conntrack --ctproto 6 --ctorigdst 10.96.0.1 --ctorigdstport 443 --ctdir ORIGINAL",
        (
            equal("ct original protocol", "tcp"),
            equal("ct original daddr", "10.96.0.1"),
            equal("ct original proto-dst", 443),
            equal("ct direction", "original"),
        ),
    ),
    ("-m mark --mark 0x5", (equal("meta mark", 5),)),
    (
        "-m mark ! --mark 0x4000/0x4000",
        (Comparison(left=bits("and", f("meta mark"), 0x4000), op="!=", right=c(0x4000)),),
    ),
    (
        "-m connmark --mark 0x1/0xf",
        (Comparison(left=bits("and", f("ct mark"), 0xF), op="==", right=c(1)),),
    ),
    (
        "-m addrtype --dst-type LOCAL",
        (Comparison(left=Fib(result="type", flags=("daddr",)), op="==", right=c("local")),),
    ),
    (
        "-m addrtype ! --src-type LOCAL,BROADCAST --limit-iface-out",
        (
            Comparison(
                left=Fib(result="type", flags=("saddr", "oif")),
                op="!=",
                right=names("local", "broadcast"),
            ),
        ),
    ),
    (
        "-m set --match-set svc dst,dst",
        (
            Comparison(
                left=Concat(parts=(f("ip daddr"), f("meta l4proto"), f("th dport"))),
                op="==",
                right=SetRef(name="svc", ipset=True),
            ),
        ),
    ),
    (
        "-m set ! --match-set loop dst,dst,src",
        (
            Comparison(
                left=Concat(
                    parts=(f("ip daddr"), f("meta l4proto"), f("th dport"), f("ip saddr"))
                ),
                op="!=",
                right=SetRef(name="loop", ipset=True),
            ),
        ),
    ),
    # too few directions: a key that no element has, as in the kernel
    (
        "-m set --match-set loop dst",
        (
            Comparison(
                left=f("ip daddr"), op="==", right=SetRef(name="loop", ipset=True)
            ),
        ),
    ),
    (
        "-m set --match-set ports dst",
        (Comparison(left=f("th dport"), op="==", right=SetRef(name="ports", ipset=True)),),
    ),
    (
        "-m set --match-set iface src,src",
        (
            Comparison(
                left=Concat(parts=(f("ip saddr"), f("meta iifname"))),
                op="==",
                right=SetRef(name="iface", ipset=True),
            ),
        ),
    ),
    (
        "-m set --match-set unheard-of src",
        (
            Comparison(
                left=UnknownExpr(text="src"), op="==", right=SetRef(name="unheard-of", ipset=True)
            ),
        ),
    ),
    ("-m statistic --mode random --probability 0.50000000000", (RandomMatch(probability=0.5),)),
    ("-m statistic --mode random ! --probability 0.25", (RandomMatch(probability=0.75),)),
    ("-m statistic --mode nth --every 3 --packet 1", (NthMatch(every=3, packet=1),)),
    (
        "-m recent --rcheck --seconds 10800 --reap --name KUBE-SEP-X --mask 255.255.255.255 "
        "--rsource",
        (
            Recent(
                action="rcheck", list="KUBE-SEP-X", seconds=10800, reap=True, mask="255.255.255.255"
            ),
        ),
    ),
    ("-m recent ! --update --name x --rdest", (
        Recent(action="update", list="x", by="daddr", negated=True),
    )),
    ("-m limit --limit 5/min", (Limit(rate="5/min", burst=5),)),
    (
        "-m hashlimit --hashlimit-above 10/sec --hashlimit-burst 7 --hashlimit-mode srcip "
        "--hashlimit-name x",
        (Limit(rate="10/sec", burst=7, over=True),),
    ),
    (
        "-m physdev ! --physdev-is-in",
        (Comparison(left=f("physdev is-in"), op="!=", right=c(1)),),
    ),
    (
        "-m physdev --physdev-in veth+ --physdev-is-bridged",
        (
            Comparison(left=f("physdev in"), op="==", right=InterfaceWildcard(start="veth")),
            equal("physdev is-bridged", 1),
        ),
    ),
    ("-m nfacct --nfacct-name  localhost_nps", (Count(name="localhost_nps"),)),
    (
        "-m iprange ! --src-range 10.0.0.1-10.0.0.9",
        (Comparison(left=f("ip saddr"), op="!=", right=Range(low="10.0.0.1", high="10.0.0.9")),),
    ),
    ("-m owner --uid-owner 1337", (equal("meta skuid", 1337),)),
    (
        "-m owner ! --gid-owner 1-5",
        (
            AnyOf(
                tests=(Comparison(left=f("meta skgid"), op="==", right=Range(low=1, high=5)),),
                negated=True,
            ),
        ),
    ),
    ("-m pkttype --pkt-type unicast", (equal("meta pkttype", "host"),)),
    ("-m ttl --ttl-lt 5", (Comparison(left=f("ip ttl"), op="<", right=c(5)),)),
    (
        "-m rpfilter --validmark --invert",
        (Comparison(left=Fib(result="oif", flags=("saddr", "mark", "iif")), op="==", right=c(0)),),
    ),
    (
        "-m rpfilter --loose",
        (Comparison(left=Fib(result="oif", flags=("saddr",)), op="!=", right=c(0)),),
    ),
    ("-m socket --transparent", (Socket(transparent=True),)),
    # what is not known keeps its words, as a whole
    (
        "-m string --string \"a b\" --algo bm",
        (UnknownStatement(text='-m string --string "a b" --algo bm'),),
    ),
    ("-m rpfilter --accept-local", (UnknownStatement(text="-m rpfilter --accept-local"),)),
    (
        "-m tcp --dport 80 --tcp-option 4",
        (UnknownStatement(text="-m tcp --dport 80 --tcp-option 4"),),
    ),
    ("-m set --match-set svc dst --return-nomatch", (
        UnknownStatement(text="-m set --match-set svc dst --return-nomatch"),
    )),
    ("-m statistic --mode random --probability 7", (
        UnknownStatement(text="-m statistic --mode random --probability 7"),
    )),
    ("-f", (UnknownStatement(text="-f"),)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), MATCHES, ids=[text for text, _ in MATCHES])
def test_match(text: str, expected: tuple[Part, ...]) -> None:
    assert compiled(text).body == expected

"""iptables' matches and targets, as iptables-save prints them, against what the kernel does."""

from __future__ import annotations

import pytest

from kptrace.rules.iptables.parse_rule import ParsedRule, parse_rule_args
from kptrace.rules.iptables.save import split_args
from kptrace.rules.model.expressions import (
    AnonymousSet,
    AnyOf,
    BitwiseExpr,
    Comparison,
    Concat,
    Const,
    Count,
    Dnat,
    Expr,
    Fib,
    Field,
    InterfaceWildcard,
    Limit,
    Log,
    Masked,
    Masquerade,
    NoEffect,
    NoTrack,
    NthMatch,
    Part,
    Prefix,
    RandomMatch,
    Range,
    Recent,
    Redirect,
    Reject,
    SetField,
    SetRef,
    SetUpdate,
    Snat,
    Socket,
    Tproxy,
    UnknownExpr,
    UnknownStatement,
    Verdict,
)
from kptrace.rules.model.sets import Set, SetElements

SETS = {
    "svc": ("ipv4_addr", "inet_proto", "inet_service"),
    "loop": ("ipv4_addr", "inet_proto", "inet_service", "ipv4_addr"),
    "ports": ("inet_service",),
    "nets": ("ipv4_addr",),
    "iface": ("ipv4_addr", "ifname"),
}


def find_set(name: str) -> Set | None:
    if name not in SETS:
        return None
    return Set(name=name, kind="set", type=SETS[name], members=SetElements())


def compiled(text: str, family: str = "ip") -> ParsedRule:
    chains = {"KUBE-SVC-X", "KUBE-MARK-MASQ"}
    return parse_rule_args(split_args(text), family, chains.__contains__, find_set)


def f(key: str) -> Field:
    return Field(key=key)


def c(value: str | int) -> Const:
    return Const(value=value)


def equal(key: str, value: str | int) -> Comparison:
    return Comparison(left=f(key), op="==", right=c(value))


def bits(op: str, left: Expr, right: Expr | int) -> BitwiseExpr:
    return BitwiseExpr(op=op, left=left, right=c(right) if isinstance(right, int) else right)  # type: ignore[arg-type]


def names(*values: str) -> AnonymousSet:
    return AnonymousSet(items=tuple(c(value) for value in values))


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


MARK, CT = f("meta mark"), f("ct mark")
TARGETS: list[tuple[str, tuple[Part, ...]]] = [
    ("-j ACCEPT", (Verdict(kind="accept"),)),
    ("-j DROP", (Verdict(kind="drop"),)),
    ("-j RETURN", (Verdict(kind="return"),)),
    ("-j KUBE-SVC-X", (Verdict(kind="jump", chain="KUBE-SVC-X"),)),
    ("-g KUBE-SVC-X", (Verdict(kind="goto", chain="KUBE-SVC-X"),)),
    ("-j NFQUEUE --queue-num 3 --queue-bypass", (Verdict(kind="queue"),)),
    ("-j REJECT --reject-with icmp-port-unreachable", (Reject(reply="icmp port-unreachable"),)),
    ("-j REJECT --reject-with icmp-proto-unreachable", (Reject(reply="icmp prot-unreachable"),)),
    ("-j REJECT --reject-with tcp-reset", (Reject(reply="tcp reset"),)),
    ("-j DNAT --to-destination 10.0.0.1:80", (Dnat(addr=c("10.0.0.1"), port=c(80)),)),
    ("-j DNAT --to-destination :53", (Dnat(addr=None, port=c(53)),)),
    (
        "-j DNAT --to-destination 10.0.0.1-10.0.0.5:8080-8090 --random --persistent",
        (
            Dnat(
                addr=Range(low="10.0.0.1", high="10.0.0.5"),
                port=Range(low=8080, high=8090),
                flags=("random", "persistent"),
            ),
        ),
    ),
    (
        "-j SNAT --to-source 1.1.1.1:1000-2000 --random-fully",
        (Snat(addr=c("1.1.1.1"), port=Range(low=1000, high=2000), flags=("fully-random",)),),
    ),
    ("-j MASQUERADE --random-fully", (Masquerade(flags=("fully-random",)),)),
    ("-j MASQUERADE --to-ports 1024-2000", (Masquerade(port=Range(low=1024, high=2000)),)),
    ("-j REDIRECT --to-ports 15001", (Redirect(port=c(15001)),)),
    ("-j REDIRECT", (Redirect(),)),
    # (mark & ~0x4000) ^ 0x4000; with mask 0 a plain xor; with a full mask a plain value
    (
        "-j MARK --set-xmark 0x4000/0x4000",
        (SetField(field=MARK, value=bits("xor", bits("and", MARK, 0xFFFFBFFF), 0x4000)),),
    ),
    ("-j MARK --set-xmark 0x4000/0x0", (SetField(field=MARK, value=bits("xor", MARK, 0x4000)),)),
    ("-j MARK --set-xmark 0x1/0xffffffff", (SetField(field=MARK, value=c(1)),)),
    (
        "-j CONNMARK --save-mark --nfmask 0xff --ctmask 0xffff",
        (
            SetField(
                field=CT,
                value=bits("xor", bits("and", CT, 0xFFFF0000), bits("and", MARK, 0xFF)),
                tolerant=True,
            ),
        ),
    ),
    (
        "-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff",
        (SetField(field=MARK, value=CT, tolerant=True),),
    ),
    (
        "-j CONNMARK --set-xmark 0x5/0xff",
        (SetField(field=CT, value=bits("xor", bits("and", CT, 0xFFFFFF00), 5), tolerant=True),),
    ),
    ("-j CT --notrack", (NoTrack(),)),
    ("-j NOTRACK", (NoTrack(),)),
    ("-j CT --zone 5", (SetField(field=f("ct zone"), value=c(5), tolerant=True),)),
    ("-j TRACE", (SetField(field=f("meta nftrace"), value=c(1)),)),
    (
        "-j TPROXY --on-port 15006 --on-ip 0.0.0.0 --tproxy-mark 0x1/0x1",
        (
            Tproxy(
                port=c(15006),
                mark=bits("xor", bits("and", MARK, 0xFFFFFFFE), 1),
                accepts=True,
            ),
        ),
    ),
    ('-j LOG --log-prefix "a b: "', (Log(prefix="a b: "),)),
    ("-j NFLOG --nflog-prefix x --nflog-group 1", (Log(prefix="x", group=1),)),
    (
        "-j SET --add-set nets src --exist --timeout 60",
        (
            SetUpdate(
                op="add",
                set=SetRef(name="nets", ipset=True),
                key=f("ip saddr"),
                timeout=60,
            ),
        ),
    ),
    ("-j TTL --ttl-set 64", (SetField(field=f("ip ttl"), value=c(64)),)),
    ("-j DSCP --set-dscp 0x1a", (SetField(field=f("ip dscp"), value=c(26)),)),
    ("-j TCPMSS --clamp-mss-to-pmtu", (NoEffect(text="TCPMSS --clamp-mss-to-pmtu"),)),
    (
        "-j NETMAP --to 10.1.0.0/16",
        (UnknownStatement(text="-j NETMAP --to 10.1.0.0/16", match=False),),
    ),
    ("-j KUBE-GONE", (UnknownStatement(text="-j KUBE-GONE", match=False),)),
]


@pytest.mark.parametrize(("text", "expected"), TARGETS, ids=[text for text, _ in TARGETS])
def test_target(text: str, expected: tuple[Part, ...]) -> None:
    assert compiled(text).body == expected


IPV6: list[tuple[str, tuple[Part, ...]]] = [
    ("-s fd00::1/128", (equal("ip6 saddr", "fd00::1"),)),
    (
        "! -d fd00::/48",
        (Comparison(left=f("ip6 daddr"), op="!=", right=Prefix(address="fd00::", length=48)),),
    ),
    (
        "-p ipv6-icmp -m icmp6 --icmpv6-type 135",
        (equal("meta l4proto", "icmpv6"), equal("icmpv6 type", 135)),
    ),
    ("-m hl --hl-eq 255", (equal("ip6 hoplimit", 255),)),
    ("-j REJECT --reject-with icmp6-port-unreachable", (Reject(reply="icmpv6 port-unreachable"),)),
    ("-j REJECT --reject-with icmp6-adm-prohibited", (Reject(reply="icmpv6 admin-prohibited"),)),
    ("-j DNAT --to-destination [fd00::1]:80", (Dnat(addr=c("fd00::1"), port=c(80)),)),
    (
        "-j DNAT --to-destination fd00::1-fd00::5",
        (Dnat(addr=Range(low="fd00::1", high="fd00::5")),),
    ),
    (
        "-j DNAT --to-destination [fd00::1-fd00::5]:80-90",
        (Dnat(addr=Range(low="fd00::1", high="fd00::5"), port=Range(low=80, high=90)),),
    ),
]


@pytest.mark.parametrize(("text", "expected"), IPV6, ids=[text for text, _ in IPV6])
def test_ipv6(text: str, expected: tuple[Part, ...]) -> None:
    assert compiled(text, family="ip6").body == expected


def test_parts_keep_the_order_of_the_words() -> None:
    rule = compiled(
        '! -s 10.244.0.0/16 -d 10.96.1.33/32 -p tcp -m comment --comment "default/web cluster IP" '
        "-m tcp --dport 80 -j KUBE-MARK-MASQ"
    )
    assert rule.comment == "default/web cluster IP"
    assert rule.body == (
        Comparison(left=f("ip saddr"), op="!=", right=Prefix(address="10.244.0.0", length=16)),
        equal("ip daddr", "10.96.1.33"),
        equal("meta l4proto", "tcp"),
        equal("tcp dport", 80),
        Verdict(kind="jump", chain="KUBE-MARK-MASQ"),
    )


def test_several_comments_and_escapes() -> None:
    text = r'-m comment --comment "cali:a-b_c" -m comment --comment "say \"x\" \\ y" -j DROP'
    assert compiled(text).comment == r'cali:a-b_c say "x" \ y'


@pytest.mark.parametrize("text", ["-m", "-j", "-s 10.0.0.0/8 !", "-p tcp -m"])
def test_words_that_end_early(text: str) -> None:
    with pytest.raises(ValueError):
        compiled(text)


@pytest.mark.parametrize("text", ['"open', 'a"b', '"x"y', '-m comment --comment "x'])
def test_quotes_that_do_not_close(text: str) -> None:
    with pytest.raises(ValueError):
        split_args(text)


def test_core_options_belong_to_the_rule_wherever_they_stand() -> None:
    """kube-proxy writes ``-m tcp -p tcp -d ADDRESS --dport PORT``; a save prints another order."""
    expected = (
        equal("meta l4proto", "tcp"),
        equal("ip daddr", "172.30.0.41"),
        equal("tcp dport", 80),
    )
    assert set(compiled("-m tcp -p tcp -d 172.30.0.41 --dport 80").body) == set(expected)
    assert set(compiled("-j ACCEPT -p tcp -d 172.30.0.41 -m tcp --dport 80").body) > set(expected)

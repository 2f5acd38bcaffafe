"""iptables' targets, as iptables-save prints them, against what the kernel does."""

from __future__ import annotations

import pytest
from support.rule_parts import bits, c, compiled, f

from kptrace.rules.model.expressions import (
    Dnat,
    Log,
    Masquerade,
    NoEffect,
    NoTrack,
    Part,
    Range,
    Redirect,
    Reject,
    SetField,
    SetRef,
    SetUpdate,
    Snat,
    Tproxy,
    UnknownStatement,
    Verdict,
)

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

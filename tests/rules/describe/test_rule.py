"""What is said of rules that real programs wrote, and that something is said of every rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from kptrace.rules.describe.rule import describe
from kptrace.rules.iptables.save import IptablesSave
from kptrace.rules.model.ruleset import Rule
from kptrace.rules.nftables.json_ruleset import NftRuleset

KUBE_PROXY = [
    (
        "KUBE-SVC-4FSO5DJTEYQIVJA4",
        '! -s 10.244.0.0/16 -d 10.96.1.33/32 -p tcp -m comment --comment "default/web cluster IP" '
        "-m tcp --dport 80 -j KUBE-MARK-MASQ",
        "marks it for masquerade because the source is outside 10.244.0.0/16",
    ),
    (
        "KUBE-SEP-AAAAAAAAAAAAAAAA",
        '-s 10.244.1.11/32 -m comment --comment "default/web" -j KUBE-MARK-MASQ',
        "marks it for masquerade because the source is the backend itself",
    ),
    (
        "KUBE-SVC-AAAAAAAAAAAAAAAA",
        '-m comment --comment "default/web -> 10.244.1.11:8080" -m statistic --mode random '
        "--probability 0.33333333349 -j KUBE-SEP-AAAAAAAAAAAAAAAA",
        "1 in 3 chance (of those left): backend 10.244.1.11:8080",
    ),
    (
        "KUBE-SVC-AAAAAAAAAAAAAAAA",
        '-m comment --comment "default/web -> 10.244.1.11:8080" -j KUBE-SEP-AAAAAAAAAAAAAAAA',
        "the only backend left: 10.244.1.11:8080",
    ),
    (
        "KUBE-SVC-AAAAAAAAAAAAAAAA",
        "-m statistic --mode random --probability 0.20000000019 -j KUBE-SEP-AAAAAAAAAAAAAAAA",
        "1 in 5 chance (of those left): backend KUBE-SEP-AAAAAAAAAAAAAAAA",
    ),
    (
        "KUBE-SVC-AAAAAAAAAAAAAAAA",
        '-m comment --comment "default/sticky -> 10.244.1.11:8080" -m recent --rcheck --seconds '
        "10800 --reap --name KUBE-SEP-AAAAAAAAAAAAAAAA --mask 255.255.255.255 --rsource "
        "-j KUBE-SEP-AAAAAAAAAAAAAAAA",
        "same backend 10.244.1.11:8080 as within the last 10800 s",
    ),
    (
        "KUBE-SERVICES",
        '-d 10.96.1.7/32 -p tcp -m comment --comment "shop/remote:http cluster IP" -m tcp '
        "--dport 80 -j KUBE-SVC-AAAAAAAAAAAAAAAA",
        "shop/remote:http cluster IP",
    ),
    (
        "KUBE-NODEPORTS",
        '-p tcp -m comment --comment "default/np" -m tcp --dport 30081 -j '
        "KUBE-EXT-AAAAAAAAAAAAAAAA",
        "default/np NodePort 30081",
    ),
    (
        "KUBE-EXT-AAAAAAAAAAAAAAAA",
        "-j KUBE-SVL-AAAAAAAAAAAAAAAA",
        "goes on to its endpoints on this node (KUBE-SVL-AAAAAAAAAAAAAAAA)",
    ),
    (
        "KUBE-SERVICES",
        '-d 10.96.1.2/32 -p tcp -m comment --comment "shop/empty has no endpoints" -m tcp '
        "--dport 80 -j REJECT --reject-with icmp-port-unreachable",
        "rejects it: shop/empty has no endpoints",
    ),
    (
        "KUBE-EXTERNAL-SERVICES",
        '-p tcp -m comment --comment "shop/x has no local endpoints" -m tcp --dport 30082 -j DROP',
        "drops it: shop/x has no local endpoints",
    ),
    (
        "KUBE-SEP-AAAAAAAAAAAAAAAA",
        '-p tcp -m comment --comment "default/web" -m tcp -j DNAT --to-destination '
        "10.244.2.21:8080",
        "DNAT to 10.244.2.21:8080",
    ),
    (
        "KUBE-NODEPORTS",
        '-p tcp -m comment --comment "shop/front:" -m tcp --dport 30444 '
        "-j KUBE-XLB-AAAAAAAAAAAAAAAA",
        "shop/front NodePort 30444",
    ),
    (
        "KUBE-XLB-AAAAAAAAAAAAAAAA",
        '-m comment --comment "shop/front: has no local endpoints" -j KUBE-MARK-DROP',
        "marks it to be dropped: shop/front: has no local endpoints",
    ),
    ("KUBE-FIREWALL", "-j KUBE-MARK-DROP", "marks it to be dropped"),
    (
        "KUBE-POSTROUTING",
        "-m mark ! --mark 0x4000/0x4000 -j RETURN",
        "leaves the chain because the mark lacks 0x4000",
    ),
    ("KUBE-POSTROUTING", "-j MARK --set-xmark 0x4000/0x0", "clears the masquerade mark"),
    ("KUBE-POSTROUTING", "-j MASQUERADE --random-fully", "masquerades it as this node"),
    ("KUBE-MARK-MASQ", "-j MARK --set-xmark 0x4000/0x4000", "marks it for masquerade"),
    (
        "KUBE-SERVICES",
        "-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",
        "goes on to the NodePorts because the destination is this node",
    ),
    (
        "KUBE-FORWARD",
        "-m conntrack --ctstate INVALID -j DROP",
        "drops it because the connection is invalid",
    ),
]
OTHERS = [
    (
        "FORWARD",
        '-m comment --comment "flanneld forward" -j FLANNEL-FWD',
        "goes on to Flannel's forwarding rules",
    ),
    (
        "FLANNEL-POSTRTG",
        '-s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE '
        "--random-fully",
        "masquerades it as this node because the source is in 10.244.0.0/16",
    ),
    (
        "cali-tw-cali1234",
        '-m comment --comment "cali:xyz" -m comment --comment "Drop if no policies passed packet" '
        "-m mark --mark 0x0/0x20000 -j DROP",
        "drops it: Drop if no policies passed packet",
    ),
    (
        "cali-from-wl-dispatch",
        '-i cali1234 -m comment --comment "cali:xyz" -g cali-fw-cali1234',
        "goes on to egress policy of the pod at cali1234 because the way in is cali1234",
    ),
    (
        "cali-PREROUTING",
        '-i cali+ -m comment --comment "cali:x" -j MARK --set-xmark 0x40000/0x40000',
        "sets 0x40000 of the mark because the way in is cali*",
    ),
    ("INPUT", "-p tcp -m tcp --dport 22 -j ACCEPT", "lets it pass because tcp port is 22"),
    (
        "INPUT",
        "-p udp -m udp --dport 4789 -m u32 --u32 x -j DROP",
        "drops it because udp port is 4789 and perhaps -m u32 --u32 x",
    ),
    ("INPUT", "-j FANCY --x 1", "does something unknown: -j FANCY --x 1"),
    ("INPUT", "", "counts it"),
]


def iptables_rule(chain: str, text: str) -> Rule:
    chains = ["KUBE-NODEPORTS", "KUBE-MARK-MASQ", "FLANNEL-FWD", "cali-fw-cali1234"]
    chains += ["KUBE-MARK-DROP"]
    chains += [f"KUBE-{kind}-{'A' * 16}" for kind in ("SVC", "SVL", "SEP", "EXT", "XLB")]
    declared = "".join(f":{name} - [0:0]\n" for name in {chain, *chains} - {"INPUT", "FORWARD"})
    hooked = ":INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n"
    save = f"*filter\n{hooked}{declared}-A {chain} {text}\nCOMMIT\n"
    source = IptablesSave(save, "iptables-save.txt", "legacy", "ip")
    source_chain = source.chain(source.tables()[0], chain)
    assert source_chain is not None
    return source_chain.rules[0]


@pytest.mark.parametrize(
    ("chain", "text", "description"),
    [*KUBE_PROXY, *OTHERS],
    ids=[case[2] for case in KUBE_PROXY + OTHERS],
)
def test_iptables(chain: str, text: str, description: str) -> None:
    assert describe(iptables_rule(chain, text)) == description


# chain of the real dump, 1-based number of the rule, what is said
NFTABLES = [
    ("nat-prerouting", 1, "goes on to the Services"),
    ("services", 2, "finds the Service by address and port"),
    ("services", 3, "finds the Service by NodePort"),
    ("service-endpoints-check", 1, "asks whether the Service has no endpoints"),
    ("cluster-ips-check", 1, "rejects it: Reject traffic to invalid ports of ClusterIPs"),
    (
        "service-QYXVEBPC-prod/single/tcp/",
        1,
        "the only backend 10.244.1.11:8080",
    ),
    (
        "service-NWBZK7IH-kube-system/kube-dns/tcp/dns-tcp",
        1,
        "1 in 2 chance each: 10.244.1.53:53, 10.244.2.53:53",
    ),
    ("external-KISD3DDN-default/np-cluster/tcp/", 1, "marks it for masquerade"),
    ("external-KISD3DDN-default/np-cluster/tcp/", 2, "goes on to its endpoints"),
    (
        "service-EDE2N7RF-default/sticky/tcp/",
        1,
        "same backend as before 10.244.1.11:8080",
    ),
    ("endpoint-ULCOWIUC-default/sticky/tcp/__10.244.1.11/8080", 1, "remembers the client"),
    (
        "endpoint-ULCOWIUC-default/sticky/tcp/__10.244.1.11/8080",
        2,
        "DNAT to 10.244.1.11:8080",
    ),
]


@pytest.mark.parametrize(("chain", "number", "description"), NFTABLES)
def test_nftables(dumps: Path, chain: str, number: int, description: str) -> None:
    text = (dumps / "nftables-default" / "node-a" / "nft-ruleset.json").read_text()
    source = NftRuleset(text, "nft-ruleset.json")
    source_chain = source.chain(source.tables()[0], chain)
    assert source_chain is not None
    assert describe(source_chain.rules[number - 1]) == description


def test_something_short_is_said_of_every_rule(dumps: Path) -> None:
    for path in sorted(dumps.glob("*/node-*/ip*tables-save.txt")):
        family = "ip6" if path.name.startswith("ip6") else "ip"
        source = IptablesSave(path.read_text(), path.name, "nft", family)
        for table in source.tables():
            for name in source.chain_names(table):
                source_chain = source.chain(table, name)
                assert source_chain is not None
                for rule in source_chain.rules:
                    assert 0 < len(describe(rule)) <= 90

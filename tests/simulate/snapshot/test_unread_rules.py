"""A Service that no rule translates is a fault only where all rules that could do it were read."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from kptrace.model import Netns
from kptrace.model.family import Family
from kptrace.rules.load import load_ruleset
from kptrace.rules.model.coverage import LISTED_NOTHING
from kptrace.simulate.snapshot.network import Link
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace.simulate.snapshot.unread_rules import UnreadRules, unread_rules

EMPTY_NAT = "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n"
KUBE_PROXY = """\
*filter
:FORWARD ACCEPT [0:0]
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.9/32 -p tcp -m tcp --dport 80 -j ACCEPT
COMMIT
"""
IPVS_MODE = KUBE_PROXY.replace(":KUBE-SERVICES", ":KUBE-LOAD-BALANCER - [0:0]\n:KUBE-SERVICES")
CILIUM = EMPTY_NAT.replace("COMMIT", ":CILIUM_POST_nat - [0:0]\nCOMMIT")
LEGACY_TOO = "# Warning: iptables-legacy tables present, use iptables-legacy-save to see them\n"
NFT = '{"nftables": [{"metainfo": {"json_schema_version": 1}}]}'


def unread(
    files: Mapping[str, str], family: Family = Family.IPV4, links: tuple[Link, ...] = ()
) -> UnreadRules | None:
    snapshot = Snapshot(netns=Netns(node="node-a"), ruleset=load_ruleset(files), links=links)
    return unread_rules(snapshot, family)


@pytest.mark.parametrize(
    ("files", "hint"),
    [
        ({}, "add iptables-save.txt: iptables-save"),
        ({"iptables-save.txt": ""}, "add iptables-save.txt: iptables-save"),
        ({"iptables-save.txt": EMPTY_NAT}, "add nft-ruleset.json: nft -j list ruleset"),
        (
            {"iptables-nft-save.txt": EMPTY_NAT + LEGACY_TOO, "nft-ruleset.json": NFT},
            "add iptables-legacy-save.txt: iptables-legacy-save",
        ),
        (
            {"iptables-save.txt": CILIUM, "nft-ruleset.json": NFT},
            "add cilium-service-list.json: cilium-dbg service list -o json",
        ),
        ({"iptables-save.txt": IPVS_MODE}, "add ipvsadm-Sn.txt: ipvsadm -Sn"),
    ],
)
def test_the_file_that_would_tell(files: Mapping[str, str], hint: str) -> None:
    gap = unread(files)
    assert gap is not None
    assert gap.hint == hint


@pytest.mark.parametrize(
    "files",
    [
        {"iptables-save.txt": KUBE_PROXY},
        {"iptables-save.txt": EMPTY_NAT, "nft-ruleset.json": NFT},
        {"iptables-save.txt": LISTED_NOTHING, "nft-ruleset.json": NFT},
        {
            "iptables-nft-save.txt": EMPTY_NAT + LEGACY_TOO,
            "iptables-legacy-save.txt": EMPTY_NAT,
            "nft-ruleset.json": NFT,
        },
        {"iptables-save.txt": IPVS_MODE, "ipvsadm-Sn.txt": "-A -t 10.96.0.9:80 -s rr\n"},
    ],
)
def test_all_that_kube_proxy_may_write_was_read(files: Mapping[str, str]) -> None:
    assert unread(files) is None


def test_each_family_has_its_own_file() -> None:
    gap = unread({"iptables-save.txt": KUBE_PROXY}, Family.IPV6)
    assert gap is not None
    assert gap.hint == "add ip6tables-save.txt: ip6tables-save"
    assert "IPv6" in gap.description
    both = {"iptables-save.txt": KUBE_PROXY, "ip6tables-save.txt": EMPTY_NAT}
    assert unread(both, Family.IPV6) is None


def test_ciliums_device_means_cilium() -> None:
    files = {"iptables-save.txt": EMPTY_NAT, "nft-ruleset.json": NFT}
    gap = unread(files, links=(Link(index=3, name="cilium_host"),))
    assert gap is not None
    assert "cilium-service-list.json" in gap.hint

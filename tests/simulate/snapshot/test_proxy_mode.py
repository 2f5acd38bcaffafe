"""Who translates on a node, and that two who do are told."""

from __future__ import annotations

from pathlib import Path

from kptrace.diagnose.conflicting_proxies import conflicting_proxies
from kptrace.model import Netns
from kptrace.simulate.snapshot.proxy_mode import proxy_of
from kptrace.simulate.snapshot.snapshot import read_snapshot

NODE = Netns(node="node-a")
EMPTY = "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\nCOMMIT\n"
RULES = EMPTY.replace("COMMIT", "-A KUBE-SERVICES -j ACCEPT\nCOMMIT")
IPVS = "-A -t 10.96.0.1:443 -s rr\n"


def test_each_proxy_by_what_it_left(cases: Path) -> None:
    nft = (cases / "kube-proxy" / "node-a" / "nft-ruleset.json").read_text()
    known = {
        "iptables": {"iptables-save.txt": RULES},
        "nftables": {"nft-ruleset.json": nft},
        "ipvs": {"iptables-save.txt": RULES, "ipvsadm-Sn.txt": IPVS},
        "none": {"iptables-save.txt": EMPTY},
        "cilium": {"ip-link.json": '[{"ifindex": 9, "ifname": "cilium_host", "flags": []}]'},
    }
    for proxy, files in known.items():
        assert proxy_of(read_snapshot(NODE, files)) == proxy


def test_two_nat_tables_are_named_with_what_clears_them() -> None:
    files = {"iptables-legacy-save.txt": RULES, "iptables-nft-save.txt": RULES}
    (found,) = conflicting_proxies("node-a", read_snapshot(NODE, files).ruleset)
    assert (found.cause, found.severity) == ("conflicting-nat-tables", "warning")
    assert found.object == "iptables-legacy nat and iptables-nft nat"
    assert any(line.startswith("iptables-nft-save | grep -v KUBE-") for line in found.remedy)


def test_one_of_two_that_is_empty_is_no_rival() -> None:
    files = {"iptables-legacy-save.txt": EMPTY, "iptables-nft-save.txt": RULES}
    assert list(conflicting_proxies("node-a", read_snapshot(NODE, files).ruleset)) == []

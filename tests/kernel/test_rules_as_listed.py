"""Rules loaded into a namespace of our own: what the kernel's own tools list is what we read.

nft lists the same ruleset as text and as JSON: our line, made from the JSON, must be its text.
iptables-save of both backends must come out rule by rule as it stands.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from kptrace.rules.iptables.save import Backend, IptablesSave
from kptrace.rules.load import load_ruleset
from kptrace.rules.model.expressions import UnknownStatement
from kptrace.rules.nftables.json_ruleset import NftRuleset

pytestmark = pytest.mark.kernel


class Namespace:
    def __init__(self) -> None:
        self.name = f"kpt-rules-{os.getpid()}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)

    def run(self, *words: str, given: str = "") -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *words],
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace()
    yield made
    subprocess.run(["ip", "netns", "del", made.name], check=True)


NFT_SETS = """
set nets { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.168.0.1-192.168.0.9 }; }
set timed { type ipv4_addr; flags timeout; elements = { 1.1.1.1 timeout 1h comment "c d" }; }
set names { type ifname; flags interval; elements = { "cali*", "eth0" }; }
set marks { type mark; elements = { 0x10, 0x20 }; }
set pairs { typeof ip saddr . tcp dport; elements = { 1.1.1.1 . 5 }; }
map tomark { type ipv4_addr : mark; elements = { 1.1.1.1 : 0x5 , * : 0x6 }; }
map verdicts { type ipv4_addr : verdict; flags interval; elements = { 10.0.0.0/8 : jump w }; }
map todest {
  type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service;
  elements = { 1.1.1.1 . tcp . 80 : 2.2.2.2 . 8080 };
}
"""
NFT_RULES = """
iifname { "eth0", "eth1" } accept
iifname "cali*" accept
iifname @names accept
oifname != "docker0" accept
ct state established,related accept
ct state vmap { established : accept, related : accept, invalid : drop }
ct state { established, new } accept
ct state != new accept
ct state ! invalid accept
ct status dnat accept
ct mark & 0xff == 0x1 accept
ct mark set meta mark
meta mark set ct mark and 0xff
meta mark set meta mark & 0xffffff00 | 0x5
ct original ip daddr 1.1.1.1 accept
ct direction reply accept
tcp flags syn / fin,syn,rst,ack accept
tcp flags syn accept
tcp dport { 80, 443, 8000-8080 } accept
tcp sport != 1-1023 accept
th dport 53 accept
meta l4proto { tcp, udp } th dport 53 accept
meta nfproto ipv4 accept
icmp type { echo-reply, destination-unreachable } accept
icmpv6 type { nd-neighbor-solicit, nd-router-advert } accept
ip protocol 4 accept
ip saddr @nets accept
ip saddr . tcp dport @pairs accept
ip saddr { 1.1.1.1, 2.0.0.0/8, 3.0.0.1-3.0.0.5 } accept
ip6 saddr fe80::/10 accept
ip saddr & 0.0.0.255 == 0.0.0.5 accept
meta mark @marks accept
meta mark & 0x4000 == 0x4000 return
meta skuid 1000 accept
meta pkttype broadcast drop
fib daddr type { local, broadcast } accept
fib saddr . iif oif missing drop
limit rate 5/second burst 10 packets accept
limit rate over 1 mbytes/second drop
counter drop
log prefix "x y" group 5
jhash ip saddr . tcp sport mod 3 vmap { 0 : accept, 1 : drop, 2 : jump w }
numgen inc mod 4 offset 10 vmap { 10 : accept }
symhash mod 2 vmap { 0 : accept }
ip saddr vmap @verdicts
meta mark set ip saddr map @tomark
meta mark set ip saddr map { 1.1.1.1 : 5 }
update @pairs { ip saddr . tcp dport counter }
add @timed { ip saddr timeout 5m }
ip dscp set cs2
@th,16,16 80 accept
quota over 10 mbytes drop
ct count over 5 drop
socket transparent 1 accept
meta nftrace set 1
reject
reject with tcp reset
reject with icmp port-unreachable
reject with icmpx admin-prohibited
ip saddr 1.1.1.1 comment "hello wörld"
"""
NFT_NAT = """
dnat ip to 1.1.1.1
tcp dport 5 dnat ip to 1.1.1.1-1.1.1.5:80-90 random,persistent
tcp dport 5 dnat ip6 to [fd00::1]:80
tcp dport 80 redirect to :8080
dnat ip to ip saddr map { 1.1.1.1 : 2.2.2.2 }
ip protocol tcp dnat ip addr . port to ip daddr . meta l4proto . th dport map @todest
meta l4proto tcp dnat ip addr . port to numgen random mod 2 map { 0 : 1.1.1.1 . 5, 1 : 1.1.1.1 . 6 }
"""
# what we read but cannot evaluate
NFT_OPAQUE = ("quota ", "ct count ")


def test_nft_lists_what_we_read(namespace: Namespace) -> None:
    namespace.run(
        "nft",
        "-f",
        "-",
        given=f"table inet t {{ {NFT_SETS}\nchain w {{ }}\n"
        f"chain c {{ type filter hook input priority 5; policy drop;\n{NFT_RULES}}}\n"
        f"chain n {{ type nat hook prerouting priority dstnat;\n{NFT_NAT}}}\n}}",
    )
    source = NftRuleset(namespace.run("nft", "-j", "list", "ruleset"), "nft-ruleset.json")
    (table,) = source.tables()
    for name, count in (("c", len(NFT_RULES.split("\n"))), ("n", len(NFT_NAT.split("\n")))):
        listed = namespace.run("nft", "list", "chain", "inet", "t", name).split("\n")
        expected = [line.strip() for line in listed if line.startswith("\t\t")][1:]
        chain = source.chain(table, name)
        assert chain is not None
        assert [rule.text for rule in chain.rules] == expected
        assert len(expected) == count - 2
        opaque = [rule.text for rule in chain.rules if "Unknown" in repr(rule.body)]
        assert [text for text in opaque if not text.startswith(NFT_OPAQUE)] == []


def test_nft_sets_hold_what_the_kernel_says_they_hold(namespace: Namespace) -> None:
    namespace.run("nft", "-f", "-", given=f"table inet t {{ chain w {{ }}\n{NFT_SETS}}}")
    source = NftRuleset(namespace.run("nft", "-j", "list", "ruleset"), "nft-ruleset.json")
    (table,) = source.tables()

    def inside(name: str, *key: str | int) -> bool:
        found = source.set(table, name)
        assert found is not None
        return found.members.lookup(key) is not None

    def kernel(name: str, element: str) -> bool:
        asked = ["nft", "get", "element", "inet", "t", name, f"{{ {element} }}"]
        words = ["ip", "netns", "exec", namespace.name, *asked]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    for name, address in [
        ("nets", "10.1.2.3"),
        ("nets", "11.0.0.0"),
        ("nets", "192.168.0.9"),
        ("nets", "192.168.0.10"),
        ("timed", "1.1.1.1"),
        ("timed", "1.1.1.2"),
        ("verdicts", "10.255.255.255"),
    ]:
        assert inside(name, address) is kernel(name, address)
    assert inside("pairs", "1.1.1.1", 5) is kernel("pairs", "1.1.1.1 . 5") is True
    assert inside("marks", 16) is kernel("marks", "0x10") is True


IPTABLES = r"""
-t raw -A PREROUTING -p udp --dport 4789 -j CT --notrack
-t raw -A PREROUTING -m rpfilter --validmark --invert -j DROP
-t raw -A PREROUTING -i cali+ -j MARK --set-xmark 0x40000/0x40000
-t mangle -A PREROUTING -p tcp ! --dport 22 -j TPROXY --on-port 15006 --tproxy-mark 0x1/0x1
-t mangle -A PREROUTING -j CONNMARK --restore-mark
-t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
-t nat -A PREROUTING -g MINE
-t nat -A PREROUTING -p tcp -d 1.2.3.4 --dport 80:90 -j DNAT --to-destination 10.0.0.1:8080
-t nat -A PREROUTING -p tcp -m multiport ! --ports 80,443 -j REDIRECT --to-ports 15001
-t nat -A POSTROUTING -p tcp -j SNAT --to-source 1.1.1.1:1000-2000 --random-fully
-t nat -A POSTROUTING ! -s 10.0.0.0/8 ! -o docker0 -j MASQUERADE
-t nat -A OUTPUT -m owner ! --uid-owner 1337 -j RETURN
-A INPUT -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A INPUT -m conntrack --ctorigdst 10.96.0.1 --ctorigdstport 443 --ctproto tcp -j ACCEPT
-A INPUT -p icmp --icmp-type 3/1 -j ACCEPT
-A INPUT ! -p 112 -m mark ! --mark 0x4000/0x4000 -j ACCEPT
-A INPUT -m addrtype --dst-type LOCAL -m physdev ! --physdev-is-in -j DROP
-A INPUT -m recent --rcheck --seconds 60 --reap --name k --rsource -j DROP
-A INPUT -m statistic --mode random --probability 0.25 -j DROP
-A INPUT -s 10.0.0.1/255.0.255.0 -j REJECT
-A INPUT -m comment --comment "cali:a" -m comment --comment "say: \"x\" 'y' \\ z" -j DROP
-A INPUT
-A INPUT -c 5 10 -i lo -j ACCEPT
"""


def load(namespace: Namespace, backend: Backend, family: str = "ip") -> str:
    program = "iptables" if family == "ip" else "ip6tables"
    namespace.run(f"{program}-{backend}", "-t", "nat", "-N", "MINE")
    for line in IPTABLES.strip().split("\n"):
        words = [a or b for a, b in re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', line)]
        plain = [re.sub(r"\\(.)", r"\1", word) for word in words]
        namespace.run(f"{program}-{backend}", *plain)
    return namespace.run(f"{program}-{backend}-save", "-c")


@pytest.mark.parametrize("backend", ["legacy", "nft"])
def test_iptables_save_comes_out_as_it_stands(namespace: Namespace, backend: Backend) -> None:
    text = load(namespace, backend)
    source = IptablesSave(text, "iptables-save.txt", backend, "ip")
    rules = [
        rule
        for table in source.tables()
        for name in source.chain_names(table)
        if (chain := source.chain(table, name))
        for rule in chain.rules
    ]
    lines = re.findall(r"^\[(\d+):(\d+)\] -A (\S+) ?(.*)$", text, re.MULTILINE)
    assert sorted((str(r.packets), str(r.bytes), r.chain, r.text) for r in rules) == sorted(lines)
    assert len(rules) == len(IPTABLES.strip().split("\n"))
    assert not [
        rule.text for rule in rules if any(isinstance(p, UnknownStatement) for p in rule.body)
    ]


def test_hooks_and_priorities_are_those_that_nft_lists(namespace: Namespace) -> None:
    """iptables-nft's base chains, as iptables-save implies them and as nft says they are."""
    text = load(namespace, "nft")
    listing = namespace.run("nft", "-j", "list", "ruleset")
    from_save = IptablesSave(text, "iptables-nft-save.txt", "nft", "ip")
    from_nft = NftRuleset(listing, "nft-ruleset.json")
    met = 0
    for table in from_nft.tables():
        for said in from_nft.base_chains(table):
            ours = from_save.chain(table, said.name)
            assert ours is not None
            assert (ours.hook, ours.priority, ours.type, ours.policy) == (
                said.hook,
                said.priority,
                said.type,
                said.policy,
            )
            met += 1
    assert met == 7  # iptables-nft makes a base chain when it gets its first rule
    both = load_ruleset({"iptables-save.txt": text, "nft-ruleset.json": listing})
    (first, *_) = both.base_chains("ip", "prerouting")
    assert (first.table.backend, first.table.name) == ("nft", "raw")

"""What the ground is made of: ends, addresses, routes, and the tools that load and tell rules.

client  eth0 ---- vc              vs ---- eth0  server
                     \\  router  /
pod-a   eth0 -- pa -- br0 -- pb -- eth0  pod-b
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from kptrace.model import Netns
from kptrace.rules.load import load_ruleset
from kptrace.simulate.snapshot.snapshot import read_snapshot
from kptrace.simulate.topology import Topology

NODE = "r"
ROUTER = "router"
OPEN_PORTS = (53, 80, 443, 5353, 8080, 9090, 30080)


class End(NamedTuple):
    """port: the router's device towards it; gateway: the router's addresses on that link."""

    name: str
    port: str
    gateway: tuple[str, str]
    addresses: tuple[str, ...]
    number: int

    @property
    def own(self) -> frozenset[str]:
        return frozenset(text.split("/")[0] for text in self.addresses)

    @property
    def mac(self) -> str:
        return f"02:00:00:00:{self.number:02x}:02"

    @property
    def router_mac(self) -> str:
        bridged = self.port in BRIDGED
        return f"02:00:00:00:{BRIDGE_NUMBER if bridged else self.number:02x}:01"


BRIDGED = ("pa", "pb")
BRIDGE_NUMBER = 9
_CLIENT = ("10.1.0.2/24", "10.1.0.3/24", "192.0.2.9/32", "fd01::2/64", "fd01::3/64")
_SERVER = ("10.2.0.2/24", "10.2.0.3/24", "10.2.0.4/24", "10.2.0.5/24")
_SERVER6 = ("fd02::2/64", "fd02::3/64", "fd02::4/64", "fd02::5/64")
ENDS = {
    one.name: one
    for one in (
        End("client", "vc", ("10.1.0.1", "fd01::1"), _CLIENT, 1),
        End("server", "vs", ("10.2.0.1", "fd02::1"), _SERVER + _SERVER6, 2),
        End("pod-a", "pa", ("10.3.0.1", "fd03::1"), ("10.3.0.2/24", "fd03::2/64"), 3),
        End("pod-b", "pb", ("10.3.0.1", "fd03::1"), ("10.3.0.3/24", "fd03::3/64"), 4),
    )
}
OWN = ("10.1.0.1", "10.2.0.1", "10.3.0.1", "fd01::1", "fd02::1", "fd03::1")

ROUTER_LINES = """
link set lo up
link add br0 address {bridge} type bridge ageing_time 10000000 mcast_snooping 0
{links}
addr add 10.1.0.1/24 dev vc
addr add 10.2.0.1/24 dev vs
addr add 10.2.0.7/24 dev vs
addr add 10.3.0.1/24 dev br0
addr add fd01::1/64 dev vc nodad
addr add fd02::1/64 dev vs nodad
addr add fd03::1/64 dev br0 nodad
link set br0 up
{neighbours}
route add 192.0.2.0/24 via 10.1.0.2
route add blackhole 203.0.113.0/24
route add unreachable 198.51.100.0/24
route add default via 10.2.0.2
route add default via fd02::2
route add default via 10.3.0.2 table 100
route add default via fd03::2 table 100
rule add fwmark 0x20/0x20 lookup 100
"""
ROUTER6_LINES = "rule add fwmark 0x20/0x20 lookup 100\n"
SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv4/icmp_ratelimit": "0",
    "net/ipv4/icmp_msgs_per_sec": "1000000",
    "net/ipv4/icmp_msgs_burst": "1000000",
    "net/ipv4/tcp_synack_retries": "0",
    "net/ipv4/tcp_syncookies": "0",
    "net/ipv4/tcp_max_syn_backlog": "65536",
    "net/core/somaxconn": "65536",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/icmp/ratelimit": "0",
    "net/bridge/bridge-nf-call-iptables": "1",
    "net/bridge/bridge-nf-call-ip6tables": "1",
}
LOGGERS = ("net/netfilter/nf_log/2", "net/netfilter/nf_log/10")
DEAF = """
table netdev deaf {
 chain ingress { type filter hook ingress device eth0 priority 0; policy drop; }
}
"""
STATE = (
    "ip-link.json",
    "ip-addr.json",
    "ip-neigh.json",
    "ip-route.json",
    "ip6-route.json",
    "ip-rule.json",
    "ip6-rule.json",
    "bridge-fdb.json",
    "sysctl.txt",
)
RULES = (
    "iptables-legacy-save.txt",
    "iptables-nft-save.txt",
    "ip6tables-legacy-save.txt",
    "ip6tables-nft-save.txt",
    "nft-ruleset.json",
    "ipset-save.txt",
)
LOADERS = {
    "ipset": ("ipset", "restore"),
    "iptables-legacy": ("iptables-legacy-restore",),
    "ip6tables-legacy": ("ip6tables-legacy-restore",),
    "iptables-nft": ("iptables-nft-restore",),
    "ip6tables-nft": ("ip6tables-nft-restore",),
    "nft": ("nft", "-f", "-"),
}
CHAINS = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}


def place_of(name: str) -> Netns:
    return Netns(node=NODE, pod="" if name == ROUTER else f"t/{name}")


def world_of(state: Mapping[str, Mapping[str, str]]) -> Topology:
    """The walk's World, of dumps by name."""
    snapshots = {
        place_of(name): read_snapshot(place_of(name), files) for name, files in state.items()
    }
    return Topology(snapshots=snapshots)


def with_rules(world: Topology, files: Mapping[str, str]) -> Topology:
    """The same world, its router with the rules of these files."""
    place = place_of(ROUTER)
    ruled = msgspec.structs.replace(world.snapshots[place], ruleset=load_ruleset(files))
    return Topology(snapshots={**world.snapshots, place: ruled})

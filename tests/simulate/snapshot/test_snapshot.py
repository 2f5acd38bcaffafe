"""Snapshots from what iproute2 prints: real dumps, every form that was seen, and broken files."""

from __future__ import annotations

import contextlib
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kptrace.model import Netns
from kptrace.model.addresses import network
from kptrace.model.errors import ParseError
from kptrace.model.family import Family
from kptrace.simulate.snapshot.iproute2 import (
    read_addresses,
    read_fdb,
    read_links,
    read_neighbours,
    read_routes,
    read_rules,
    read_sysctls,
)
from kptrace.simulate.snapshot.network import FdbEntry, Neighbour, Nexthop
from kptrace.simulate.snapshot.snapshot import read_snapshot

NODE = Netns(node="node-a")

# printed by iproute2 6.1 in a namespace made for it
ROUTES = """[
{"type":"unicast","dst":"default","table":"300","protocol":"boot","scope":"global",
 "flags":["linkdown"],"nexthops":[{"dev":"d0","weight":1,"flags":["linkdown"]},
 {"dev":"d1","weight":1,"flags":["dead","linkdown"]}]},
{"type":"throw","dst":"10.4.0.0/16","table":"100","protocol":"boot","scope":"global","flags":[]},
{"dst":"10.6.0.0/16","gateway":"10.9.0.2","dev":"d0","table":"100","flags":["onlink"],
 "metrics":[{"mtu":1300}]},
{"type":"blackhole","dst":"10.1.0.0/16","flags":[]},
{"type":"unreachable","dst":"10.2.0.0/16","metric":5,"flags":[]},
{"dst":"10.5.0.0/16","flags":[],"nexthops":[{"gateway":"10.9.0.2","dev":"d0","weight":3,"flags":[]},
 {"gateway":"10.8.0.2","dev":"d1","weight":1,"flags":["dead","linkdown"]}]},
{"dst":"10.11.0.0/16","via":{"family":"inet6","host":"fe80::1"},"dev":"d0","flags":[]},
{"type":"local","dst":"10.9.0.1","dev":"d0","table":"local","protocol":"kernel","scope":"host",
 "prefsrc":"10.9.0.1","flags":[]}]"""
RULES = """[
{"priority":0,"src":"all","table":"local","protocol":"kernel"},
{"priority":32763,"not":null,"src":"all","fwmark":"0x7","oif":"d1","ipproto":"tcp",
 "dport_start":80,"dport_end":90,"action":"blackhole","protocol":"unspec"},
{"priority":32764,"src":"10.9.0.0","srclen":24,"dst":"10.7.0.0","dstlen":16,"iif":"d0",
 "table":"200","suppress_prefixlen":0,"protocol":"unspec"},
{"priority":32765,"src":"all","fwmark":"0x200","fwmask":"0xf00","table":"100"}]"""


def test_routes() -> None:
    routes = {str(one.destination): one for one in read_routes(ROUTES, "ip-route.json")}
    default = routes["0.0.0.0/0"]
    assert default.table == "300"
    assert default.nexthops == (Nexthop(interface="d0"), Nexthop(interface="d1", dead=True))
    assert routes["10.4.0.0/16"].type == "throw"
    assert (routes["10.6.0.0/16"].mtu, routes["10.6.0.0/16"].onlink) == (1300, True)
    assert routes["10.6.0.0/16"].text == "10.6.0.0/16 via 10.9.0.2 dev d0 table 100 onlink"
    assert routes["10.1.0.0/16"].nexthops == ()
    assert routes["10.2.0.0/16"].text == "unreachable 10.2.0.0/16 metric 5"
    assert [hop.weight for hop in routes["10.5.0.0/16"].nexthops] == [3, 1]
    assert routes["10.11.0.0/16"].nexthops[0].gateway == "fe80::1"
    assert (routes["10.9.0.1/32"].table, routes["10.9.0.1/32"].source) == ("local", "10.9.0.1")


def test_a_default_route_belongs_to_the_family_that_its_words_show() -> None:
    both = """[{"dst":"default","gateway":"172.30.0.1","dev":"eth0","flags":[]},
      {"dst":"fd00::/64","dev":"eth0","metric":256,"flags":[]},
      {"dst":"default","gateway":"fd00::1","dev":"eth0","metric":1024,"flags":[]}]"""
    defaults = [one for one in read_routes(both, "ip-route.json") if one.default]
    assert [one.destination.version for one in defaults] == [4, 6]
    bare = """[{"dst":"default","dev":"w0","scope":"link","metric":5,"flags":[]},
      {"dst":"default","dev":"w0","metric":1024,"flags":[],"pref":"medium"}]"""
    found = read_routes(bare, "ip-route.json")
    assert [one.destination.version for one in found] == [4, 6]
    alone = '[{"dst":"default","dev":"eth0","metric":1024,"flags":[]}]'
    assert read_routes(alone, "ip6-route.json")[0].destination == network("::/0")


def test_policy_rules() -> None:
    first, second, third, fourth = read_rules(RULES, "ip-rule.json", Family.IPV4)
    assert (first.priority, first.table, first.source) == (0, "local", None)
    assert second.inverted
    assert (second.action, second.mark, second.oif, second.dport) == (
        "blackhole",
        7,
        "d1",
        (80, 90),
    )
    assert (str(third.source), str(third.destination), third.suppress) == (
        "10.9.0.0/24",
        "10.7.0.0/16",
        0,
    )
    assert (fourth.mark, fourth.mask, fourth.opaque) == (0x200, 0xF00, False)
    unknown = '[{"priority":1,"src":"all","tos":"0x10","table":"7"}]'
    assert read_rules(unknown, "ip-rule.json", Family.IPV4)[0].opaque


def test_links() -> None:
    text = """[{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP","LOWER_UP"],"mtu":65536},
      {"ifindex":3,"link":"d1","ifname":"d0","flags":["NO-CARRIER","BROADCAST","UP","M-DOWN"],
       "mtu":1500,"address":"92:fd:c2:8a:3d:b3","linkinfo":{"info_kind":"veth"}},
      {"ifindex":2,"link":"d0","ifname":"d1","flags":["BROADCAST"],"master":"br0",
       "linkinfo":{"info_kind":"veth","info_slave_kind":"bridge","info_slave_data":
       {"hairpin":true,"isolated":true}}},
      {"ifindex":4,"ifname":"br0","flags":["UP"],"linkinfo":{"info_kind":"bridge","info_data":
       {"nf_call_iptables":1,"nf_call_ip6tables":0}}},
      {"ifindex":5,"ifname":"v6","flags":[],"linkinfo":{"info_kind":"vxlan","info_data":
       {"id":5,"remote6":"fd02::2","local6":"fd02::1","port":4789,"learning":true}}},
      {"ifindex":6,"ifname":"eth0","link_index":9,"link_netnsid":0,"flags":["UP"],
       "linkinfo":{"info_kind":"veth"}},
      {"ifindex":7,"ifname":"tunl0","flags":["NOARP"],"linkinfo":{"info_kind":"ipip","info_data":
       {"remote":"any","local":"any"}}}]"""
    links = {one.name: one for one in read_links(text, "ip-link.json")}
    assert links["lo"].loopback
    assert (links["d0"].peer, links["d0"].peer_here) == (2, True)
    assert (links["d0"].up, links["d0"].carrier) == (True, False)
    assert (links["d1"].up, links["d1"].master) == (False, "br0")
    assert (links["d1"].hairpin, links["d1"].isolated) == (True, True)
    assert links["br0"].nf_call == (True, False)
    assert (links["eth0"].peer, links["eth0"].peer_here) == (9, False)
    vxlan = links["v6"].vxlan
    assert vxlan is not None
    assert (vxlan.vni, vxlan.port, vxlan.local, vxlan.remote) == (5, 4789, "fd02::1", "fd02::2")
    assert links["tunl0"].ipip is not None
    assert (links["tunl0"].ipip.remote, links["tunl0"].noarp) == ("", True)


def test_without_details_a_link_has_no_kind() -> None:
    text = '[{"ifindex":2,"link_index":3,"ifname":"eth0","flags":["UP"],"mtu":1450}]'
    (link,) = read_links(text, "ip-link.json")
    assert (link.kind, link.mtu, link.peer) == ("", 1450, 3)


def test_neighbours_and_fdb() -> None:
    found = read_neighbours(
        '[{"dst":"10.0.0.1","dev":"eth0","lladdr":"02:00:00:00:00:02","state":["PERMANENT"]},'
        '{"dst":"10.0.0.2","dev":"eth0","state":["FAILED"]},'
        '{"dst":"10.0.0.3","dev":"eth0","proxy":null,"state":[]}]',
        "ip-neigh.json",
    )
    assert found[0].permanent
    assert found[1] == Neighbour(interface="eth0", address="10.0.0.2", states=("FAILED",))
    assert found[2].proxy
    entries = read_fdb(
        '[{"mac":"02:00:00:00:00:02","ifname":"flannel.1","dst":"172.30.0.12","flags":["self"],'
        '"state":"permanent"},{"mac":"0a:00:00:00:00:01","ifname":"veth1","vlan":1,"flags":[],'
        '"master":"cni0","state":""}]',
        "bridge-fdb.json",
    )
    assert entries[0] == FdbEntry(
        interface="flannel.1",
        mac="02:00:00:00:00:02",
        destination="172.30.0.12",
        permanent=True,
    )
    assert (entries[1].interface, entries[1].master) == ("veth1", "cni0")


def test_sysctls_with_dots_in_interface_names() -> None:
    snapshot = read_snapshot(
        NODE,
        {
            "sysctl.txt": "net.ipv4.conf.flannel/1.rp_filter = 2\nnet.ipv4.ip_forward = 1\n"
            "net.ipv4.conf.cni0.forwarding = 0\n# a comment\n\n"
        },
    )
    assert snapshot.conf(Family.IPV4, "flannel.1", "rp_filter") == 2
    assert snapshot.conf(Family.IPV4, "cni0", "forwarding") == 0
    assert snapshot.conf(Family.IPV4, "eth0", "forwarding") is None
    assert snapshot.sysctl("net.bridge.bridge-nf-call-iptables") is None


def test_missing_files_are_named_and_no_error() -> None:
    snapshot = read_snapshot(NODE, {})
    assert snapshot.missing == ("ip-addr.json", "ip-route.json", "sysctl.txt")
    assert snapshot.sysctl("net.ipv4.ip_forward") == 1  # as a healthy node has it
    assert [rule.table for rule in snapshot.policy if rule.family is Family.IPV4] == [
        "local",
        "main",
        "default",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ip-route.json", "default via 10.0.0.1 dev eth0"),
        ("ip-route.json", '[{"dst":"10.0.0.0/8"'),
        ("ip-route.json", '{"dst":"10.0.0.0/8"}'),
        ("ip-route.json", '[{"dst":"10.0.0.0/40","flags":[]}]'),
        ("ip-route.json", '[{"dst":7}]'),
        ("ip-route.json", '[{"dst":"10.0.0.0/8","gateway":"nowhere","dev":"eth0"}]'),
        ("ip-addr.json", '[{"ifname":"eth0","addr_info":[{"family":"inet","local":"x"}]}]'),
        ("ip-link.json", '[{"ifname":"eth0","mtu":"big"}]'),
        ("ip-rule.json", '[{"priority":1,"fwmark":"many","table":"main"}]'),
        ("ip-neigh.json", '[{"lladdr":"02:00:00:00:00:02"}]'),
        ("bridge-fdb.json", "null"),
        ("sysctl.txt", "net.ipv4.ip_forward 1"),
    ],
)
def test_a_file_that_is_not_what_its_name_says(name: str, text: str) -> None:
    with pytest.raises(ParseError) as caught:
        read_snapshot(NODE, {name: text})
    assert name in caught.value.message
    assert caught.value.hint


READERS = (
    read_links,
    read_addresses,
    read_routes,
    read_neighbours,
    read_fdb,
    read_sysctls,
    lambda text, source: read_rules(text, source, Family.IPV4),
)


@given(
    st.sampled_from(READERS),
    st.one_of(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["dst", "ifname", "flags", "mac", "src"]), inner)
            ),
        ).map(json.dumps),
    ),
)
def test_any_text_is_read_or_refused(reader: object, text: str) -> None:
    with contextlib.suppress(ParseError):
        reader(text, "file")  # type: ignore[operator]


def _files(folder: Path) -> dict[str, str]:
    return {
        path.name.removesuffix(".gz"): (
            gzip.decompress(path.read_bytes()).decode()
            if path.suffix == ".gz"
            else path.read_text()
        )
        for path in folder.iterdir()
    }


def test_every_real_dump(dumps: Path) -> None:
    read = 0
    for folder in sorted(dumps.glob("*/node-*")):
        if not (folder / "ip-route.json").exists():
            continue
        snapshot = read_snapshot(Netns(node=folder.name), _files(folder))
        own = "172.30.0.11" if folder.name == "node-a" else "172.30.0.12"
        assert snapshot.holds(own) is not None
        vxlan = snapshot.link("flannel.1")
        assert vxlan is not None
        assert vxlan.vxlan is not None
        assert (vxlan.vxlan.vni, vxlan.vxlan.port, vxlan.vxlan.learning) == (1, 8472, False)
        ports = snapshot.ports("cni0")
        assert ports
        assert all(port.hairpin and port.peer for port in ports)
        (entry,) = snapshot.tunnel_entries("flannel.1", f"02:00:00:00:00:0{3 - int(own[-1])}")
        assert entry.destination != own
        assert {route.destination.version for route in snapshot.routes} == {4, 6}
        assert len(set(snapshot.routes)) == len(snapshot.routes)
        read += 1
    assert read >= 8

"""Geneve, GRE and WireGuard between two nodes: what the device's own words allow to be foretold.

The links are as iproute2 6.1 printed them of real devices (kernel 6.1); the ways derived by hand.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from kptrace.model import Branch, Netns, Outcome, Tunnel
from kptrace.model.addresses import network
from kptrace.model.errors import ParseError
from kptrace.simulate.snapshot.iproute2 import read_links
from kptrace.simulate.snapshot.network import Geneve, Gre, Link, Wireguard
from kptrace.simulate.snapshot.snapshot import read_snapshot
from kptrace.simulate.snapshot.wg_show import read_wireguard

FAR = "10.244.2.21"
DEVICES: dict[str, Any] = {
    "geneve": {"id": 7, "remote": "172.30.0.12", "ttl": 0, "df": "unset", "port": 6081,
               "udp_csum": False, "udp_zero_csum6_rx": True},
    "geneve6": {"id": 8, "remote6": "fd00::2", "ttl": 0, "df": "unset", "port": 6082,
                "udp_zero_csum6_tx": False, "udp_zero_csum6_rx": False},
    "geneve-external": {"external": True, "id": 0, "ttl": 0, "df": "unset", "port": 6083,
                        "udp_zero_csum6_rx": True},
    "gre": {"remote": "172.30.0.12", "local": "172.30.0.11", "ttl": 0, "pmtudisc": True,
            "ikey": "0.0.0.9", "okey": "0.0.0.9"},
    "gre-any": {"remote": "any", "local": "any", "ttl": 0, "pmtudisc": False},
    "gre-external": {"external": True, "remote": "any", "local": "any", "ttl": 0, "pmtudisc": True},
    "gretap": {"remote": "172.30.0.12", "local": "172.30.0.11", "ttl": 0, "pmtudisc": True,
               "ikey": "0.0.0.1", "okey": "1.2.3.4", "icsum": True, "ocsum": True},
    "ip6gre": {"remote": "fd00::2", "local": "fd00::1", "ttl": 64, "encap_limit": 4,
               "tclass": "0x00", "flowlabel": "0x00000"},
}  # fmt: skip


def device(name: str, kind: str = "") -> Link:
    kind = kind or name.partition("-")[0].rstrip("6")
    info = {"info_kind": kind, "info_data": DEVICES[name]}
    raw = {"ifindex": 4, "ifname": "t0", "flags": ["UP", "LOWER_UP"], "mtu": 1450, "linkinfo": info}
    (link,) = read_links(json.dumps([raw]), "ip-link.json")
    return link


def test_what_iproute2_says_of_them() -> None:
    assert device("geneve").geneve == Geneve(vni=7, port=6081, remote="172.30.0.12")
    assert device("geneve6").geneve == Geneve(vni=8, port=6082, remote="fd00::2")
    external = device("geneve-external").geneve
    assert external is not None
    assert (external.external, external.remote) == (True, "")
    both = Gre(local="172.30.0.11", remote="172.30.0.12", key_in=9, key_out=9)
    assert device("gre").gre == both
    assert device("gre-any").gre == Gre()
    tap = device("gretap").gre
    assert tap is not None
    assert (tap.key_in, tap.key_out, tap.framed) == (1, 0x01020304, True)
    six = device("ip6gre", "ip6gre").gre
    assert six == Gre(local="fd00::1", remote="fd00::2")
    assert all(device(name).tunnel for name in ("geneve", "gre", "gre-any", "geneve-external"))


def between(cluster: Any, **parts: tuple[Any, Any]) -> None:
    """The nodes' tunnel devices (``flannel.1`` by name) are of another kind."""
    for place, n in ((cluster.a, 0), (cluster.b, 1)):
        own = {name: pair[n] for name, pair in parts.items()}
        cluster.link(place, "flannel.1", vxlan=None, **own)
        cluster.change(place, fdb=())


def one(cluster: Any) -> Branch:
    (branch,) = cluster.ask(FAR, 8080).branches
    assert isinstance(branch, Branch)
    return branch


def crossings(branch: Branch) -> list[str]:
    """Until the answer."""
    steps = list(branch.steps)
    end = next((n for n, step in enumerate(steps) if step.action == "reply"), len(steps))
    return [
        f"{step.netns.pod.partition('/')[2] or step.netns.node} {step.interface} {step.direction}"
        for step in steps[:end]
        if step.action == "seen"
    ]


CARRIED = [
    "node-a flannel.1 out",
    "node-a eth0 out",
    "node-b eth0 in",
    "node-b flannel.1 in",
]


def encap(branch: Branch) -> Any:
    return next(step for step in branch.steps if step.action == "encap").packet


def geneves(vni: int = 7) -> tuple[Geneve, Geneve]:
    return (
        Geneve(vni=7, port=6081, remote="172.30.0.12"),
        Geneve(vni=vni, port=6081, remote="172.30.0.11"),
    )


def gres(key: int = 9) -> tuple[Gre, Gre]:
    return (
        Gre(local="172.30.0.11", remote="172.30.0.12", key_in=9, key_out=9),
        Gre(local="172.30.0.12", remote="172.30.0.11", key_in=key, key_out=9),
    )


def test_geneve_with_one_remote(cluster: Any) -> None:
    between(cluster, kind=("geneve", "geneve"), geneve=geneves())
    branch = one(cluster)
    assert (branch.outcome, branch.deterministic) == (Outcome.DELIVERED, True)
    assert [each for each in crossings(branch) if "flannel" in each or "eth0" in each][1:-1] == (
        CARRIED
    )
    outer = encap(branch)
    assert outer.tunnel == Tunnel(kind="geneve", vni=7)
    assert (outer.flow.protocol, outer.flow.dst, outer.flow.dport) == ("udp", "172.30.0.12", 6081)


def test_its_far_end_must_have_the_same_vni(cluster: Any) -> None:
    between(cluster, kind=("geneve", "geneve"), geneve=geneves(8))
    branch = one(cluster)
    assert (branch.outcome, branch.cause) == (Outcome.DROPPED, "tunnel-device-missing")
    assert branch.description == "no device takes GENEVE 7 on port 6081"


def test_the_far_end_of_geneve_is_asked_for_its_link_address(cluster: Any) -> None:
    """The entry goes away: the device is one that asks, and the other node has the address."""
    between(cluster, kind=("geneve", "geneve"), geneve=geneves())
    cluster.change(cluster.a, neighbours=())
    assert one(cluster).outcome is Outcome.DELIVERED


def test_gre_with_one_remote(cluster: Any) -> None:
    between(cluster, kind=("gre", "gre"), gre=gres(), noarp=(True, True))
    branch = one(cluster)
    assert (branch.outcome, branch.deterministic) == (Outcome.DELIVERED, True)
    outer = encap(branch)
    assert outer.tunnel == Tunnel(kind="gre", vni=9)
    assert (outer.flow.protocol, outer.flow.src, outer.flow.dst) == (
        "gre",
        "172.30.0.11",
        "172.30.0.12",
    )


def test_its_far_end_must_have_the_same_key(cluster: Any) -> None:
    between(cluster, kind=("gre", "gre"), gre=gres(8), noarp=(True, True))
    branch = one(cluster)
    assert (branch.cause, branch.description) == (
        "tunnel-device-missing",
        "no device takes GRE with key 9",
    )


@pytest.mark.parametrize(
    "part",
    [
        {"geneve": (Geneve(vni=0, port=6081, external=True),) * 2, "kind": ("geneve",) * 2},
        {"gre": (Gre(external=True),) * 2, "kind": ("gre",) * 2},
        {"gre": (Gre(),) * 2, "kind": ("gre",) * 2},
        {"kind": ("wireguard",) * 2},
    ],
)
def test_what_nobody_told_is_not_guessed(cluster: Any, part: Any) -> None:
    between(cluster, **part)
    branch = one(cluster)
    assert (branch.outcome, branch.deterministic) == (Outcome.INCONCLUSIVE, False)
    assert "the far end is not known here" in branch.description


# --- WireGuard ------------------------------------------------------------------------------------

KEY_A = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
KEY_B = "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB="
SHOWN = """\
interface: flannel.1
  public key: {own}
  private key: (hidden)
  listening port: 51820
  fwmark: 0x200000

peer: {other}
  preshared key: (hidden)
  endpoint: 172.30.0.1{n}:51820
  allowed ips: 10.244.{n}.0/24, 172.30.0.1{n}/32
  latest handshake: 1 minute, 3 seconds ago
  transfer: 6.52 KiB received, 3.68 KiB sent
"""


def shown(number: int, text: str = "", other: str = "") -> Wireguard:
    """``other`` stands instead of ``text``."""
    own, peer = (KEY_A, KEY_B) if number == 1 else (KEY_B, KEY_A)
    whole = SHOWN.format(own=own, other=peer, n=3 - number)
    assert text in whole
    return read_wireguard(whole.replace(text, other) if text else whole)["flannel.1"]


def tunnelled(
    cluster: Any, first: Wireguard | None = None, second: Wireguard | None = None
) -> None:
    own = (first or shown(1), second or shown(2))
    between(cluster, kind=("wireguard",) * 2, wireguard=own, noarp=(True, True))


def test_what_wg_show_says() -> None:
    made = shown(1)
    assert (made.port, made.mark) == (51820, 0x200000)
    (peer,) = made.peers
    assert (peer.key, peer.endpoint) == (KEY_B, ("172.30.0.12", 51820))
    assert peer.allowed == (network("10.244.2.0/24"), network("172.30.0.12/32"))
    assert made.peer_of("10.244.2.21") == peer
    assert made.peer_of("10.244.3.21") is None
    six = SHOWN.format(own="", other="x", n=2).replace("172.30.0.12:51820", "[fd00::12]:51821")
    assert read_wireguard(six)["flannel.1"].peers[0].endpoint == ("fd00::12", 51821)
    none = "interface: wg0\n\npeer: x\n  allowed ips: (none)\n"
    assert read_wireguard(none)["wg0"].peers[0].allowed == ()
    assert read_wireguard("") == {}


@pytest.mark.parametrize(
    "line", ["  listening port: 70000", "  listening port: x", "  fwmark: y", "  allowed ips: z"]
)
def test_what_is_no_wg_show_is_said(line: str) -> None:
    with pytest.raises(ParseError, match=r"wg-show\.txt"):
        read_wireguard(f"interface: wg0\n\npeer: x\n{line}\n" * 2)


def test_the_longest_prefix_wins() -> None:
    first, second = (
        "peer: a\n  allowed ips: 0.0.0.0/0, ::/0\n",
        "peer: b\n  allowed ips: 10.0.0.0/8\n",
    )
    made = read_wireguard(f"interface: w\n{first}{second}")["w"]
    asked = ("10.1.1.1", "9.1.1.1", "fd00::1")
    assert [peer.key for one in asked if (peer := made.peer_of(one))] == ["b", "a", "a"]


def test_wireguard_to_its_peer(cluster: Any) -> None:
    tunnelled(cluster)
    branch = one(cluster)
    assert (branch.outcome, branch.deterministic) == (Outcome.DELIVERED, True)
    outer = encap(branch)
    assert outer.tunnel == Tunnel(kind="wireguard")
    assert (outer.flow.sport, outer.flow.dst, outer.flow.dport) == (51820, "172.30.0.12", 51820)
    assert outer.mark == 0x200000
    assert "node-b flannel.1 in" in crossings(branch)


def test_a_peer_that_nobody_has(cluster: Any) -> None:
    tunnelled(cluster, first=shown(1, text="10.244.2.0/24", other="10.244.9.0/24"))
    branch = one(cluster)
    assert (branch.outcome, branch.cause) == (Outcome.REJECTED, "wireguard-peer-missing")
    assert branch.object == "node-a: flannel.1"
    assert "10.244.2.21 among its allowed IPs" in branch.description


def test_a_peer_without_an_endpoint(cluster: Any) -> None:
    tunnelled(cluster, first=shown(1, text="  endpoint: 172.30.0.12:51820\n", other=""))
    branch = one(cluster)
    assert (branch.outcome, branch.cause) == (Outcome.REJECTED, "wireguard-peer-missing")
    assert KEY_B in branch.object


def test_the_far_end_must_allow_the_source(cluster: Any) -> None:
    tunnelled(cluster, second=shown(2, text="10.244.1.0/24", other="10.244.9.0/24"))
    branch = one(cluster)
    assert (branch.outcome, branch.cause) == (Outcome.DROPPED, "wireguard-peer-missing")
    assert branch.object == "node-b: flannel.1"


def test_another_port_at_the_far_end(cluster: Any) -> None:
    tunnelled(cluster, second=shown(2, text="port: 51820", other="port: 51821"))
    assert one(cluster).cause == "tunnel-device-missing"


def test_a_bundle_holds_it() -> None:
    links = [{"ifindex": 4, "ifname": "flannel.1", "linkinfo": {"info_kind": "wireguard"}}]
    text = SHOWN.format(own=KEY_A, other=KEY_B, n=2)
    files = {"ip-link.json": json.dumps(links), "wg-show.txt": text}
    link = read_snapshot(Netns(node="node-a"), files).link("flannel.1")
    assert link is not None
    assert link.wireguard == shown(1)

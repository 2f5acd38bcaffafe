"""A node by itself: what is full, what does not fit, what goes round netfilter."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from simulate.conftest import SYSCTLS, node

from kptrace.diagnose.node_health import STATS, health
from kptrace.model import Finding
from kptrace.simulate.snapshot.network import Geneve, Gre, Link, Neighbour, Peer, Wireguard
from kptrace.simulate.snapshot.snapshot import Snapshot

QUIET = "cpu=0   \tfound=0 invalid=3 insert=0 insert_failed=0 drop=0 early_drop=4 error=0\n"


def found(stats: str = QUIET, **change: Any) -> list[Finding]:
    snapshot: Snapshot = msgspec.structs.replace(node(1), **change)
    return list(health(snapshot, {STATS: stats}))


def causes(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(one.cause, one.severity) for one in findings]


def test_a_sound_node() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("value", "said"), [("0", "bridge-nf-call-iptables=0"), (None, "br_netfilter is not loaded")]
)
def test_bridged_packets_that_netfilter_does_not_see(value: str | None, said: str) -> None:
    name = "net.bridge.bridge-nf-call-iptables"
    sysctls = {key: each for key, each in SYSCTLS.items() if key != name}
    (one,) = found(sysctls=sysctls | ({} if value is None else {name: value}))
    assert (one.cause, one.severity) == ("bridge-nf-off", "error")
    assert said in one.evidence[0]
    assert "2 pods hang on cni0" in one.evidence[0]


def test_no_matter_where_no_pod_hangs_on_a_bridge() -> None:
    links = tuple(link for link in node(1).links if not link.master)
    assert found(links=links, sysctls={}) == []


@pytest.mark.parametrize(("count", "severity"), [(70, ""), (80, "warning"), (95, "error")])
def test_room_for_connections(count: int, severity: str) -> None:
    sysctls = SYSCTLS | {
        "net.netfilter.nf_conntrack_count": str(count),
        "net.netfilter.nf_conntrack_max": "100",
    }
    expected = [("conntrack-full", severity)] if severity else []
    assert causes(found(sysctls=sysctls)) == expected


@pytest.mark.parametrize(
    ("counter", "cause"), [("drop", "conntrack-full"), ("insert_failed", "conntrack-insert-failed")]
)
def test_what_the_kernel_counted_since_boot_is_a_warning(counter: str, cause: str) -> None:
    stats = QUIET.replace(f" {counter}=0", f" {counter}=2") * 2
    (one,) = found(stats)
    assert (one.cause, one.severity) == (cause, "warning")
    assert f"{counter}=4" in one.evidence[0]


def test_room_for_neighbours_counts_only_those_that_were_learned() -> None:
    sysctls = SYSCTLS | {"net.ipv4.neigh.default.gc_thresh3": "10"}
    entries = [Neighbour(interface="cni0", address=f"10.244.1.{n}", mac="x") for n in range(10, 20)]
    assert causes(found(sysctls=sysctls, neighbours=tuple(entries))) == [
        ("neighbour-table-full", "error")
    ]
    permanent = tuple(msgspec.structs.replace(one, states=("PERMANENT",)) for one in entries)
    assert found(sysctls=sysctls, neighbours=permanent) == []


@pytest.mark.parametrize(("mtu", "fits"), [(1450, True), (1451, False), (1500, False)])
def test_a_tunnels_packets_fit_the_device_below(mtu: int, fits: bool) -> None:
    """VXLAN over IPv4 adds 50 bytes (RFC 7348), eth0 takes 1500."""
    links = tuple(
        msgspec.structs.replace(link, mtu=mtu) if link.name == "flannel.1" else link
        for link in node(1).links
    )
    assert causes(found(links=links)) == ([] if fits else [("mtu-exceeded", "warning")])


PEER = Peer(key="x", endpoint=("172.30.0.12", 51820))


@pytest.mark.parametrize(
    ("parts", "most"),
    [
        # 20 for IPv4 and: 8, 8 and 14; 4; 4 and 4; 4 and 14; 8, 16 and 16 (all by their RFCs)
        ({"geneve": Geneve(vni=7, port=6081, remote="172.30.0.12")}, 1450),
        ({"gre": Gre(remote="172.30.0.12")}, 1476),
        ({"gre": Gre(remote="172.30.0.12", key_out=9)}, 1472),
        ({"gre": Gre(remote="172.30.0.12", framed=True)}, 1462),
        ({"kind": "wireguard", "wireguard": Wireguard(port=51820, peers=(PEER,))}, 1440),
    ],
)
def test_what_other_tunnels_add(parts: dict[str, Any], most: int) -> None:
    for mtu, wanted in ((most, []), (most + 1, [("mtu-exceeded", "warning")])):
        links = tuple(
            Link(index=link.index, name=link.name, mtu=mtu, **parts)
            if link.name == "flannel.1"
            else link
            for link in node(1).links
        )
        assert causes(found(links=links)) == wanted

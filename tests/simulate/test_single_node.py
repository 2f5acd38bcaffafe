"""One node alone, where a part of what it knows is not there to read."""

from __future__ import annotations

from typing import Any

import pytest

from kptrace.model import Branch, CauseId, Flow, Netns, Outcome, Packet
from kptrace.model.family import Family
from kptrace.simulate.single_node import (
    IngressInterface,
    routes_are_unknown,
    simulate_node,
    with_default_routes,
)

CLIENT_VETH = "veth10"
FORWARD_DROP = ":FORWARD DROP [0:0]"


def branches_from_client(cluster: Any) -> list[Branch]:
    """What node-a does with the client's packet to the Service."""
    snapshot = with_default_routes(cluster.snapshots[cluster.a], ())
    cluster.snapshots[cluster.a] = snapshot
    flow = Flow(protocol="tcp", src="10.244.1.10", sport=40000, dst="10.96.0.50", dport=80)
    arrival = IngressInterface("cni0", CLIENT_VETH)
    result = simulate_node(Packet(flow=flow), cluster.a, cluster.world, arrival)
    return [way.branch for way in result.ways]


def test_only_the_family_without_routes_is_unknown(cluster: Any) -> None:
    """A host with IPv6 off lists no IPv6 route; that says nothing about its IPv4 packets."""
    place: Netns = cluster.a
    ipv4 = tuple(r for r in cluster.snapshots[place].routes if r.family is Family.IPV4)
    cluster.change(place, routes=ipv4)
    snapshot = with_default_routes(cluster.snapshots[place], ())
    assert routes_are_unknown(snapshot, Family.IPV6)
    assert not routes_are_unknown(snapshot, Family.IPV4)


@pytest.mark.parametrize("keep_routes", [True, False])
def test_a_drop_by_the_policy_of_forward(cluster: Any, keep_routes: bool) -> None:
    """It is certain where the packet's own family has its routes; else it may go elsewhere."""
    place: Netns = cluster.a
    ipv4 = tuple(r for r in cluster.snapshots[place].routes if r.family is Family.IPV4)
    cluster.change(place, routes=ipv4 if keep_routes else ())
    cluster.edit(place, ":FORWARD ACCEPT [0:0]", FORWARD_DROP)
    branches = branches_from_client(cluster)
    assert {branch.outcome for branch in branches} == {Outcome.DROPPED}
    assert all(branch.deterministic for branch in branches)
    assert {branch.cause for branch in branches} == {CauseId.FORWARD_POLICY_DROP}


def test_a_rule_by_device_name_is_unknown_without_routes(cluster: Any) -> None:
    place: Netns = cluster.a
    cluster.change(place, routes=())
    cluster.edit(
        place,
        "-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES\n",
        "-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES\n-A FORWARD -o eth7 -j DROP\n",
    )
    branches = branches_from_client(cluster)
    assert not any(branch.deterministic for branch in branches)
    assert {branch.outcome for branch in branches} != {Outcome.DROPPED}


def test_the_same_rule_is_known_with_ipv4_routes_alone(cluster: Any) -> None:
    place: Netns = cluster.a
    ipv4 = tuple(r for r in cluster.snapshots[place].routes if r.family is Family.IPV4)
    cluster.change(place, routes=ipv4)
    cluster.edit(
        place,
        "-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES\n",
        "-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES\n-A FORWARD -o eth7 -j DROP\n",
    )
    branches = branches_from_client(cluster)
    assert all(branch.deterministic for branch in branches)
    assert Outcome.DROPPED not in {branch.outcome for branch in branches}


IPVS = "-A -t 10.96.0.50:80 -s rr\n-a -t 10.96.0.50:80 -r 10.244.1.31:8080 -m -w 1\n"


@pytest.mark.parametrize(
    ("missing", "outcome", "cause"),
    [
        ((), Outcome.NOT_PROGRAMMED, CauseId.IPVS_ADDRESS_MISSING),
        (("ip-addr.json",), Outcome.INCONCLUSIVE, None),
    ],
)
def test_ipvs_without_its_address(
    cluster: Any, missing: tuple[str, ...], outcome: Outcome, cause: CauseId | None
) -> None:
    """That kube-ipvs0 lacks the address is known only where the addresses were read."""
    files = {
        "iptables-save.txt": "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n",
        "ipvsadm-Sn.txt": IPVS,
    }
    cluster.rules(cluster.a, files)
    cluster.change(cluster.a, missing=missing)
    (branch,) = branches_from_client(cluster)
    assert (branch.outcome, branch.cause) == (outcome, cause)

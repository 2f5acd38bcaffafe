"""The way of a packet through a small cluster, and what each fault does to it.

The expected crossings are those that captures showed on the same topology in a real kernel; the
expected ends are the kernel's (each fault was injected there and observed).
"""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kptrace.model import Branch, Flow, Netns, Outcome, Packet, Prediction
from kptrace.model.addresses import network
from kptrace.simulate.predict import predict
from kptrace.simulate.snapshot.network import FdbEntry, Neighbour

SERVICE, SELF, EMPTY, AWAY = "10.96.0.50", "10.96.0.51", "10.96.0.52", "10.96.0.53"
NEAR, FAR = "10.244.1.31", "10.244.2.21"


def branch_to(prediction: Prediction, backend: str) -> Branch:
    found = [one for one in prediction.branches if one.backend and one.backend.address == backend]
    assert len(found) == 1
    return found[0]


def crossings(branch: Branch, *, back: bool = False) -> list[str]:
    """``node-a cni0 in``, with the innermost packet as it was there."""
    steps = list(branch.steps)
    forward = list(takewhile(lambda step: step.action != "reply", steps))
    chosen = steps[len(forward) :] if back else forward
    return [
        f"{s.netns.pod or s.netns.node} {s.interface} {s.direction}"
        for s in chosen
        if s.action == "seen"
    ]


def actions(branch: Branch) -> list[str]:
    return [step.action for step in branch.steps]


# --- ways that work ---------------------------------------------------------------------------


def test_service_with_two_backends(cluster: Any) -> None:
    found = cluster.ask(SERVICE)
    assert [b.outcome for b in found.branches] == [Outcome.DELIVERED] * 2
    assert [b.weight for b in found.branches] == [0.5, 0.5]
    assert {b.backend.pod for b in found.branches} == {"shop/near", "shop/far"}
    assert all(b.deterministic for b in found.branches)
    assert found.missing == ()


def test_over_the_tunnel_and_back(cluster: Any) -> None:
    branch = branch_to(cluster.ask(SERVICE), FAR)
    out = [
        "shop/client eth0 out",
        "node-a veth10 in",
        "node-a cni0 in",
        "node-a flannel.1 out",
        "node-a eth0 out",
        "node-b eth0 in",
        "node-b flannel.1 in",
        "node-b cni0 out",
        "node-b veth10 out",
        "shop/far eth0 in",
    ]
    turned = {"in": "out", "out": "in"}
    mirrored = [f"{c.rpartition(' ')[0]} {turned[c.rpartition(' ')[2]]}" for c in reversed(out)]
    assert crossings(branch) == out
    assert crossings(branch, back=True) == mirrored


def test_what_the_packet_looks_like_on_the_way(cluster: Any) -> None:
    branch = branch_to(cluster.ask(SERVICE), FAR)
    seen = {(s.netns, s.interface, s.direction): s.packet for s in branch.steps
            if s.action == "seen"}  # fmt: skip
    assert seen[cluster.a, "veth10", "in"].flow.dst == SERVICE
    at_bridge = seen[cluster.a, "cni0", "in"]  # br_netfilter ran PREROUTING at the port
    assert (at_bridge.flow.dst, at_bridge.ttl) == (FAR, 64)
    assert seen[cluster.a, "flannel.1", "out"].ttl == 63
    outer = seen[cluster.b, "eth0", "in"]
    assert (outer.flow.src, outer.flow.dst, outer.flow.dport) == (
        "172.30.0.11",
        "172.30.0.12",
        8472,
    )
    assert outer.tunnel is not None
    assert outer.tunnel.vni == 1
    assert outer.innermost.flow.dst == FAR
    arrived = seen[cluster.far, "eth0", "in"]
    assert (arrived.flow.src, arrived.flow.sport, arrived.ttl) == ("10.244.1.10", 40000, 62)
    returned = seen[cluster.client, "eth0", "in"]
    assert (returned.flow.src, returned.flow.sport) == (SERVICE, 80)


def test_rules_that_matched_are_named(cluster: Any) -> None:
    branch = branch_to(cluster.ask(SERVICE), FAR)
    dnat = next(s for s in branch.steps if s.action == "dnat")
    assert dnat.rule is not None
    assert (dnat.rule.backend, dnat.rule.table, dnat.rule.chain, dnat.rule.number) == (
        "legacy",
        "nat",
        "KUBE-SEP-FAR",
        2,
    )
    assert dnat.rule.text == "-p tcp -m tcp -j DNAT --to-destination 10.244.2.21:8080"
    assert dnat.packet.flow.dst == FAR
    via = [s.rule.chain for s in branch.steps if s.action == "rule" and s.rule][:3]
    assert via == ["PREROUTING", "KUBE-SERVICES", "KUBE-SVC-BOTH"]


def test_backend_on_the_clients_bridge_stays_a_frame(cluster: Any) -> None:
    branch = branch_to(cluster.ask(SERVICE), NEAR)
    assert crossings(branch) == [
        "shop/client eth0 out",
        "node-a veth10 in",
        "node-a veth11 out",
        "shop/near eth0 in",
    ]
    assert branch.steps[-1].packet.flow.src == SERVICE
    assert {s.packet.ttl for s in branch.steps} == {64}


def test_bridged_frames_pass_forward_with_the_bridge_on_both_sides(cluster: Any) -> None:
    cluster.edit(
        cluster.a,
        "-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES",
        "-A FORWARD -i cni0 -o cni0 -m physdev --physdev-in veth10 --physdev-out veth11"
        " --physdev-is-bridged -j DROP",
    )
    found = cluster.ask(SERVICE)
    assert branch_to(found, NEAR).cause == "rule-drop"
    assert branch_to(found, FAR).outcome is Outcome.DELIVERED


def test_without_br_netfilter_the_answer_comes_from_a_stranger(cluster: Any) -> None:
    cluster.sysctl(cluster.a, "net.bridge.bridge-nf-call-iptables", "0")
    found = cluster.ask(SERVICE)
    near = branch_to(found, NEAR)
    assert (near.outcome, near.cause) == (Outcome.DROPPED, "bridge-nf-off")
    assert near.object == "node-a: net.bridge.bridge-nf-call-iptables=0"
    assert near.steps[-1].packet.flow.src == NEAR
    assert "node-a cni0 in" in crossings(near)  # it is routed now, on its way out
    assert branch_to(found, FAR).outcome is Outcome.DELIVERED


def test_br_netfilter_not_loaded(cluster: Any) -> None:
    sysctls = {k: v for k, v in cluster.snapshots[cluster.a].sysctls.items() if "bridge" not in k}
    cluster.change(cluster.a, sysctls=sysctls)
    assert branch_to(cluster.ask(SERVICE), NEAR).cause == "bridge-nf-off"


def test_a_bridge_that_asks_for_netfilter_itself(cluster: Any) -> None:
    cluster.sysctl(cluster.a, "net.bridge.bridge-nf-call-iptables", "0")
    cluster.link(cluster.a, "cni0", nf_call=(True, False))
    assert cluster.only(SERVICE) == (Outcome.DELIVERED, None)


def test_hairpin_is_masqueraded_and_needs_the_port_to_allow_it(cluster: Any) -> None:
    branch = cluster.ask(SELF).branches[0]
    assert branch.outcome is Outcome.DELIVERED
    snat = next(s for s in branch.steps if s.action == "snat")
    assert (snat.packet.flow.src, snat.packet.flow.sport) == ("10.244.1.1", 0)
    assert crossings(branch)[-3:] == [
        "node-a veth10 in",
        "node-a veth10 out",
        "shop/client eth0 in",
    ]
    cluster.link(cluster.a, "veth10", hairpin=False)
    assert cluster.only(SELF) == (Outcome.DROPPED, "hairpin-off")
    cluster.sysctl(cluster.a, "net.bridge.bridge-nf-call-iptables", "0")
    assert cluster.only(SELF) == (Outcome.DELIVERED, None)  # routed: no frame goes back as it came


def test_from_the_node_itself(cluster: Any) -> None:
    """Masqueraded to the address of the interface it leaves by, as real traffic showed."""
    found = cluster.ask(SERVICE, source=cluster.a)
    assert {b.outcome for b in found.branches} == {Outcome.DELIVERED}
    for backend, source in ((NEAR, "10.244.1.1"), (FAR, "10.244.1.0")):
        branch = branch_to(found, backend)
        delivered = next(s for s in branch.steps if s.action == "delivered")
        assert delivered.packet.flow.src == source
        assert branch.steps[0].packet.flow.src == ""
        assert branch.steps[-1].packet.flow.dst == "172.30.0.11"


@pytest.mark.parametrize("address", ["172.30.0.11", "172.30.0.12", "10.244.1.1"])
def test_node_port_of_either_node(cluster: Any, address: str) -> None:
    found = cluster.ask(address, 30080)
    assert [b.outcome for b in found.branches] == [Outcome.DELIVERED] * 2
    assert {b.backend.pod for b in found.branches} == {"shop/near", "shop/far"}


def test_node_port_from_outside(cluster: Any) -> None:
    cluster.ingress = (cluster.b, "eth0")
    found = cluster.ask("172.30.0.12", 30080, source=None, src="172.30.0.200")
    assert [b.outcome for b in found.branches] == [Outcome.DELIVERED] * 2
    delivered = next(s for s in branch_to(found, NEAR).steps if s.action == "delivered")
    assert delivered.packet.flow.src == "10.244.2.0"  # masqueraded for the way back
    last = branch_to(found, NEAR).steps[-1]
    assert (last.packet.flow.src, last.packet.flow.dst) == ("172.30.0.12", "172.30.0.200")


def test_outside_without_a_way_in_is_inconclusive(cluster: Any) -> None:
    assert cluster.only("172.30.0.12", 30080, source=None, src="1.2.3.4")[0] is Outcome.INCONCLUSIVE


def test_pod_to_pod(cluster: Any) -> None:
    for backend in (NEAR, FAR):
        branch = cluster.ask(backend, 8080).branches[0]
        assert branch.outcome is Outcome.DELIVERED
        assert not {"dnat", "snat"} & set(actions(branch))
        assert branch.backend is not None
        assert branch.backend.address == backend


def test_pod_to_itself_stays_on_lo(cluster: Any) -> None:
    branch = cluster.ask("10.244.1.10", 8080).branches[0]
    assert branch.outcome is Outcome.DELIVERED
    assert crossings(branch) == ["shop/client lo out", "shop/client lo in"]


def test_host_network_backend(cluster: Any) -> None:
    cluster.edit(cluster.a, "10.244.2.21:8080", "172.30.0.12:9100")
    branch = branch_to(cluster.ask(SERVICE), "172.30.0.12")
    assert branch.outcome is Outcome.DELIVERED
    delivered = next(s for s in branch.steps if s.action == "delivered")
    assert delivered.netns == cluster.b
    assert "encap" not in actions(branch)[: actions(branch).index("delivered")]


# --- faults -----------------------------------------------------------------------------------


def test_rules_missing(cluster: Any) -> None:
    """With a default route it leaves as it is; without one it is refused before any filter."""
    assert cluster.only("10.96.0.99") == (Outcome.NOT_PROGRAMMED, "proxy-rules-missing")
    cluster.drop_routes(cluster.a, "0.0.0.0/0")
    assert cluster.only("10.96.0.99") == (Outcome.NOT_PROGRAMMED, "proxy-rules-missing")
    assert cluster.only(EMPTY)[1] == "proxy-rules-missing"  # the REJECT is never reached


def test_a_service_known_by_its_address_only_counts_as_one(cluster: Any) -> None:
    world = msgspec.structs.replace(cluster.world, services=frozenset({SERVICE}))
    flow = Flow(protocol="tcp", src="", dst="8.8.8.8", dport=53)
    found = predict(Packet(flow=flow), cluster.client, world)
    assert [b.outcome for b in found.branches] == [Outcome.INCONCLUSIVE]


def test_no_endpoints_and_no_local_endpoints(cluster: Any) -> None:
    assert cluster.only(EMPTY) == (Outcome.NO_ENDPOINTS, "no-endpoints")
    assert cluster.only(AWAY) == (Outcome.DROPPED, "no-local-endpoints")
    rejected = cluster.ask(EMPTY).branches[0].steps[-1]
    assert rejected.action == "rejected"
    assert rejected.rule is not None
    assert "has no endpoints" in rejected.rule.text


def test_stale_rules(cluster: Any) -> None:
    cluster.edit(cluster.a, "10.244.2.21:8080", "10.244.2.99:8080")
    branch = branch_to(cluster.ask(SERVICE), "10.244.2.99")
    assert (branch.outcome, branch.cause) == (Outcome.DROPPED, "stale-dnat")
    assert branch.object == "node-b: 10.244.2.99 dev cni0"
    cluster.edit(cluster.a, "10.244.1.31:8080", "10.244.1.99:8080")
    branch = branch_to(cluster.ask(SERVICE), "10.244.1.99")
    assert (branch.outcome, branch.cause) == (Outcome.DROPPED, "stale-dnat")
    assert branch.object == "node-a: 10.244.1.99 dev cni0"


def test_forward_policy(cluster: Any) -> None:
    cluster.edit(cluster.a, ":FORWARD ACCEPT", ":FORWARD DROP")
    assert cluster.only(SERVICE) == (Outcome.DROPPED, "forward-policy-drop")
    last = cluster.ask(SERVICE).branches[0].steps[-1]
    assert last.action == "dropped"
    assert last.rule is not None
    assert (last.rule.chain, last.rule.number) == ("FORWARD", 0)


def test_forward_policy_on_the_far_node(cluster: Any) -> None:
    cluster.edit(cluster.b, ":FORWARD ACCEPT", ":FORWARD DROP")
    found = cluster.ask(SERVICE)
    far = branch_to(found, FAR)
    assert (far.outcome, far.cause) == (Outcome.DROPPED, "forward-policy-drop")
    assert far.steps[-1].netns == cluster.b
    assert branch_to(found, NEAR).outcome is Outcome.DELIVERED


def test_tunnel_port_blocked(cluster: Any) -> None:
    rule = "-A INPUT -p udp -m udp --dport 8472 -j DROP\n-A FORWARD -m comment"
    cluster.edit(cluster.b, "-A FORWARD -m comment", rule)
    far = branch_to(cluster.ask(SERVICE), FAR)
    assert (far.outcome, far.cause) == (Outcome.DROPPED, "tunnel-port-blocked")
    assert far.object == "filter INPUT 1: -p udp -m udp --dport 8472 -j DROP"
    assert crossings(far)[-1] == "node-b eth0 in"


def test_ip_forward(cluster: Any) -> None:
    """Also a DNATed frame to the same bridge is lost then; a plain one is not (seen in 6.18)."""
    cluster.sysctl(cluster.a, "net.ipv4.ip_forward", "0")
    assert cluster.only(SERVICE) == (Outcome.DROPPED, "ip-forward-off")
    assert cluster.only(NEAR, 8080) == (Outcome.DELIVERED, None)
    assert cluster.only(SERVICE, source=cluster.a) == (Outcome.DELIVERED, None)


def test_forwarding_off_on_one_interface(cluster: Any) -> None:
    cluster.sysctl(cluster.b, "net.ipv4.conf.flannel/1.forwarding", "0")
    far = branch_to(cluster.ask(SERVICE), FAR)
    assert (far.cause, far.object) == (
        "ip-forward-off",
        "node-b: net.ipv4.conf.flannel.1.forwarding=0",
    )


def test_fdb(cluster: Any) -> None:
    entry = cluster.snapshots[cluster.a].fdb[0]
    stale = msgspec.structs.replace(entry, destination="172.30.0.99")
    cluster.change(cluster.a, fdb=(stale,))
    assert branch_to(cluster.ask(SERVICE), FAR).cause == "fdb-stale"
    cluster.change(cluster.a, fdb=())
    far = branch_to(cluster.ask(SERVICE), FAR)
    assert far.cause == "fdb-missing"
    assert crossings(far)[-1] == "node-a flannel.1 out"
    cluster.change(cluster.a, neighbours=())
    far = branch_to(cluster.ask(SERVICE), FAR)
    assert far.cause == "vtep-neighbour-missing"
    assert crossings(far)[-1] == "node-a cni0 in"


def test_wrong_vtep_mac_is_somebody_elses_frame(cluster: Any) -> None:
    wrong = Neighbour(
        interface="flannel.1", address="10.244.2.0", mac="02:00:00:00:00:77", states=("PERMANENT",)
    )
    entry = msgspec.structs.replace(cluster.snapshots[cluster.a].fdb[0], mac=wrong.mac)
    cluster.change(cluster.a, neighbours=(wrong,), fdb=(entry,))
    far = branch_to(cluster.ask(SERVICE), FAR)
    assert (far.outcome, far.cause) == (Outcome.DROPPED, "neighbour-stale")
    assert crossings(far)[-1] == "node-b flannel.1 in"


def test_route_to_the_other_node_missing(cluster: Any) -> None:
    cluster.drop_routes(cluster.a, "10.244.2.0/24")
    far = branch_to(cluster.ask(SERVICE), FAR)
    assert (far.outcome, far.cause) == (Outcome.DROPPED, "pod-route-missing")
    assert far.object == "node-a: 0.0.0.0/0 via 172.30.0.1 dev eth0"
    assert not far.deterministic  # the gateway might know the way
    cluster.drop_routes(cluster.a, "0.0.0.0/0")
    far = branch_to(cluster.ask(SERVICE), FAR)
    assert (far.outcome, far.cause, far.deterministic) == (
        Outcome.REJECTED,
        "pod-route-missing",
        True,
    )


def test_the_way_back_missing(cluster: Any) -> None:
    """The SYN arrives, so only the answer tells."""
    cluster.drop_routes(cluster.b, "10.244.1.0/24")
    far = branch_to(cluster.ask(SERVICE), FAR)
    assert (far.outcome, far.cause) == (Outcome.DROPPED, "pod-route-missing")
    assert "delivered" in actions(far)
    assert far.description.startswith("the packet arrives, but its answer does not")


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        ("blackhole", Outcome.DROPPED),
        ("unreachable", Outcome.REJECTED),
        ("prohibit", Outcome.REJECTED),
    ],
)
def test_routes_that_kill(cluster: Any, make_route: Any, kind: str, outcome: Outcome) -> None:
    dead = make_route("10.244.2.21/32", "lo", type=kind)
    dead = msgspec.structs.replace(dead, nexthops=())
    cluster.change(cluster.b, routes=(dead, *cluster.snapshots[cluster.b].routes))
    far = branch_to(cluster.ask(SERVICE), FAR)
    assert (far.outcome, far.cause) == (outcome, "blackhole-route")


def test_reverse_path_filter(cluster: Any) -> None:
    cluster.sysctl(cluster.b, "net.ipv4.conf.all.rp_filter", "1")
    assert cluster.only(SERVICE) == (Outcome.DELIVERED, None)
    routes = tuple(
        msgspec.structs.replace(
            one, nexthops=(msgspec.structs.replace(one.nexthops[0], interface="eth0"),)
        )
        if one.destination == network("10.244.1.0/24")
        else one
        for one in cluster.snapshots[cluster.b].routes
    )
    cluster.change(cluster.b, routes=routes)
    far = branch_to(cluster.ask(SERVICE), FAR)
    assert (far.outcome, far.cause) == (Outcome.DROPPED, "rp-filter")
    cluster.sysctl(cluster.b, "net.ipv4.conf.all.rp_filter", "2")
    assert branch_to(cluster.ask(SERVICE), FAR).cause != "rp-filter"


def test_links_down(cluster: Any) -> None:
    cluster.link(cluster.b, "flannel.1", up=False)
    assert branch_to(cluster.ask(SERVICE), FAR).cause == "link-down"
    cluster.link(cluster.a, "eth0", up=False)
    far = branch_to(cluster.ask(SERVICE), FAR)
    assert (far.cause, far.object) == ("link-down", "eth0")


def test_named_rules_that_drop_or_reject(cluster: Any) -> None:
    for target, outcome, cause in (
        ("DROP", Outcome.DROPPED, "rule-drop"),
        ("REJECT --reject-with icmp-port-unreachable", Outcome.REJECTED, "rule-reject"),
    ):
        rule = f"-A FORWARD -d 10.244.2.0/24 -j {target}\n-A FORWARD -m comment"
        cluster.edit(cluster.a, "-A FORWARD -m comment", rule)
        far = branch_to(cluster.ask(SERVICE), FAR)
        assert (far.outcome, far.cause) == (outcome, cause)


def test_nodes_that_send_in_a_circle(cluster: Any, make_route: Any) -> None:
    back = make_route("10.244.2.0/24", "eth0", "172.30.0.11")
    kept = [one for one in cluster.snapshots[cluster.b].routes if "10.244.2.0/24" not in one.text]
    cluster.change(cluster.b, routes=(back, *kept))
    there = make_route("10.244.2.0/24", "eth0", "172.30.0.12")
    kept = [one for one in cluster.snapshots[cluster.a].routes if "10.244.2.0/24" not in one.text]
    cluster.change(cluster.a, routes=(there, *kept))
    assert branch_to(cluster.ask(SERVICE), FAR).cause == "routing-loop"


# --- what was not looked at -------------------------------------------------------------------


def test_pods_not_looked_into(cluster: Any) -> None:
    """As from a bundle: the client is known by its neighbour entry and the bridge's table."""
    learned = (
        ("10.244.1.10", "06:00:00:00:01:10", "veth10"),
        ("10.244.1.31", "06:00:00:00:01:11", "veth11"),
    )
    snapshot = cluster.snapshots[cluster.a]
    cluster.change(
        cluster.a,
        neighbours=snapshot.neighbours
        + tuple(Neighbour(interface="cni0", address=a, mac=m) for a, m, _ in learned),
        fdb=snapshot.fdb
        + tuple(FdbEntry(interface=port, mac=m, master="cni0") for _, m, port in learned),
    )
    for place in (cluster.client, cluster.near, cluster.far):
        del cluster.snapshots[place]
    found = cluster.ask(SERVICE, src="10.244.1.10")
    assert [b.outcome for b in found.branches] == [Outcome.DELIVERED] * 2
    assert crossings(branch_to(found, NEAR)) == ["node-a veth10 in", "node-a veth11 out"]
    assert crossings(branch_to(found, FAR))[-1] == "node-b cni0 out"
    assert "node-a/shop/client: its own namespace" in found.missing


def test_far_node_not_looked_at(cluster: Any) -> None:
    for place in (cluster.b, cluster.far):
        del cluster.snapshots[place]
    found = cluster.ask(SERVICE)
    far = branch_to(found, FAR)
    assert (far.outcome, far.deterministic) == (Outcome.INCONCLUSIVE, False)
    assert "172.30.0.12, which was not looked at" in far.description
    assert crossings(far)[-1] == "node-a eth0 out"
    assert branch_to(found, NEAR).outcome is Outcome.DELIVERED


def test_sysctls_not_dumped_count_as_usual_and_are_named(cluster: Any) -> None:
    cluster.change(cluster.a, sysctls=None, missing=("sysctl.txt",))
    found = cluster.ask(SERVICE)
    assert {b.outcome for b in found.branches} == {Outcome.DELIVERED}
    assert found.missing == ("node-a/host: sysctl.txt",)


# --- properties -------------------------------------------------------------------------------

ADDRESSES = st.sampled_from(
    [SERVICE, SELF, EMPTY, AWAY, NEAR, FAR, "10.96.0.99", "172.30.0.11", "172.30.0.12",
     "10.244.1.1", "10.244.9.9", "127.0.0.1", "8.8.8.8", "255.255.255.255", "224.0.0.1"]
)  # fmt: skip
DAMAGES = st.sets(
    st.sampled_from(
        ["drop-b", "no-client", "no-b", "nf-off", "forward-off", "fdb", "no-route", "no-links"]
    )
)


def damaged(cluster: Any, damages: set[str]) -> None:
    a, b = cluster.a, cluster.b
    if "drop-b" in damages:
        cluster.edit(b, ":FORWARD ACCEPT", ":FORWARD DROP")
    if "nf-off" in damages:
        cluster.sysctl(a, "net.bridge.bridge-nf-call-iptables", "0")
    if "forward-off" in damages:
        cluster.sysctl(b, "net.ipv4.ip_forward", "0")
    if "fdb" in damages:
        cluster.change(a, fdb=())
    if "no-route" in damages:
        cluster.drop_routes(a, "0.0.0.0/0")
    if "no-links" in damages:
        cluster.change(b, links=())
    if "no-client" in damages:
        cluster.snapshots.pop(cluster.client)
    if "no-b" in damages:
        cluster.snapshots.pop(b)


@given(
    dst=ADDRESSES,
    port=st.sampled_from([80, 8080, 30080, 53]),
    protocol=st.sampled_from(["tcp", "udp", "icmp", "sctp"]),
    damages=DAMAGES,
    source=st.sampled_from(["client", "a", "b", "far"]),
)
@settings(deadline=None, max_examples=150)
def test_a_walk_always_ends_and_its_weights_sum_to_one(
    dst: str, port: int, protocol: str, damages: set[str], source: str, request: Any
) -> None:
    made = type(request.getfixturevalue("cluster"))()
    damaged(made, damages)
    place: Netns = getattr(made, source)
    src = "10.244.1.10" if source == "client" else ""
    found = made.ask(dst, port, source=place, src=src, protocol=protocol)
    assert sum(b.weight for b in found.branches) == pytest.approx(1)
    assert found == made.ask(dst, port, source=place, src=src, protocol=protocol)
    for branch in found.branches:
        assert branch.outcome is not Outcome.INCONCLUSIVE or not branch.deterministic
        assert branch.outcome is Outcome.DELIVERED or branch.description


def test_the_order_of_snapshots_does_not_matter(cluster: Any) -> None:
    before = cluster.ask(SERVICE)
    cluster.snapshots = dict(reversed(cluster.snapshots.items()))
    assert cluster.ask(SERVICE) == before

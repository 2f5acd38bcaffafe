"""What programs do at connect() and on devices, walked in the small cluster."""

from __future__ import annotations

from typing import Any

import pytest

from kptrace.model import Outcome
from kptrace.simulate.bpf.programs import BpfDatapath, Frontend
from kptrace.simulate.snapshot.network import Link, Vxlan

NEAR, FAR = ("10.244.1.31", 8080), ("10.244.2.21", 8080)
SERVICE = "10.96.0.60"


def frontend(*backends: tuple[str, int], **fields: Any) -> Frontend:
    made: dict[str, Any] = {"address": SERVICE, "port": 80, "protocol": "tcp", **fields}
    return Frontend(backends=backends, text="10.96.0.60:80/TCP [ClusterIP]", **made)


def program(cluster: Any, *frontends: Frontend, **fields: Any) -> None:
    for place in (cluster.a, cluster.b):
        made = BpfDatapath(owner="Cilium", table="services", frontends=frontends, **fields)
        cluster.change(place, programs=made)


def test_each_backend_is_a_branch_of_the_same_weight(cluster: Any) -> None:
    program(cluster, frontend(NEAR, FAR))
    branches = cluster.ask(SERVICE).branches
    assert {(b.backend.address, b.weight, b.outcome) for b in branches} == {
        (NEAR[0], 0.5, Outcome.DELIVERED),
        (FAR[0], 0.5, Outcome.DELIVERED),
    }
    assert all(branch.deterministic for branch in branches)


def test_the_address_is_on_no_interface(cluster: Any) -> None:
    program(cluster, frontend(FAR))
    (branch,) = cluster.ask(SERVICE).branches
    crossed = [step for step in branch.steps if step.action == "seen"]
    assert crossed
    assert all(SERVICE not in (s.packet.innermost.flow.dst, s.packet.innermost.flow.src)
               for s in crossed)  # fmt: skip


def test_the_choice_names_the_map_and_the_slot(cluster: Any) -> None:
    program(cluster, frontend(FAR))
    (branch,) = cluster.ask(SERVICE).branches
    (step,) = [step for step in branch.steps if step.action == "dnat"]
    assert step.hook == "connect"
    assert (step.netns, step.rule.backend, step.rule.table) == (cluster.client, "bpf", "services")
    assert step.rule.text == "10.96.0.60:80/TCP [ClusterIP] slot 1 -> 10.244.2.21:8080"


def test_an_answer_from_the_backend_is_what_the_socket_expects(cluster: Any) -> None:
    """Unlike with kube-proxy's rules, where such an answer is a stranger's."""
    program(cluster, frontend(NEAR))
    cluster.sysctl(cluster.a, "net.bridge.bridge-nf-call-iptables", "0")
    assert cluster.only(SERVICE) == (Outcome.DELIVERED, None)


def test_without_backends_nothing_is_sent(cluster: Any) -> None:
    program(cluster, frontend())
    (branch,) = cluster.ask(SERVICE).branches
    assert (branch.outcome, branch.cause) == (Outcome.NO_ENDPOINTS, "no-endpoints")
    assert [step.action for step in branch.steps] == ["sent", "rejected"]


def test_another_protocol_is_another_service(cluster: Any) -> None:
    program(cluster, frontend(FAR))
    (branch,) = cluster.ask(SERVICE, protocol="udp").branches
    assert branch.outcome is not Outcome.DELIVERED
    program(cluster, frontend(FAR, protocol=""))
    assert cluster.only(SERVICE) == (Outcome.DELIVERED, None)


@pytest.mark.parametrize("node", ["172.30.0.11", "172.30.0.12"])
def test_one_frontend_stands_for_the_port_of_every_node(cluster: Any, node: str) -> None:
    program(cluster, frontend(FAR, address="0.0.0.0", port=30080))
    assert cluster.only(node, 30080) == (Outcome.DELIVERED, None)


def test_it_stands_for_no_pod_s_port(cluster: Any) -> None:
    program(cluster, frontend(FAR, address="0.0.0.0", port=8080))
    (branch,) = cluster.ask(NEAR[0], 8080).branches
    assert branch.backend.address == NEAR[0]


def test_what_is_left_to_others_is_doubtful(cluster: Any) -> None:
    program(cluster, frontend(FAR, left="somebody else does it"))
    (branch,) = cluster.ask(SERVICE).branches
    assert not branch.deterministic
    assert "somebody else does it" in branch.full_description


def test_maps_that_were_not_read_leave_it_open(cluster: Any) -> None:
    cluster.change(cluster.a, programs=BpfDatapath(owner="Cilium", frontends=None))
    (branch,) = cluster.ask(SERVICE).branches
    assert branch.outcome is Outcome.INCONCLUSIVE
    assert not branch.deterministic
    # a pod's own address needs no map
    assert cluster.only(NEAR[0], 8080) == (Outcome.DELIVERED, None)


def test_a_pod_whose_namespace_was_not_looked_at_is_translated_too(cluster: Any) -> None:
    program(cluster, frontend(FAR))
    del cluster.snapshots[cluster.client]
    (branch,) = cluster.ask(SERVICE, src="10.244.1.10").branches
    assert (branch.outcome, branch.backend.address) == (Outcome.DELIVERED, FAR[0])


# --- devices --------------------------------------------------------------------------------------


def by_cilium(cluster: Any, make_route: Any) -> None:
    """Routes to all pods lead to cilium_host; its program sends on, by cilium_vxlan or home."""
    program(cluster, frontend(NEAR, FAR), taken=("cilium_host",), tunnel="cilium_vxlan")
    for place in (cluster.a, cluster.b):
        snapshot = cluster.snapshots[place]
        carrier = Link(
            index=8,
            name="cilium_vxlan",
            kind="vxlan",
            mac="0e:00:00:00:00:77",
            mtu=1450,
            vxlan=Vxlan(vni=0, port=8472, external=True),
        )
        host = Link(index=7, name="cilium_host", kind="veth", peer=6, peer_here=True)
        kept = tuple(
            route
            for route in snapshot.routes
            if route.table == "local" or not str(route.destination).startswith("10.244.")
        )
        links = tuple(link for link in snapshot.links if link.vxlan is None)
        cluster.change(
            place,
            links=(*links, host, carrier),
            routes=(*kept, make_route("10.244.0.0/16", "cilium_host")),
        )


def test_a_program_carries_it_to_the_node_that_has_the_pod(cluster: Any, make_route: Any) -> None:
    by_cilium(cluster, make_route)
    branches = {b.backend.address: b for b in cluster.ask(SERVICE).branches}
    far = branches[FAR[0]]
    assert far.outcome is Outcome.DELIVERED
    assert not far.deterministic
    assert "Cilium's programs take it at cilium_host" in far.full_description
    (encap, *_) = [step for step in far.steps if step.action == "encap"]
    assert (encap.interface, encap.packet.flow.dst) == ("cilium_vxlan", "172.30.0.12")
    assert encap.packet.tunnel.vni is None  # it is the sender's identity


def test_a_program_brings_it_to_a_pod_of_the_same_node(cluster: Any, make_route: Any) -> None:
    by_cilium(cluster, make_route)
    branches = {b.backend.address: b for b in cluster.ask(SERVICE).branches}
    near = branches[NEAR[0]]
    assert near.outcome is Outcome.DELIVERED
    out = [s.interface for s in near.steps if s.action == "seen" and s.direction == "out"]
    assert out[:2] == ["eth0", "veth11"]


def test_where_no_way_is_usual_the_walk_ends_open(cluster: Any) -> None:
    program(cluster, taken=("flannel.1",))
    (branch,) = cluster.ask(FAR[0], 8080).branches
    assert branch.outcome is Outcome.INCONCLUSIVE
    assert "where Cilium sends what it takes at flannel.1 is not known" in branch.full_description


def test_what_comes_in_by_a_device_of_a_switch_is_the_switch_s(cluster: Any) -> None:
    program(cluster, taken=("cni0",))
    (branch,) = cluster.ask(FAR[0], 8080).branches
    assert branch.outcome is Outcome.INCONCLUSIVE
    assert [step.interface for step in branch.steps if step.action == "seen"] == ["eth0", "veth10"]

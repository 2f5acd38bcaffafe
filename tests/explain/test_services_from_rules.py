"""A node's own rules as the API's documents: services, endpoints, nodes behind the wire."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from simulate.conftest import node

from kptrace.explain.explain import explain
from kptrace.explain.services_from_rules import node_behind, own_documents
from kptrace.kube.objects.cluster_state import ClusterState, read_cluster_state
from kptrace.model import Pod
from kptrace.model.addresses import network
from kptrace.model.errors import NotFoundError
from kptrace.model.targets import parse_target
from kptrace.rules.load import load_ruleset
from kptrace.simulate.snapshot.network import Geneve, Gre, Ipip, Link, Peer, Wireguard
from kptrace.simulate.snapshot.snapshot import Snapshot


@pytest.fixture
def near(cases: Path) -> Snapshot:
    """The hand-made node, with the rules of a real kube-proxy."""
    text = (cases / "kube-proxy" / "node-a" / "nft-ruleset.json").read_text()
    return msgspec.structs.replace(node(1), ruleset=load_ruleset({"nft-ruleset.json": text}))


def told(near: Snapshot, target: str, *pods: Pod) -> ClusterState:
    return read_cluster_state(own_documents(near, parse_target(target, "default"), pods))


def api(cases: Path) -> ClusterState:
    folder = cases / "kube-proxy" / "api"
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return read_cluster_state(
        {
            name.removesuffix(".gz"): gzip.decompress(each) if name.endswith(".gz") else each
            for name, each in files.items()
        }
    )


@pytest.mark.parametrize("name", ["web", "dual", "np-local", "empty"])
def test_a_service_as_the_api_has_it(near: Snapshot, cases: Path, name: str) -> None:
    key = f"default/{name}"
    made, real = told(near, f"svc/{name}").service(key), api(cases).service(key)
    assert made is not None
    assert real is not None
    assert made.cluster_ips == real.cluster_ips
    assert [(p.name, p.protocol, p.port, p.node_port) for p in made.ports] == [
        (p.name, p.protocol, p.port, p.node_port) for p in real.ports
    ]


def test_its_endpoints_are_those_that_rules_send_to(near: Snapshot, cases: Path) -> None:
    made, real = told(near, "svc/web"), api(cases)
    ready = {(one.address, one.port) for one in real.endpoints["default/web"] if one.ready}
    assert {(one.address, one.port) for one in made.endpoints["default/web"]} == ready


def test_by_its_address(near: Snapshot, cases: Path) -> None:
    web = api(cases).service("default/web")
    assert web is not None
    made = told(near, f"{web.cluster_ips[0]}:80")
    assert [one.key for one in made.services] == ["default/web"]


def test_pods_of_the_node_by_name(near: Snapshot, cases: Path) -> None:
    first = api(cases).endpoints["default/web"][0].address
    pod = Pod(namespace="default", name="web-1", ips=(first,))
    made = told(near, "svc/web", pod)
    (mine,) = (one for one in made.endpoints["default/web"] if one.address == first)
    assert (mine.pod, mine.node) == ("default/web-1", "node-a")
    found = made.pod("default/web-1")
    assert found is not None
    assert (found.node, found.ready) == ("node-a", True)


def test_it_is_no_whole_list_and_no_word_of_the_apis(near: Snapshot) -> None:
    made = told(near, "svc/web")
    assert made.told_by is not None
    assert made.told_by.by == "the rules of node-a itself"
    assert set(made.partial) == {
        "services.json",
        "endpointslices.json",
        "pods.json",
        "nodes.json",
    }
    assert [one.addresses for one in made.nodes] == [("172.30.0.11",)]


def test_rules_are_not_compared_with_themselves(near: Snapshot) -> None:
    target = parse_target("svc/web", "default")
    made = explain(target, None, "node-a", told(near, "svc/web"), near)
    assert [one for one in made.findings if one.severity == "error"] == []


def test_names_that_no_rule_tells() -> None:
    bare = msgspec.structs.replace(node(1), ruleset=load_ruleset({}))
    with pytest.raises(NotFoundError, match=r"iptables-save\.txt is not there") as unread:
        told(bare, "svc/web")
    assert unread.value.hint == "add iptables-save.txt: iptables-save"
    read = load_ruleset({"nft-ruleset.json": '{"nftables": []}'})
    with pytest.raises(NotFoundError, match="no proxy has written there"):
        told(msgspec.structs.replace(bare, ruleset=read), "svc/web")
    ipvs = load_ruleset({"ipvsadm-Sn.txt": "-A -t 10.96.0.1:80 -s rr\n"})
    with pytest.raises(NotFoundError, match="proxy ipvs keeps addresses only") as error:
        told(msgspec.structs.replace(bare, ruleset=ipvs), "svc/web")
    assert "ADDRESS:PORT" in error.value.hint


# --- behind the wire ------------------------------------------------------------------------------


def test_the_node_behind_a_tunnel_is_its_far_end() -> None:
    assert node_behind(node(1), "10.244.2.21") == "172.30.0.12"
    bare = msgspec.structs.replace(node(1), fdb=())
    assert node_behind(bare, "10.244.2.21") == ""


def test_behind_a_route_its_gateway() -> None:
    routes = tuple(
        msgspec.structs.replace(
            one,
            nexthops=(
                msgspec.structs.replace(one.nexthops[0], interface="eth0", gateway="172.30.0.12"),
            ),
        )
        if "flannel" in one.text
        else one
        for one in node(1).routes
    )
    assert node_behind(msgspec.structs.replace(node(1), routes=routes), "10.244.2.21") == (
        "172.30.0.12"
    )


def test_behind_ip_in_ip_the_gateway_too() -> None:
    links = tuple(
        Link(index=link.index, name=link.name, kind="ipip", ipip=Ipip())
        if link.name == "flannel.1"
        else link
        for link in node(1).links
    )
    assert node_behind(msgspec.structs.replace(node(1), links=links), "10.244.2.21") == "10.244.2.0"


PEER = Peer(key="x", endpoint=("172.30.0.12", 51820), allowed=(network("10.244.2.0/24"),))


@pytest.mark.parametrize(
    ("parts", "far"),
    [
        ({"geneve": Geneve(vni=1, port=6081, remote="172.30.0.12")}, "172.30.0.12"),
        ({"gre": Gre(remote="172.30.0.12")}, "172.30.0.12"),
        ({"gre": Gre()}, ""),
        ({"kind": "wireguard", "wireguard": Wireguard(peers=(PEER,))}, "172.30.0.12"),
        ({"kind": "wireguard"}, ""),
    ],
)
def test_behind_other_tunnels(parts: dict[str, Any], far: str) -> None:
    links = tuple(
        Link(index=link.index, name=link.name, **parts) if link.name == "flannel.1" else link
        for link in node(1).links
    )
    assert node_behind(msgspec.structs.replace(node(1), links=links), "10.244.2.21") == far


def test_on_the_node_itself() -> None:
    assert node_behind(node(1), "10.244.1.10") == "node-a"
    assert node_behind(node(1), "172.30.0.11") == "node-a"


def test_by_the_default_route_nobody_knows() -> None:
    assert node_behind(node(1), "192.0.2.7") == ""


def test_the_documents_are_plain_json(near: Snapshot) -> None:
    for text in own_documents(near, parse_target("svc/web", "default"), ()).values():
        json.loads(text)

"""Ways between the nodes of a hand-made cluster: each thing taken away ends them where it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from simulate.conftest import RULES, SYSCTLS, node, route

from kptrace.diagnose.pod_connectivity import between
from kptrace.kube.objects.cluster_state import ClusterState
from kptrace.model import Endpoint, Finding, Outcome, Pod, PodPath
from kptrace.rules.load import load_ruleset
from kptrace.simulate.snapshot.snapshot import Snapshot

PODS = {
    "node-a": ("10.244.1.10", "10.244.1.31"),
    "node-b": ("10.244.2.21",),
}
DOCUMENTS = ClusterState(
    pods=tuple(
        Pod(namespace="shop", name=f"{name}-{n}", node=name, ips=(ip,), ready=True)
        for name, ips in PODS.items()
        for n, ip in enumerate(ips)
    ),
    endpoints={"shop/far": (Endpoint(address="10.244.2.21", port=8080, node="node-b"),)},
)
Change = Callable[[Snapshot], dict[str, Any]]


def walked(
    change: Change | None = None, documents: ClusterState = DOCUMENTS, nodes: int = 2
) -> tuple[tuple[PodPath, ...], tuple[Finding, ...]]:
    """``change``: what is different on node-a."""
    first = node(1)
    if change is not None:
        first = msgspec.structs.replace(first, **change(first))
    some = (first, node(2))[:nodes]
    return between(documents, {one.netns: one for one in some})


def test_a_sound_cluster() -> None:
    ways, findings = walked()
    assert findings == ()
    assert {(way.source_node, way.destination_node, way.outcome) for way in ways} == {
        ("node-a", "node-b", Outcome.DELIVERED),
        ("node-b", "node-a", Outcome.DELIVERED),
    }


def _sysctls(**other: str) -> Change:
    return lambda _: {"sysctls": {**SYSCTLS, **{k.replace("__", "."): v for k, v in other.items()}}}


def _rules(text: str) -> Change:
    rules = {"iptables-save.txt": text, "nft-ruleset.json": ""}
    return lambda _: {"ruleset": load_ruleset(rules)}


DROPPING = RULES.replace(":FORWARD ACCEPT", ":FORWARD DROP")
BLOCKED = RULES.replace("COMMIT\n*nat", "-A INPUT -p udp --dport 8472 -j DROP\nCOMMIT\n*nat")
FAULTS: dict[str, Change] = {
    "ip-forward-off": _sysctls(net__ipv4__ip_forward="0"),
    "forward-policy-drop": _rules(DROPPING),
    "tunnel-port-blocked": _rules(BLOCKED),
    "fdb-missing": lambda _: {"fdb": ()},
    "vtep-neighbour-missing": lambda _: {"neighbours": ()},
    "fdb-stale": lambda was: {
        "fdb": (msgspec.structs.replace(was.fdb[0], destination="172.30.0.99"),)
    },
    "pod-route-missing": lambda was: {
        "routes": tuple(one for one in was.routes if "10.244.2" not in one.text)
    },
    "rp-filter": lambda was: {
        "sysctls": {**SYSCTLS, "net.ipv4.conf.all.rp_filter": "1"},
        "routes": (*was.routes, route("10.244.2.21/32", "cni0")),
    },
}


@pytest.mark.parametrize("cause", FAULTS)
def test_what_ends_a_way_and_where(cause: str) -> None:
    ways, findings = walked(FAULTS[cause])
    assert [(one.cause, one.severity, one.node) for one in findings] == [(cause, "error", "node-a")]
    assert any(way.outcome is not Outcome.DELIVERED for way in ways)
    assert len(ways) == 2


def test_a_missing_route_where_none_has_any_may_be_a_routers() -> None:
    """A cloud's router knows the pods: then the nodes have default routes only."""
    bare = [
        msgspec.structs.replace(one, routes=tuple(r for r in one.routes if "flannel" not in r.text))
        for one in (node(1), node(2))
    ]
    _, findings = between(DOCUMENTS, {one.netns: one for one in bare})
    assert {(one.cause, one.severity) for one in findings} == {("pod-route-missing", "warning")}


def _routed(was: Snapshot) -> dict[str, Any]:
    """As Calico has it: no bridge, a route to each pod by its own veth, which answers for all."""
    devices = tuple(
        msgspec.structs.replace(link, master="") if link.master else link
        for link in was.links
        if link.kind != "bridge"
    )
    ports = [link.name for link in devices if link.name.startswith("veth")]
    routes = [one for one in was.routes if "cni0" not in one.text]
    routes += [
        route(f"{ip}/32", name) for ip, name in zip(PODS[was.netns.node], ports, strict=False)
    ]
    answering = {f"net.ipv4.conf.{name}.proxy_arp": "1" for name in ports}
    return {
        "links": devices,
        "routes": tuple(routes),
        "addresses": tuple(one for one in was.addresses if one.interface != "cni0"),
        "sysctls": {**SYSCTLS, **answering},
    }


@pytest.mark.parametrize("cause", ["", "pod-route-missing", "fdb-missing"])
def test_pods_with_devices_of_their_own(cause: str) -> None:
    nodes = [msgspec.structs.replace(one, **_routed(one)) for one in (node(1), node(2))]
    if cause:
        nodes[0] = msgspec.structs.replace(nodes[0], **FAULTS[cause](nodes[0]))
    ways, findings = between(DOCUMENTS, {one.netns: one for one in nodes})
    assert [(one.cause, one.node) for one in findings] == ([(cause, "node-a")] if cause else [])
    assert len(ways) == 2


def test_without_an_api_the_nodes_own_bridge_stands_for_pods() -> None:
    ways, findings = walked(documents=ClusterState(), nodes=1)
    (way,) = ways
    assert (way.source, way.destination, way.destination_node) == ("10.244.1.2", "10.244.2.2", "")
    assert way.outcome is Outcome.INCONCLUSIVE
    assert findings == ()
    _, findings = walked(FAULTS["fdb-missing"], ClusterState(), 1)
    assert [one.cause for one in findings] == ["fdb-missing"]


CLOSED = RULES.replace(
    "COMMIT\n*nat",
    "-A FORWARD -s 10.244.1.10/32 -g cali-fw-cali1\n"
    '-A cali-fw-cali1 -m comment --comment "End of tier default. Drop if no policies passed packet"'
    " -j DROP\nCOMMIT\n*nat",
).replace(":KUBE-FORWARD -", ":cali-fw-cali1 - [0:0]\n:KUBE-FORWARD -", 1)


def test_a_policy_is_no_fault_and_does_not_speak_for_the_node() -> None:
    """The first pod may not send; the second one's packets arrive."""
    ways, findings = walked(_rules(CLOSED))
    assert {one.severity for one in findings} == {"info"}
    assert {way.outcome for way in ways} == {Outcome.DELIVERED}
    everybody = CLOSED.replace("-s 10.244.1.10/32 ", "-s 10.244.1.0/24 ")
    ways, findings = walked(_rules(everybody))
    assert {one.severity for one in findings} == {"info"}
    assert [(way.source_node, way.cause) for way in ways if way.cause] == [
        ("node-a", "policy-drop")
    ]

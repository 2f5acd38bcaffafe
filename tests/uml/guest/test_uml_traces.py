"""A healthy lab traced: every kind of Service under IPVS and over IPIP, from pods and from a node.

What must come out is written by hand. What does is compared with parties that the tracer cannot
influence: the backend, which says who it is and whom it sees, and the tables of IPVS.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest

from kptrace.lab import host_commands
from kptrace.lab.address_plan import Plan
from kptrace.model import Hop, Outcome, Trace

WEB = ("shop/web-1", "shop/web-2", "shop/web-3")
TUNNELS = {
    "vxlan": "flannel.1",
    "flannel-ipip": "flannel.ipip",
    "calico-ipip": "tunl0",
    "calico-crosssubnet": "tunl0",
}
NETWORKS = {
    "vxlan": "Flannel (VXLAN)",
    "flannel-ipip": "Flannel (IPIP)",
    "calico-ipip": "Calico (IPIP)",
    "calico-crosssubnet": "Calico (IPIP, CrossSubnet)",
    "calico-direct": "Calico (direct)",
}


class Way(NamedTuple):
    """pods: those that may answer; direct: nothing is translated; mute: it says no name."""

    target: str
    source: str
    pods: tuple[str, ...]
    asked: tuple[tuple[str, Any], ...] = ()
    direct: bool = False
    mute: bool = False
    namespace: str = "shop"

    @property
    def name(self) -> str:
        options = (str(value) for _, value in self.asked)
        return "-".join((self.source, self.target.replace("/", ":"), *options)).replace("/", ":")


def node_port(service: str, node: str, pods: tuple[str, ...]) -> Way:
    asked = (("via", "nodePort"), ("node", node))
    return Way(f"svc/{service}", "pod/client", pods, asked)


DNS = ("kube-system/coredns-1", "kube-system/coredns-2")
WAYS = (
    Way("svc/web", "pod/client", WEB),
    Way("svc/web:metrics", "pod/client-b", WEB),
    Way("svc/remote", "pod/client", ("shop/remote-1",)),
    Way("svc/near", "pod/client", ("shop/near-1",)),
    Way("svc/self", "pod/client", ("shop/client",)),
    Way("svc/echo", "pod/client", ("shop/echo-1", "shop/echo-2")),
    Way("svc/headless", "pod/client", WEB, direct=True),
    Way("svc/sticky", "pod/client", WEB),
    Way("svc/local", "pod/client-b", WEB[1:]),
    Way("svc/web6", "pod/client", WEB),
    Way("svc/dual", "pod/client", WEB, (("family", 6),)),
    Way("svc/external", "pod/client", WEB, (("via", "externalIP"),)),
    node_port("nodeport", "node-a", WEB),
    node_port("nodeport", "node-b", WEB),
    node_port("nodeport-local", "node-a", WEB[:1]),
    Way("svc/kube-dns:53/udp", "pod/client", DNS, mute=True, namespace="kube-system"),
    Way("svc/remote", "node/node-a", ("shop/remote-1",)),
    Way("svc/web", "node/node-b", WEB),
    Way("pod/remote-1:8080", "pod/client", ("shop/remote-1",), direct=True),
    Way("svc/remote", "pod/client-c", ("shop/remote-1",)),
    Way("svc/web", "node/node-c", WEB),
)


def suits(lab: Plan, way: Way | None = None) -> bool:
    return way is None or not way.source.endswith("c") or len(lab.nodes) > 2


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_delivered(bench: Any, way: Way) -> None:
    plan = bench.lab.plan
    made: Trace = bench.trace(way.target, way.source, way.namespace, **dict(way.asked))
    assert made.outcome is Outcome.DELIVERED, made.summary
    assert made.findings == ()

    last = next(hop for hop in made.hops if hop.action == "delivered")
    pod = plan.pod(last.netns)
    allowed = way.pods
    if way.target == "svc/nodeport-local" and plan.proxy != "ipvs":
        allowed = WEB  # a pod's own packets are sent anywhere by rules
    assert pod.key in allowed
    assert last.packet.flow.dst in pod.addresses
    told = made.evidence.prediction_match
    assert told
    assert (told.seen, told.diverged_at) == (told.predicted, "")
    if not way.mute:
        the_backend_agrees(made, last, pod)
    if plan.proxy == "ipvs" and not way.direct:
        ipvs_agrees(bench, made, way)
    the_layers_are_honest(made)
    the_tunnel(plan, made, way)


def the_backend_agrees(made: Trace, last: Hop, pod: Any) -> None:
    (returned,) = made.evidence.probe_results
    said = returned.data.decode(errors="replace")  # an echo: the probe's own bytes behind
    if said:
        assert pod.name in said
        peer = re.search(r"X-Peer: (\S+) (\d+)", said)
        if peer:
            flow = last.packet.flow
            assert peer.groups() == (flow.src, str(flow.sport))


def ipvs_agrees(bench: Any, made: Trace, way: Way) -> None:
    """The hop of the choice names a server that ``ipvsadm`` lists at that place."""
    chosen = [hop for hop in made.hops if hop.rule and hop.rule.backend == "ipvs"]
    assert [hop.action for hop in chosen] == ["dnat"]
    ref = chosen[0].rule
    assert ref
    node = bench.lab.plan.node(chosen[0].node)
    listed = host_commands.run(("ipvsadm", "-Sn"), "", node.netns).splitlines()
    address, _, protocol = ref.chain.rpartition("/")
    option = {"tcp": "-t", "udp": "-u"}[protocol]
    servers = [line for line in listed if line.startswith(f"-a {option} {address} ")]
    assert ref.text in servers[ref.number - 1]
    scheduler = bench.lab.plan.scheduler
    reasons = (
        f" {scheduler} ",
        "no other takes connections",
        "an earlier connection of this client",
    )
    assert any(reason in ref.description for reason in reasons)
    assert ref.description.endswith("; conntrack has it")
    assert chosen[0].observed
    rivals = [other.number for other in chosen[0].preceding_rules]
    assert sorted([*rivals, ref.number]) == list(range(1, len(servers) + 1))
    for one in (ref, *chosen[0].preceding_rules):
        assert re.search(r"weight 1, active \d+, inactive \d+", one.description)
    if way.target == "svc/sticky":
        kept = (
            "a client keeps its server for 3 h",
            "an earlier connection of this client binds it to",
        )
        assert any(reason in ref.description for reason in kept)


def the_layers_are_honest(made: Trace) -> None:
    """Taps and conntrack told; rules and drops are missing, and it is said why and what helps."""
    layers = {(layer.name, layer.node): layer for layer in made.evidence.sources}
    for (name, _), layer in layers.items():
        assert not layer.lost
        if name in ("capture", "conntrack"):
            assert not layer.unavailable
        if name == "rules":
            assert "no nftables" in layer.unavailable
            assert "--trace-rule" in layer.hint
        if name == "drops":
            assert "btf" in layer.unavailable.lower()
    assert {"capture", "rules", "drops", "conntrack"} <= {name for name, _ in layers}


def the_tunnel(plan: Plan, made: Trace, way: Way) -> None:
    """The device that carries IPv4 between the nodes, in and out of it once."""
    device = TUNNELS.get(plan.network)
    for hop in made.hops:
        if hop.action == "encap" and ":" not in hop.packet.innermost.flow.dst:
            assert hop.interface == device
    encaps = [hop for hop in made.hops if hop.action == "encap"]
    decaps = [hop for hop in made.hops if hop.action == "decap"]
    assert len(encaps) == len(decaps)
    assert made.resolution
    if device is None or ":" in made.resolution.address or made.resolution.address[:4] == "172.":
        return
    nodes = {hop.node for hop in made.hops if hop.action != "reply"}
    # node-a and node-b are on one subnet
    near = plan.network == "calico-crosssubnet" and not way.source.endswith("c")
    assert bool(encaps) == (len(nodes) > 1 and not near)


def test_the_network_is_recognised(bench: Any) -> None:
    made = bench.trace("svc/remote", "pod/client")
    named = {one.name for one in made.networks}
    assert named == {NETWORKS[bench.lab.plan.network]}

"""A healthy lab: every kind of Service, from pods and from a node, in each proxy mode and network.

What must come out is derived by hand from the lab's table of Services and from what kube-proxy is
documented to do. What does come out is compared with parties that the tracer cannot influence: the
backend, which says who it is and whom it sees, and the rules as ``iptables-save`` and ``nft`` list
them. A run whose taps or rule traces were silent cannot pass: each must have told of every hop.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest
from support.labs import BRIDGED, TUNNELS

from kptrace.lab import host_commands
from kptrace.lab.address_plan import Plan, PodPlan
from kptrace.model import Hop, Outcome, RuleRef, Trace

pytestmark = pytest.mark.kernel

WEB = ("shop/web-1", "shop/web-2", "shop/web-3")
DNS = ("kube-system/coredns-1", "kube-system/coredns-2")
ON_A, ON_B = WEB[:1], WEB[1:]


class Way(NamedTuple):
    """pods: those that may answer; entry: the node that translates, empty for the source's own.

    direct: nothing is translated; mute: the server does not say its name
    """

    target: str
    pods: tuple[str, ...]
    entry: str = ""
    namespace: str = "shop"
    asked: tuple[tuple[str, Any], ...] = ()
    direct: bool = False
    mute: bool = False

    @property
    def name(self) -> str:
        return "-".join((self.target.replace("/", ":"), *(str(value) for _, value in self.asked)))


def through(service: str, node: str, pods: tuple[str, ...]) -> Way:
    """By a node port, with the address of that node."""
    return Way(f"svc/{service}", pods, entry=node, asked=(("via", "nodePort"), ("node", node)))


REMOTE = Way("svc/remote", ("shop/remote-1",))
NEAR = Way("svc/near", ("shop/near-1",))
DUAL6 = Way("svc/dual", WEB, asked=(("family", 6),))
ECHO = Way("svc/echo", ("shop/echo-1", "shop/echo-2"))
DNS_UDP = Way("svc/kube-dns:53/udp", DNS, namespace="kube-system", mute=True)

EVERY_KIND = (
    Way("svc/web", WEB),
    Way("svc/web:metrics", WEB),
    REMOTE,
    NEAR,
    Way("svc/self", ("shop/client",)),
    ECHO,
    Way("svc/headless", WEB, direct=True),
    Way("svc/sticky", WEB),
    Way("svc/nodeport", WEB),
    Way("svc/nodeport-local", WEB),
    Way("svc/local", ON_A),
    Way("svc/external", WEB),
    Way("svc/web6", WEB),
    Way("svc/dual", WEB),
    DUAL6,
    DNS_UDP,
    Way("svc/kube-dns:53/tcp", DNS, namespace="kube-system", mute=True),
    through("nodeport", "node-a", WEB),
    through("nodeport", "node-b", WEB),
    # externalTrafficPolicy Local: a pod of the node itself is sent anywhere, who comes from another
    # node (masqueraded by Flannel on the way) only to the pods there
    through("nodeport-local", "node-a", WEB),
    through("nodeport-local", "node-b", ON_B),
    Way("svc/external", WEB, asked=(("via", "externalIP"),)),
    Way("10.96.1.1:80", WEB),
    Way("web.shop:80", WEB),
    Way("pod/remote-1:8080", ("shop/remote-1",), direct=True),
    Way("pod/echo-1:7007/udp", ("shop/echo-1",), direct=True),
)
BETWEEN_NODES = (
    ("pod/client-b", NEAR),
    ("pod/client-b", Way("svc/self", ("shop/client",))),
    ("node/node-a", REMOTE),
    ("node/node-a", DUAL6),
)
FROM_ELSEWHERE = (
    ("pod/client-b", REMOTE),
    ("pod/client-b", Way("svc/local", ON_B)),
    ("pod/client-b", DUAL6),
    ("pod/client-b", through("nodeport-local", "node-a", ON_A)),
    ("node/node-a", Way("svc/web", WEB)),
    ("node/node-a", ECHO),
    ("node/node-a", DNS_UDP),
    # the node's own packets are sent anywhere too
    ("node/node-a", through("nodeport-local", "node-a", WEB)),
    ("node/node-a", through("nodeport-local", "node-b", ON_B)),
    ("node/node-a", Way("pod/remote-1:8080", ("shop/remote-1",), direct=True)),
)


def named(source: str, way: Way) -> Any:
    return pytest.param(source, way, id=f"{source.partition('/')[2]}>{way.name}")


FROM_THE_CLIENT = [named("pod/client", way) for way in EVERY_KIND]


@pytest.mark.parametrize(
    ("source", "way"), [*FROM_THE_CLIENT, *(named(*pair) for pair in BETWEEN_NODES)]
)
def test_delivered(each_bench: Any, source: str, way: Way) -> None:
    it_is_delivered(each_bench, source, way)


@pytest.mark.parametrize(("source", "way"), [named(*pair) for pair in FROM_ELSEWHERE])
def test_delivered_from_elsewhere(each_proxy_bench: Any, source: str, way: Way) -> None:
    it_is_delivered(each_proxy_bench, source, way)


def it_is_delivered(bench: Any, source: str, way: Way) -> None:
    plan: Plan = bench.lab.plan
    made: Trace = bench.trace(way.target, source, way.namespace, **dict(way.asked))

    assert made.outcome is Outcome.DELIVERED
    assert made.findings == ()
    everything_was_told(made)

    first, last = made.hops[0], arrival(made)
    start = place_of(plan, source)
    assert first.action == "sent"
    assert (first.node, first.netns) == start
    pod = plan.pod(last.netns)
    assert pod.key in way.pods
    assert last.node == pod.node
    assert last.packet.flow.dst in pod.addresses
    the_backend_agrees(made, last, pod, way.mute)

    entry = way.entry or start[0]
    carried = is_carried(plan, last) and pod.node != entry
    assert [hop.node for hop in of(made, "encap")] == [entry] * carried
    assert [hop.node for hop in of(made, "decap")] == [pod.node] * carried

    dnats = of(made, "dnat")
    assert [hop.node for hop in dnats] == [entry] * (not way.direct)
    for hop in dnats:
        the_rule_is_real(plan, hop, last)
    the_source_changed_where_it_is_said(plan, made, last)
    conntrack_agrees(made, start[0], entry, last)


def of(made: Trace, action: str) -> list[Hop]:
    return [hop for hop in made.hops if hop.action == action]


def is_carried(plan: Plan, hop: Hop) -> bool:
    """Calico's IPv6 goes without a tunnel here."""
    return plan.network == "vxlan" or (plan.network in TUNNELS and not hop.packet.flow.ipv6)


def arrival(made: Trace) -> Hop:
    found = of(made, "delivered")
    assert len(found) == 1, [(h.action, h.netns, h.interface, h.offset_us) for h in made.hops]
    return found[0]


def place_of(plan: Plan, source: str) -> tuple[str, str]:
    kind, _, name = source.partition("/")
    return (name, "host") if kind == "node" else (plan.pod(f"shop/{name}").node, f"shop/{name}")


def everything_was_told(made: Trace) -> None:
    """Every source of evidence spoke, nothing was lost, every crossing was predicted and seen."""
    evidence = made.evidence
    assert {layer.name for layer in evidence.sources} == {"capture", "rules", "drops", "conntrack"}
    assert [layer for layer in evidence.sources if layer.lost or layer.unavailable] == []
    told = {(layer.node, layer.name): layer.reports for layer in evidence.sources}
    crossed = [hop for hop in made.hops if hop.action in ("seen", "decap", "delivered", "reply")]
    for node in {hop.node for hop in made.hops}:
        assert told[node, "capture"] >= sum(hop.node == node for hop in crossed) > 0
        assert told[node, "rules"] >= 2
        assert told[node, "conntrack"] >= 1
    agreement = evidence.prediction_match
    assert agreement is not None
    assert (agreement.seen, agreement.diverged_at) == (agreement.predicted, "")
    # the shortest way there is, from a node to a pod on it: its veth (a bridge before it), the pod
    assert agreement.seen >= 4


def the_backend_agrees(made: Trace, last: Hop, pod: PodPlan, mute: bool) -> None:
    """It says who it is, and whom it saw."""
    (returned,) = made.evidence.probe_results
    assert returned.result == ("connected" if returned.flow.protocol == "tcp" else "replied")
    if mute:
        return
    if returned.flow.protocol == "udp":
        assert returned.data.split(b"\n")[0].decode() == pod.name
        return
    head, _, body = returned.data.decode().partition("\r\n\r\n")
    assert body.strip() == pod.name
    peer = re.search(r"^X-Peer: (\S+) (\d+)$", head, re.MULTILINE)
    assert peer is not None
    assert (peer[1], int(peer[2])) == (last.packet.flow.src, last.packet.flow.sport)


REAL_CHAINS = {
    "iptables": r"KUBE-SEP-[A-Z2-7]{16}",
    "iptables-legacy": r"KUBE-SEP-[A-Z2-7]{16}",
    "nftables": r"(service|local|endpoint)-[0-9A-Z]{8}-[a-z-]+/[a-z0-9-]+/(tcp|udp)/.*",
}


def the_rule_is_real(plan: Plan, hop: Hop, last: Hop) -> None:
    """The rule trace named it, and the kernel's own list has it in that place."""
    assert hop.observed
    assert hop.rule is not None
    assert re.fullmatch(REAL_CHAINS[plan.proxy], hop.rule.chain)
    assert last.packet.flow.dst in hop.rule.text
    assert hop.rule.text in listed(plan, hop)
    assert hop.preceding_rules, "how the packet came to that rule"
    assert all(rule.number for rule in hop.preceding_rules)


def listed(plan: Plan, hop: Hop) -> str:
    """The line of the rule, as the tool that owns it prints it."""
    rule = hop.rule
    assert isinstance(rule, RuleRef)
    netns = plan.node(hop.node).netns
    if plan.proxy == "nftables" and rule.table == "kube-proxy":
        listing = host_commands.run(
            ("nft", "-a", "list", "chain", rule.family, rule.table, rule.chain), netns=netns
        )
        lines = [
            line for line in listing.splitlines() if "# handle" in line and "chain " not in line
        ]
        # quotes and spelling differ between nft's JSON and its text; its own words are kept
        return re.sub(r" # handle \d+$", "", lines[rule.number - 1].strip())
    program = host_commands.iptables(plan.proxy, int(rule.family == "ip6"), "save")
    saved = host_commands.run((program, "-t", rule.table), netns=netns).splitlines()
    return [line for line in saved if line.startswith(f"-A {rule.chain} ")][rule.number - 1]


def the_source_changed_where_it_is_said(plan: Plan, made: Trace, last: Hop) -> None:
    (returned,) = made.evidence.probe_results
    masquerades = of(made, "snat")
    sent, arrived = returned.flow, last.packet.flow
    # a node may be masqueraded as itself: then only the port is another
    assert bool(masquerades) == ((sent.src, sent.sport) != (arrived.src, arrived.sport))
    for hop in masquerades:
        assert hop.observed
        assert hop.rule is not None
        assert re.search("masquerade", listed(plan, hop), re.IGNORECASE)


def conntrack_agrees(made: Trace, start: str, entry: str, last: Hop) -> None:
    """Where it started the connection is known; where it was translated, to the right backend."""
    (returned,) = made.evidence.probe_results
    known = {(e.netns.node, e.original): e for e in made.evidence.conntrack}
    assert "SEEN_REPLY" in known[start, returned.flow].status
    to = (last.packet.flow.dst, last.packet.flow.dport)
    assert to in [(e.reply.src, e.reply.sport) for (node, _), e in known.items() if node == entry]


# --- the whole way ------------------------------------------------------------------------------


def crossings(made: Trace) -> list[tuple[str, str, str, str]]:
    """Where the probe was captured, in order; an encapsulation stands for its tunnel device."""
    return [
        (hop.node, hop.netns, hop.interface, hop.direction)
        for hop in made.hops
        if hop.action in ("sent", "seen", "encap", "decap", "delivered")
    ]


def test_every_interface_to_the_other_node(each_bench: Any) -> None:
    plan: Plan = each_bench.lab.plan
    client, server = plan.pod("shop/client"), plan.pod("shop/remote-1")
    tunnel, bridged = TUNNELS.get(plan.network), plan.network in BRIDGED
    assert crossings(each_bench.trace("svc/remote", "pod/client")) == [
        ("node-a", "shop/client", "eth0", "out"),
        ("node-a", "host", client.interface, "in"),
        *[("node-a", "host", "cni0", "in")] * bridged,
        *[("node-a", "host", tunnel, "out")] * bool(tunnel),
        ("node-a", "host", "eth0", "out"),
        ("node-b", "host", "eth0", "in"),
        *[("node-b", "host", tunnel, "in")] * bool(tunnel),
        *[("node-b", "host", "cni0", "out")] * bridged,
        ("node-b", "host", server.interface, "out"),
        ("node-b", "shop/remote-1", "eth0", "in"),
    ]


def test_every_interface_on_one_node(each_bench: Any) -> None:
    """bridge-nf translates the frame at its port; it then goes on through the bridge (br_nf).

    Where the node does not know the backend's MAC yet, the bridge device itself asks for it and
    sends the frame (br_nf_pre_routing_finish_bridge): then cni0 shows it too, on its way out.
    """
    plan: Plan = each_bench.lab.plan
    client, server = plan.pod("shop/client"), plan.pod("shop/near-1")
    seen = crossings(each_bench.trace("svc/near", "pod/client"))
    assert [each for each in seen if each != ("node-a", "host", "cni0", "out")] == [
        ("node-a", "shop/client", "eth0", "out"),
        ("node-a", "host", client.interface, "in"),
        ("node-a", "host", server.interface, "out"),
        ("node-a", "shop/near-1", "eth0", "in"),
    ]


# --- no endpoints -------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["pod/client", "pod/client-b", "node/node-a"])
def test_no_endpoints(each_proxy_bench: Any, source: str) -> None:
    plan: Plan = each_proxy_bench.lab.plan
    made: Trace = each_proxy_bench.trace("svc/empty", source)
    assert made.outcome is Outcome.NO_ENDPOINTS
    node, netns = place_of(plan, source)
    assert [(f.cause, f.severity, f.node) for f in made.findings] == [
        ("no-endpoints", "error", node)
    ]
    assert "shop/empty" in made.findings[0].object
    assert any("rule trace" in line for line in made.findings[0].evidence)
    assert (made.hops[0].action, made.hops[0].netns) == ("sent", netns)
    (rejected,) = of(made, "rejected")
    assert rejected.rule is not None
    assert re.search("reject|REJECT", listed(plan, rejected))
    (returned,) = made.evidence.probe_results
    assert returned.result == "refused"
    assert [hop for hop in of(made, "reply") if hop.packet.innermost.icmp == (3, 3)]


# --- traffic policy Local on a node without a pod of the Service ---------------------------------


@pytest.mark.parametrize(
    ("target", "source", "asked"),
    [
        # masqueraded by Flannel to node-a's address: for node-c somebody from outside
        ("svc/nodeport-local", "pod/client", {"via": "nodePort", "node": "node-c"}),
        ("svc/local", "pod/client-c", {}),
    ],
    ids=["external", "internal"],
)
def test_no_local_endpoints(
    each_wide_bench: Any, target: str, source: str, asked: dict[str, str]
) -> None:
    made: Trace = each_wide_bench.trace(target, source, **asked)
    assert made.outcome is Outcome.DROPPED
    assert [(f.cause, f.node) for f in made.findings] == [("no-local-endpoints", "node-c")]
    (dropped,) = of(made, "dropped")
    assert dropped.node == "node-c"
    plan: Plan = each_wide_bench.lab.plan
    rule = listed(plan, dropped)
    if plan.proxy == "nftables":  # the map that the rule asks gives the verdict
        (asked,) = re.findall(r"vmap @(no-endpoint-\S+)", rule)
        netns = plan.node("node-c").netns
        listing = host_commands.run(("nft", "list", "map", "ip", "kube-proxy", asked), netns=netns)
        assert re.search(f'comment "shop/{target[4:]}" : drop', re.sub(r"\s+", " ", listing))
    else:
        assert rule.endswith("-j DROP")
    (returned,) = made.evidence.probe_results
    assert returned.result == "timeout"


def test_a_third_node_is_traced_like_the_second(each_wide_bench: Any) -> None:
    made: Trace = each_wide_bench.trace("svc/remote", "pod/client-c")
    assert made.outcome is Outcome.DELIVERED
    everything_was_told(made)
    assert [hop.node for hop in (*of(made, "encap"), *of(made, "decap"))] == ["node-c", "node-b"]


# --- many flows ---------------------------------------------------------------------------------


def test_shares_of_forty_flows(each_proxy_bench: Any) -> None:
    made: Trace = each_proxy_bench.trace("svc/web", "pod/client", count=40)
    assert made.outcome is Outcome.DELIVERED
    assert [layer for layer in made.evidence.sources if layer.lost] == []
    shares = made.evidence.shares
    assert sorted(share.pod for share in shares) == list(WEB)
    assert [share.weight for share in shares] == pytest.approx([1 / 3] * 3, abs=1e-5)
    said = [r.data.decode().rpartition("\r\n\r\n")[2].strip() for r in made.evidence.probe_results]
    assert len(said) == 40
    for share in shares:
        # a backend that gets none of 40 comes once in three million runs
        assert share.seen == share.delivered == said.count(share.pod.partition("/")[2]) > 0


def test_affinity_sends_all_flows_to_one_backend(each_proxy_bench: Any) -> None:
    traces = [each_proxy_bench.trace("svc/sticky", "pod/client", count=8) for _ in range(2)]
    chosen = [[(s.pod, s.seen) for s in made.evidence.shares if s.seen] for made in traces]
    assert chosen[0] == chosen[1]
    ((_, seen),) = chosen[0]
    assert seen == 8

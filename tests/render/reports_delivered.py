"""Reports of packets that arrived."""

from __future__ import annotations

import msgspec
from report_parts import (
    BOTH,
    CLIENT,
    CONNECTED,
    PREROUTING,
    REMOTE,
    REMOTE_1,
    TRACKED,
    answers,
    branch,
    changed,
    endpoint,
    hop,
    layers,
    over_the_tunnel,
    resolution,
    rule,
    syn,
    to_the_pod,
    trace,
)

from kptrace.model import (
    BackendShare,
    Endpoint,
    Evidence,
    Finding,
    Netns,
    Outcome,
    Prediction,
    PredictionMatch,
    Source,
    Target,
    Trace,
)


def delivered_vxlan() -> Trace:
    forward = [*over_the_tunnel(), *to_the_pod()]
    return trace(
        "remote",
        Outcome.DELIVERED,
        resolution=REMOTE,
        prediction=Prediction(branches=(branch(1.0, Outcome.DELIVERED, REMOTE_1),)),
        hops=(*forward, *answers(forward)),
        evidence=Evidence(
            sources=BOTH,
            conntrack=(TRACKED,),
            probe_results=(CONNECTED,),
            prediction_match=PredictionMatch(predicted=10, seen=10),
        ),
        summary="delivered to pod shop/remote-1 on node-b",
        elapsed_us=410.0,
    )


def delivered_same_node() -> Trace:
    """nftables mode, without bridge-nf for the DNAT's place: cni0 still shows the ClusterIP."""
    there = syn("10.244.1.10", "10.244.1.11", dport=8080)
    start = syn("10.244.1.10", "10.96.1.1")
    via = (
        rule("kube-proxy", "nat-prerouting", 1, "jump services", "to the Services"),
        rule(
            "kube-proxy",
            "services",
            2,
            "ip daddr . meta l4proto . th dport vmap @service-ips",
            "finds the Service by address and port",
        ),
    )
    deed = rule(
        "kube-proxy",
        "service-PFISGYVC-shop/web/tcp/http",
        1,
        "meta l4proto tcp dnat ip to numgen random mod 3 map { 0 : 10.244.1.11 . 8080, "
        "1 : 10.244.1.12 . 8080, 2 : 10.244.2.11 . 8080 }",
        "1 in 3 chance each: 10.244.1.11:8080, 10.244.1.12:8080, 10.244.2.11:8080",
    )
    forward = [
        hop("node-a shop/client", "eth0 out", "sent", start, offset_us=0.0),
        hop("node-a", "vethc1a2b3c4 in", "seen", start, offset_us=9.0),
        hop("node-a", "cni0 in", "seen", start, offset_us=9.0),
        hop(
            "node-a",
            "cni0 out",
            "dnat",
            there,
            rule=deed,
            preceding_rules=via,
            description="10.96.1.1:80 => 10.244.1.11:8080",
            rewrites=changed(start, there),
        ),
        hop(
            "node-a",
            "cni0",
            "route",
            there,
            description="10.244.1.0/24 dev cni0 proto kernel scope link src 10.244.1.1",
            observed=False,
        ),
        hop("node-a", "cni0 out", "seen", there, offset_us=31.0),
        hop("node-a", "veth0fe2c687 out", "seen", there, offset_us=33.0),
        hop("node-a shop/web-1", "eth0 in", "delivered", there, offset_us=35.5),
    ]
    ends = (
        endpoint("10.244.1.11", "node-a", "web-1"),
        endpoint("10.244.1.12", "node-a", "web-2"),
        endpoint("10.244.2.11", "node-b", "web-3"),
    )
    return trace(
        "web",
        Outcome.DELIVERED,
        target=Target(
            kind="service", text="svc/web:http", name="web", namespace="shop", port="http"
        ),
        resolution=resolution("web", "10.96.1.1", *ends),
        prediction=Prediction(
            branches=tuple(branch(1 / 3, Outcome.DELIVERED, end) for end in ends)
        ),
        hops=(*forward, *answers(forward)),
        findings=(
            Finding(
                cause="rp-filter",
                severity="warning",
                node="node-a",
                object="net.ipv4.conf.cni0.rp_filter",
                summary="rp_filter is strict on cni0",
                remedy=("sysctl -w net.ipv4.conf.cni0.rp_filter=2  # on node-a",),
            ),
        ),
        evidence=Evidence(
            sources=layers("node-a"), prediction_match=PredictionMatch(predicted=6, seen=6)
        ),
        elapsed_us=96.4,
    )


def delivered_hairpin() -> Trace:
    """A pod that reaches itself: DNAT and SNAT on the node, and back in by the port it left by."""
    start = syn("10.244.1.10", "10.96.77.1")
    there = syn("10.244.1.10", "10.244.1.10", dport=8080)
    masked = syn("10.244.1.1", "10.244.1.10", sport=61044, dport=8080)
    deed = rule(
        "nat", "KUBE-SEP-5OCWPZKODR2CLL6E", 2, "-p tcp -j DNAT --to-destination 10.244.1.10:8080"
    )
    masquerade = rule(
        "nat",
        "KUBE-POSTROUTING",
        3,
        '-m comment --comment "kubernetes service traffic requiring SNAT" '
        "-j MASQUERADE --random-fully",
    )
    forward = [
        hop("node-a shop/client", "eth0 out", "sent", start, offset_us=0.0),
        hop("node-a", "vethc1a2b3c4 in", "seen", start, offset_us=8.2),
        hop(
            "node-a",
            "cni0 in",
            "dnat",
            there,
            rule=deed,
            preceding_rules=(PREROUTING,),
            rewrites=changed(start, there),
        ),
        hop(
            "node-a",
            "vethc1a2b3c4 out",
            "snat",
            masked,
            rule=masquerade,
            rewrites=changed(there, masked),
        ),
        hop("node-a", "vethc1a2b3c4 out", "seen", masked, offset_us=22.0),
        hop("node-a shop/client", "eth0 in", "delivered", masked, offset_us=24.0),
    ]
    return trace(
        "self",
        Outcome.DELIVERED,
        resolution=resolution("self", "10.96.77.1", endpoint("10.244.1.10", "node-a", "client")),
        hops=(*forward, *answers(forward)),
        evidence=Evidence(
            sources=layers("node-a"), prediction_match=PredictionMatch(predicted=4, seen=4)
        ),
        elapsed_us=61.0,
    )


def delivered_udp() -> Trace:
    """host-gw: no tunnel, from a node, to an address; the answer's way was not watched whole."""
    start = syn("172.30.0.11", "10.96.0.10", sport=39211, dport=53, protocol="udp")
    there = syn("172.30.0.11", "10.244.2.53", sport=39211, dport=53, protocol="udp")
    deed = rule(
        "nat", "KUBE-SEP-DQR5UCEPJNQ24ZU5", 2, "-p udp -j DNAT --to-destination 10.244.2.53:53"
    )
    output = rule("nat", "OUTPUT", 1, "-j KUBE-SERVICES", "to the Services")
    forward = [
        hop(
            "node-a",
            "eth0 out",
            "dnat",
            there,
            rule=deed,
            preceding_rules=(output,),
            rewrites=changed(start, there),
        ),
        hop("node-a", "eth0 out", "sent", there, offset_us=0.0),
        hop("node-b", "eth0 in", "seen", there, offset_us=24.0),
        hop("node-b", "cni0 out", "seen", there, offset_us=41.0),
        hop("node-b", "veth9e86f9a4 out", "seen", there, offset_us=42.0),
        hop(
            "node-b kube-system/coredns-7c65d6cfc9-x2x4z",
            "eth0 in",
            "delivered",
            there,
            offset_us=45.0,
        ),
    ]
    dns = endpoint("10.244.2.53", "node-b", "x", 53)
    named = Endpoint(
        address=dns.address,
        port=53,
        protocol="udp",
        node="node-b",
        pod="kube-system/coredns-7c65d6cfc9-x2x4z",
    )
    made = resolution("kube-dns", "10.96.0.10", named, port=53, protocol="udp", dns=())
    assert made.service is not None
    own = msgspec.structs.replace(made.service, namespace="kube-system")
    made = msgspec.structs.replace(made, service=own)
    return trace(
        "kube-dns",
        Outcome.DELIVERED,
        target=Target(
            kind="address", text="10.96.0.10:53/udp", name="10.96.0.10", port="53", protocol="udp"
        ),
        source=Source(kind="node", netns=Netns(node="node-a"), why="as asked"),
        resolution=made,
        hops=(*forward, *answers(forward[1:], "answer", "")[:3]),
        evidence=Evidence(sources=BOTH, prediction_match=PredictionMatch(predicted=5, seen=5)),
        elapsed_us=88.0,
    )


def delivered_ipv6() -> Trace:
    start = syn("fd00:10:244:1::99", "fd00:10:96::6", sport=33322)
    there = syn("fd00:10:244:1::99", "fd00:10:244:2::11", sport=33322, dport=8080)
    deed = rule(
        "nat",
        "KUBE-SEP-J6Y6K63CEEC4V3C3",
        2,
        "-p tcp -m tcp -j DNAT --to-destination [fd00:10:244:2::11]:8080",
    )
    forward = [
        hop("node-a shop/client", "eth0 out", "sent", start, offset_us=0.0),
        hop("node-a", "vethc1a2b3c4 in", "seen", start, offset_us=1240.0),
        hop(
            "node-a",
            "cni0 in",
            "dnat",
            there,
            rule=deed,
            preceding_rules=(PREROUTING,),
            rewrites=changed(start, there),
        ),
        hop("node-a", "cni0 in", "seen", there, offset_us=1240.0),
        hop(
            "node-a",
            "eth0",
            "route",
            there,
            description="fd00:10:244:2::/64 via fd00:30::12 dev eth0 metric 1024 pref medium",
            observed=False,
        ),
        hop("node-a", "eth0 out", "seen", there, offset_us=1251.0),
        hop("node-b", "eth0 in", "seen", there, offset_us=1290.0),
        hop("node-b", "cni0 out", "seen", there, offset_us=1302.0),
        hop("node-b", "veth77d0e1f2 out", "seen", there, offset_us=1303.0),
        hop("node-b shop/web6-1", "eth0 in", "delivered", there, offset_us=1306.0),
    ]
    return trace(
        "web6",
        Outcome.DELIVERED,
        resolution=resolution(
            "web6", "fd00:10:96::6", endpoint("fd00:10:244:2::11", "node-b", "web6-1")
        ),
        source=Source(kind="pod", netns=CLIENT, address="fd00:10:244:1::99"),
        hops=(*forward, *answers(forward)),
        evidence=Evidence(sources=BOTH, prediction_match=PredictionMatch(predicted=8, seen=8)),
        elapsed_us=3_020_000.0,
    )


def delivered_count() -> Trace:
    whole = delivered_same_node()
    counts = {"10.244.1.11": 9, "10.244.1.12": 12, "10.244.2.11": 9}
    assert whole.resolution is not None
    return trace(
        "web",
        Outcome.DELIVERED,
        resolution=whole.resolution,
        prediction=whole.prediction,
        hops=whole.hops,
        evidence=Evidence(
            sources=BOTH,
            prediction_match=PredictionMatch(predicted=6, seen=6),
            shares=tuple(
                BackendShare(
                    address=end.address,
                    port=end.port,
                    node=end.node,
                    pod=end.pod,
                    weight=0.333333,
                    seen=counts[end.address],
                    delivered=counts[end.address],
                )
                for end in whole.resolution.endpoints
            ),
        ),
        elapsed_us=99.0,
    )

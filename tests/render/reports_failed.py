"""Reports of packets that did not arrive, or of which too little was seen."""

from __future__ import annotations

from report_parts import (
    BLOCKED,
    BOTH,
    CARRIED,
    REMOTE,
    REMOTE_1,
    answers,
    branch,
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
    DnsAnswer,
    Evidence,
    EvidenceSource,
    Finding,
    Flow,
    Outcome,
    Packet,
    Prediction,
    PredictionMatch,
    Trace,
)


def dropped_tunnel_port() -> Trace:
    ended = hop(
        "node-b",
        "eth0",
        "dropped",
        CARRIED,
        rule=BLOCKED,
        offset_us=63.0,
        description="drops it",
    )
    return trace(
        "remote",
        Outcome.DROPPED,
        resolution=REMOTE,
        prediction=Prediction(
            branches=(branch(1.0, Outcome.DROPPED, REMOTE_1, "dropped by filter INPUT 3"),)
        ),
        hops=(*over_the_tunnel(), ended),
        findings=(
            Finding(
                cause="tunnel-port-blocked",
                severity="error",
                node="node-b",
                object="filter INPUT 3",
                summary="the VXLAN packet reached node-b and was dropped there by "
                "filter INPUT 3: -p udp -m udp --dport 8472 -j DROP",
                evidence=(
                    "rule trace on node-b: filter INPUT 3, verdict drop",
                    "last seen going in on eth0 of node-b at +58 us",
                    "never seen on flannel.1 of node-b",
                    "kernel drop report on node-b: NETFILTER_DROP in nft_do_chain+0x36e at +64 us",
                ),
                remedy=(
                    "iptables-nft -D INPUT -p udp -m udp --dport 8472 -j DROP  # on node-b",
                    "or let UDP port 8472 in from the nodes' addresses (here 172.30.0.11)",
                ),
            ),
        ),
        evidence=Evidence(sources=BOTH, prediction_match=PredictionMatch(predicted=6, seen=6)),
        summary="the VXLAN packet reached node-b and was dropped there",
    )


def rejected_no_endpoints() -> Trace:
    start = syn("10.244.1.10", "10.96.1.2")
    refusal = Packet(
        flow=Flow(protocol="icmp", src="10.244.1.1", dst="10.244.1.10"),
        icmp=(3, 3),
        quoted=start,
        length=88,
    )
    reject = rule(
        "filter",
        "KUBE-SERVICES",
        5,
        '-d 10.96.1.2/32 -p tcp -m comment --comment "shop/empty has no endpoints" '
        "-m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable",
        "rejects it: shop/empty has no endpoints",
    )
    portals = rule(
        "filter",
        "FORWARD",
        3,
        '-m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" '
        "-j KUBE-SERVICES",
    )
    words = "ICMP port unreachable from 10.244.1.1"
    hops = (
        hop("node-a shop/client", "eth0 out", "sent", start, offset_us=0.0),
        hop("node-a", "vethc1a2b3c4 in", "seen", start, offset_us=8.0),
        hop("node-a", "cni0 in", "seen", start, offset_us=8.0),
        hop(
            "node-a",
            "cni0",
            "rejected",
            start,
            rule=reject,
            preceding_rules=(portals,),
            offset_us=14.0,
            description=reject.description,
        ),
        hop("node-a", "cni0 out", "reply", refusal, description=words, offset_us=16.0),
        hop("node-a", "vethc1a2b3c4 out", "reply", refusal, description=words, offset_us=17.0),
        hop("node-a shop/client", "eth0 in", "reply", refusal, description=words, offset_us=18.0),
    )
    return trace(
        "empty",
        Outcome.NO_ENDPOINTS,
        resolution=resolution("empty", "10.96.1.2"),
        hops=hops,
        findings=(
            Finding(
                cause="no-endpoints",
                severity="error",
                node="node-a",
                object="Service shop/empty",
                summary="Service shop/empty has no ready endpoint: filter KUBE-SERVICES 5 on "
                "node-a rejects its packets",
                evidence=(
                    f"rule trace on node-a: filter KUBE-SERVICES 5: {reject.text}, verdict reject",
                    "the API has 0 endpoints for it, 0 of them ready",
                ),
                remedy=(
                    "kubectl -n shop describe svc empty",
                    "kubectl -n shop get pods -l app=empty  # do any match? ready?",
                ),
            ),
        ),
        evidence=Evidence(
            sources=layers("node-a"), prediction_match=PredictionMatch(predicted=3, seen=3)
        ),
        summary="Service shop/empty has no ready endpoint",
    )


def not_programmed() -> Trace:
    start = syn("10.244.1.10", "10.96.41.7")
    hops = (
        hop("node-a shop/client", "eth0 out", "sent", start, offset_us=0.0),
        hop("node-a", "vethc1a2b3c4 in", "seen", start, offset_us=8.0),
        hop("node-a", "cni0 in", "seen", start, offset_us=8.0),
        hop(
            "node-a",
            "eth0",
            "route",
            start,
            description="default via 172.30.0.1 dev eth0",
            observed=False,
        ),
        hop("node-a", "eth0 out", "seen", start, offset_us=15.0),
    )
    return trace(
        "remote",
        Outcome.NOT_PROGRAMMED,
        resolution=REMOTE,
        hops=hops,
        findings=(
            Finding(
                cause="proxy-rules-missing",
                severity="error",
                node="node-a",
                object="nat KUBE-SERVICES",
                summary="node-a has no rule for 10.96.41.7:80/TCP: the packet left untranslated",
                evidence=(
                    "the API has 1 endpoint for it, 1 of them ready",
                    "conntrack on node-a: 10.244.1.10:41515 > 10.96.41.7:80, "
                    "reply expected from 10.96.41.7:80, SYN_SENT, no reply seen",
                ),
                remedy=(
                    "kubectl -n kube-system delete pod --field-selector spec.nodeName=node-a "
                    "-l k8s-app=kube-proxy  # it writes its rules anew",
                ),
            ),
            Finding(
                cause="mtu-exceeded",
                severity="info",
                node="node-b",
                object="flannel.1",
                summary="flannel.1 on node-b has MTU 1500 over an uplink of 1500",
            ),
        ),
        evidence=Evidence(
            sources=layers("node-a", drops="tracefs is not mounted"),
            prediction_match=PredictionMatch(
                predicted=10, seen=4, diverged_at="flannel.1 of node-a, going out"
            ),
        ),
        summary="node-a has no rule for it",
    )


def refused() -> Trace:
    """Nobody listens: the backend's own RST comes all the way back."""
    forward = [*over_the_tunnel(), *to_the_pod()]
    return trace(
        "remote",
        Outcome.REFUSED,
        resolution=REMOTE,
        hops=(*forward, *answers(forward, "RST", "RA")),
        findings=(
            Finding(
                cause="no-listener",
                severity="error",
                node="node-b",
                object="port 8080/tcp of pod shop/remote-1",
                summary="pod shop/remote-1 on node-b refused it: nothing listens on 8080/tcp there",
                evidence=("a RST left eth0 of pod shop/remote-1 at +120 us",),
            ),
        ),
        evidence=Evidence(sources=BOTH, prediction_match=PredictionMatch(predicted=10, seen=10)),
        summary="pod shop/remote-1 refused it",
    )


def inconclusive() -> Trace:
    why = (
        'no agent there (pods is forbidden: cannot create resource "pods" in '
        'namespace "kube-system")'
    )
    blind = tuple(
        EvidenceSource(
            name=name,
            node="node-b",
            unavailable=why,
            hint="kubectl apply -f rbac.yaml, or run kptrace on node-b itself",
        )
        for name in ("capture", "rules")
    )
    return trace(
        "remote",
        Outcome.INCONCLUSIVE,
        resolution=REMOTE,
        hops=tuple(over_the_tunnel()[:-1]),
        findings=(
            Finding(
                cause="not-observed",
                severity="warning",
                node="node-a",
                object="the next hop",
                summary="what became of the packet was not observed",
                evidence=(
                    "last seen going out on eth0 of node-a at +36 us",
                    "never seen on eth0 of node-b",
                ),
            ),
        ),
        evidence=Evidence(
            sources=(*layers("node-a"), *blind),
            prediction_match=PredictionMatch(
                predicted=10, seen=5, diverged_at="eth0 of node-b, going in"
            ),
        ),
        summary="what became of the packet was not observed",
    )


def unresolved() -> Trace:
    search = ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local")
    asked = tuple(
        DnsAnswer(
            name=name,
            type="A",
            server="10.96.0.10",
            status="NXDOMAIN",
            elapsed_us=700,
        )
        for name in (*(f"remote.{domain}" for domain in search), "remote")
    )
    return trace(
        "remote",
        Outcome.UNRESOLVED,
        resolution=resolution("remote", "10.96.41.7", REMOTE_1, dns=asked),
        findings=(
            Finding(
                cause="dns-nxdomain",
                severity="error",
                node="",
                object="remote (A) at 10.96.0.10",
                summary="DNS server 10.96.0.10 knows no name remote, "
                "nor any other of the 4 names of the search list",
                evidence=tuple(f"10.96.0.10 over UDP: {a.name} A: NXDOMAIN, 0.7 ms" for a in asked),
                remedy=(
                    "kubectl -n kube-system logs -l k8s-app=kube-dns  # does it follow the API?",
                ),
            ),
        ),
        evidence=Evidence(sources=layers("node-a")),
    )

"""A report in which every text is long or hostile."""

from __future__ import annotations

from report_parts import PREROUTING, branch, changed, hop, resolution, rule, syn, trace

from kptrace.model import (
    BackendShare,
    Endpoint,
    Evidence,
    EvidenceSource,
    Finding,
    Netns,
    Outcome,
    Prediction,
    PredictionMatch,
    Source,
    Trace,
)

LONG = "a-very-long-service-name-that-is-exactly-sixty-three-chars-long"
LONG_NODE = "ip-10-244-100-200." + "very-long-domain-name-of-a-cloud." * 6 + "compute.internal"
HOSTILE = 'x" -j ACCEPT\x1b[2J\x1b]0;owned\x07\u202ednatsrevo\u200b\nFAKE: DELIVERED'


def hostile() -> Trace:
    pod = f"shop/{LONG}-7c65d6cfc9-x2x4z"
    start = syn("fd00:10:244:1111:2222:3333:4444:5555", "fd00:10:96:aaaa:bbbb:cccc:dddd:eeee")
    there = syn(
        "fd00:10:244:1111:2222:3333:4444:5555", "fd00:10:244:2222:3333:4444:5555:6666", dport=8080
    )
    deed = rule(
        "nat",
        "service-PFISGYVC-shop/" + LONG + "/tcp/http",
        12,
        f'-m comment --comment "{HOSTILE}" -j DNAT --to-destination [fd00::1]:80',
    )
    chain = rule(
        "filter", "KUBE-\x1b[31mEVIL", 1, f"-m comment --comment {HOSTILE} -j DROP", HOSTILE
    )
    hops = (
        hop(f"{LONG_NODE} {pod}", "eth0 out", "sent", start, offset_us=0.0),
        hop(LONG_NODE, "veth0123456789a in", "seen", start, offset_us=8.0),
        hop(
            LONG_NODE,
            "cni0 in",
            "dnat",
            there,
            rule=deed,
            preceding_rules=(PREROUTING, chain),
            description=HOSTILE,
            rewrites=changed(start, there),
        ),
        hop(
            LONG_NODE,
            "cni0 in",
            "dropped",
            there,
            rule=chain,
            offset_us=12_345_678.0,
            description=HOSTILE,
        ),
    )
    end = Endpoint(
        address="fd00:10:244:2222:3333:4444:5555:6666", port=8080, node=LONG_NODE, pod=pod
    )
    share = BackendShare(
        address=end.address, port=8080, node=LONG_NODE, pod=pod, weight=1.0, seen=2, delivered=0
    )
    made = resolution(LONG, "fd00:10:96:aaaa:bbbb:cccc:dddd:eeee", end)
    return trace(
        LONG,
        Outcome.DROPPED,
        source=Source(kind="pod", netns=Netns(node=LONG_NODE, pod=pod)),
        resolution=made,
        prediction=Prediction(
            branches=(branch(1.0, Outcome.DELIVERED, end, HOSTILE),), missing=(HOSTILE,)
        ),
        hops=hops,
        findings=(
            Finding(
                cause=HOSTILE,
                severity="error",
                node=LONG_NODE,
                object=HOSTILE,
                summary=HOSTILE,
                evidence=(HOSTILE,),
                remedy=(f"kubectl {HOSTILE} {LONG_NODE}", HOSTILE),
            ),
            Finding(
                cause="mtu-exceeded",
                severity="info",
                node=HOSTILE,
                object="",
                summary=HOSTILE,
                remedy=(HOSTILE,),
            ),
        ),
        evidence=Evidence(
            sources=(
                EvidenceSource(name=HOSTILE, node=HOSTILE, unavailable=HOSTILE, hint=HOSTILE),
                EvidenceSource(name="capture", node=LONG_NODE, lost=7),
            ),
            prediction_match=PredictionMatch(predicted=4, seen=2, diverged_at=HOSTILE),
            shares=(share, share),
        ),
        summary=HOSTILE,
    )

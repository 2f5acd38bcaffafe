"""What the report rests on."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from kptrace.diagnose.concurrent_changes import endpoints_changed, rules_changed
from kptrace.model import (
    BackendShare,
    DnsAnswer,
    Endpoint,
    Evidence,
    EvidenceSource,
    Netns,
    Prediction,
    PredictionMatch,
    Trace,
)
from kptrace.render import evidence
from kptrace.render.layout import TextLayout
from kptrace.rules.live.queries import RuleQuery


def shown(tell: Callable[[TextLayout], None], width: int = 80) -> str:
    page = TextLayout(width, colour=False)
    tell(page)
    return page.text()


def layer(name: str, node: str, **more: object) -> EvidenceSource:
    return msgspec.structs.replace(EvidenceSource(name=name, node=node), **more)


def test_agreement(samples: dict[str, Trace]) -> None:
    def told(parted: str) -> str:
        found = Evidence(prediction_match=PredictionMatch(predicted=12, seen=9, diverged_at=parted))
        trace = msgspec.structs.replace(
            samples["delivered-vxlan"],
            evidence=found,
            prediction=Prediction(missing=("sysctl.txt of node-b",)),
        )
        return shown(lambda page: evidence.agreement(page, trace))

    without = "Prediction made without: sysctl.txt of node-b.\n"
    assert told("") == f"Prediction matches capture: 9 of 12 interface crossings.\n{without}"
    assert told("eth0 of node-b, going in") == (
        "Prediction and capture diverge at eth0 of node-b, going in: 9 of 12 interface\n"
        "  crossings match.\n" + without
    )


def test_watched_and_lost() -> None:
    known = (layer("capture", "node-a"), layer("rules", "node-a"), layer("capture", "node-b"))
    whole = shown(lambda page: evidence.layers(page, known, with_missing=True))
    assert whole == "Data sources: capture, rule trace. No events lost.\n"
    lost = (*known, layer("capture", "node-b", lost=2))
    assert shown(lambda page: evidence.layers(page, lost, with_missing=True)) == (
        "Data sources: capture, rule trace. Lost: 2 reports of capture on node-b.\n"
    )


def test_a_layer_that_is_missing_on_one_node_only_watched_on_the_other() -> None:
    known = (
        layer("drops", "node-a"),
        layer("drops", "node-b", unavailable="no tracefs.", hint="mount -t tracefs"),
        layer("rules", "node-b", unavailable="no tracefs.", hint="mount -t tracefs"),
    )
    assert shown(lambda page: evidence.layers(page, known, with_missing=True)) == (
        "Data sources: drop reasons. No events lost.\n"
        "Not available: drop reasons, rule trace on node-b: no tracefs. Enable with:\n"
        "  mount -t tracefs\n"
    )
    assert "Not available" not in shown(lambda page: evidence.layers(page, known, False))


def test_one_cause_is_told_once() -> None:
    """In a pod without rights: each source says its own, the reader is told two things."""
    refusal = "you are not allowed to: list pods, list nodes"
    known = (
        layer(
            "capture",
            "node-a",
            unavailable="without CAP_NET_ADMIN nothing can be marked (in shop/client)",
            hint="grant CAP_NET_ADMIN and CAP_NET_RAW",
        ),
        layer(
            "drops",
            "node-a",
            unavailable="bpf: Operation not permitted (in shop/client)",
            hint="grant CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN",
        ),
        layer("conntrack", "node-a", unavailable=f"no agent could be started: {refusal}"),
        layer("the API", "node-a", unavailable=f"not asked: {refusal}", hint="apply this"),
    )
    assert evidence.missing(known) == [
        (
            "capture, drop reasons on node-a: not permitted (in shop/client)",
            "grant CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN",
        ),
        (f"conntrack, the API on node-a: {refusal}", "apply this"),
    ]


def test_what_is_alone_is_told_in_full() -> None:
    known = (
        layer("capture", "node-a", unavailable="bpf: no.", hint="grant CAP_BPF"),
        layer("capture", "node-b", unavailable="bpf: no.", hint="grant CAP_BPF"),
        layer("host", "node-c", unavailable="no way in: shut"),
    )
    assert evidence.missing(known) == [
        ("capture on node-a, node-b: bpf: no", "grant CAP_BPF"),
        ("the node itself on node-c: no way in: shut", ""),
    ]


def test_each_name_stands_with_its_own_nodes() -> None:
    known = (
        layer("rules", "node-a", unavailable="none"),
        layer("capture", "node-b", unavailable="none"),
        layer("rules", "node-c", unavailable="none"),
    )
    assert evidence.missing(known) == [
        ("rule trace on node-a, node-c; capture on node-b: none", "")
    ]


def test_nobody_watched() -> None:
    assert shown(lambda page: evidence.layers(page, (), with_missing=True)) == ""


def answer(name: str, status: str, *records: tuple[str, str]) -> DnsAnswer:
    return DnsAnswer(
        name=name, type="A", server="10.0.0.1", status=status, records=records, elapsed_us=1500
    )


def test_dns_tells_the_last_question_or_all() -> None:
    asked = (
        answer("web.x", "NXDOMAIN"),
        answer("web.y", "NOERROR", ("CNAME", "z."), ("A", "10.96.0.1")),
    )
    assert shown(lambda page: evidence.dns(page, asked, wide=False)) == (
        "DNS: web.y A z., 10.96.0.1 (10.0.0.1 over UDP, 1.50 ms), 2 names tried.\n"
    )
    assert shown(lambda page: evidence.dns(page, asked, wide=True)) == (
        "DNS: web.x A NXDOMAIN (10.0.0.1 over UDP, 1.50 ms).\n"
        "DNS: web.y A z., 10.96.0.1 (10.0.0.1 over UDP, 1.50 ms).\n"
    )
    assert shown(lambda page: evidence.dns(page, (), wide=True)) == ""


def test_shares_of_an_unknown_backend(samples: dict[str, Trace]) -> None:
    share = BackendShare(
        address="fd00::9", port=80, node="", pod="", weight=0.0, seen=1, delivered=0
    )
    trace = msgspec.structs.replace(samples["delivered-count"], evidence=Evidence(shares=(share,)))
    text = shown(lambda page: evidence.shares(page, trace))
    assert "[fd00::9]:80  no such endpoint       0.0%   1 (100%)          0" in text
    narrow = shown(lambda page: evidence.shares(page, trace), width=60)
    assert "      predicted 0.0%, seen 1 (100%) of 1, delivered 0\n" in narrow


def test_what_changed_meanwhile_is_told_apart_from_what_was_not_watched() -> None:
    first, second = (Endpoint(address=address, port=80) for address in ("10.244.1.9", "fd00::9"))
    gone = msgspec.structs.replace(second, ready=False)
    (change,) = endpoints_changed("node-a", "shop/web", [first, second], [first, gone])
    chain = RuleQuery(kind="chain", backend="nft", family="ip", table="nat", name="KUBE-SVC-X")
    ipset = RuleQuery(kind="set", backend="ipset", name="a\x1b[2J")
    other = RuleQuery(kind="set", backend="nft", family="ip6", table="t", name="s")
    parts = (chain.part_query("all"), chain, ipset, other)
    known = (layer("capture", "node-a"), change, rules_changed(Netns(node="node-a"), parts))
    text = shown(lambda page: evidence.layers(page, known, with_missing=True))
    watched, *unsure = text.splitlines()
    assert watched == "Data sources: capture. No events lost."
    assert " ".join(line.strip() for line in unsure) == (
        "Unsure: the endpoints of shop/web changed while this ran ([fd00::9]:80 went). "
        "Next step: trace once more "
        "Unsure: the rules of node-a changed while this ran (chain KUBE-SVC-X of ip nat, "
        "set a\\x1b[2J and 1 more); those that the probe met may be older or newer "
        "than those told here. Next step: trace once more"
    )
    assert "Unsure" not in shown(lambda page: evidence.layers(page, known, False))

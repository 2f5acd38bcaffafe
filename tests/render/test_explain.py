"""An Explanation on paper; rules and addresses as a real kube-proxy wrote them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from kptrace.model import (
    ExplainedPort,
    Explanation,
    Finding,
    MatchedRule,
    Outcome,
    ServiceEntrypoint,
    Target,
    WeightedBackend,
)
from kptrace.render.explain import explain
from kptrace.render.json import json
from kptrace.render.sanitize import cells

GOLDEN = Path(__file__).parent / "golden"


def met(chain: str, number: int, text: str, words: str, **more: object) -> MatchedRule:
    rule = MatchedRule(table="nat", chain=chain, number=number, text=text, description=words)
    return msgspec.structs.replace(rule, hook="prerouting", **more)


RULES = (
    met(
        "PREROUTING",
        1,
        '-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        "to the Services",
    ),
    met(
        "KUBE-SERVICES",
        9,
        '-A KUBE-SERVICES -d 10.96.1.1/32 -p tcp -m comment --comment "default/web cluster IP" '
        "-m tcp --dport 80 -j KUBE-SVC-LOLE4ISW44XBNF3G",
        "default/web cluster IP",
        packets=12,
    ),
)
BACKENDS = (
    WeightedBackend(
        address="10.244.1.11", port=8080, weight=0.333333, node="node-a", pod="default/web-1"
    ),
    WeightedBackend(address="10.244.2.11", port=8080, weight=0.666667, node="node-b"),
)
ENTRY = ServiceEntrypoint(
    kind="clusterIP",
    address="10.96.1.1",
    port=80,
    sender="pod",
    outcome=Outcome.DELIVERED,
    backends=BACKENDS,
    rules=RULES,
)
NODE_PORT = ServiceEntrypoint(
    kind="nodePort",
    address="172.30.0.11",
    port=30080,
    sender="outside",
    source="192.0.2.7",
    snat_source="10.244.1.1",
    outcome=Outcome.DROPPED,
    deterministic=False,
    description="no endpoint is on this node",
)
WEB = Explanation(
    target=Target(kind="service", text="svc/web", name="web", namespace="default"),
    node="node-a",
    proxy="iptables",
    ports=(
        ExplainedPort(
            name="http",
            port=80,
            protocol="tcp",
            entries=(ENTRY, msgspec.structs.replace(ENTRY, sender="node"), NODE_PORT),
        ),
    ),
    findings=(
        Finding(
            cause="stale-dnat",
            severity="warning",
            node="node-a",
            object="KUBE-SEP-X",
            summary="a rule sends to 10.244.9.9:8080, which is no endpoint",
        ),
    ),
    missing=("sysctl.txt",),
)


def test_golden(golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / "explanation.txt", explain(WEB))


def test_senders_that_are_treated_alike_share_a_line() -> None:
    text = explain(WEB)
    assert text.count("KUBE-SERVICES 9") == 1
    assert "from a pod, the node  DELIVERED" in text


def test_every_line_fits() -> None:
    long = "a-very-long-service-name-that-is-exactly-sixty-three-chars-long"
    target = msgspec.structs.replace(WEB.target, name=long)
    for width in (40, 60, 80):
        text = explain(msgspec.structs.replace(WEB, target=target, node=long * 4), width)
        assert all(cells(line) <= width for line in text.splitlines())


def test_hostile_text_is_escaped() -> None:
    rule = msgspec.structs.replace(RULES[0], text="\x1b[2J", description="\u202e", chain="\x07")
    port = msgspec.structs.replace(
        WEB.ports[0], entries=(msgspec.structs.replace(ENTRY, rules=(rule,)),)
    )
    text = explain(msgspec.structs.replace(WEB, ports=(port,)))
    assert all(line.isprintable() for line in text.split("\n"))
    assert r"\x1b[2J" in text


def test_nothing_programmed() -> None:
    text = explain(msgspec.structs.replace(WEB, ports=(), proxy="none", findings=(), missing=()))
    assert text.splitlines() == [
        "svc/web (default)  on node-a (no proxy)                              NOT PROXIED",
        "  no rule on this node leads to it",
    ]


def test_json_has_the_contracts_names() -> None:
    document = msgspec.json.decode(json(WEB))
    assert list(document)[:5] == ["apiVersion", "kind", "target", "node", "proxy"]
    entry = document["ports"][0]["entries"][0]
    assert entry["from"] == "pod"
    assert {"kind", "address", "port", "outcome", "backends", "rules"} <= set(entry)

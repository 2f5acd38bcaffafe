"""What a list of expectations comes to."""

from __future__ import annotations

import pytest

from kptrace import __version__
from kptrace.model import DetectedNetwork, Netns, Node, Outcome, Source, Target, Trace, TraceRequest
from kptrace.model.errors import AgentError
from kptrace.verify.results import (
    Expectation,
    Result,
    Status,
    Verification,
    about,
    exit_code,
    seen,
    unseen,
)

TARGET = Target(kind="service", text="svc/web", name="web", namespace="shop")


def asked(*expect: Outcome) -> Expectation:
    return Expectation(request=TraceRequest(target=TARGET, expect=expect))


def traced(outcome: Outcome, *networks: DetectedNetwork) -> Trace:
    source = Source(kind="node", netns=Netns(node="node-a"))
    return Trace(target=TARGET, source=source, outcome=outcome, networks=networks)


@pytest.mark.parametrize(
    ("expect", "outcome", "status"),
    [
        ((), Outcome.DELIVERED, "passed"),
        ((), Outcome.DROPPED, "failed"),
        ((), Outcome.INCONCLUSIVE, "inconclusive"),
        ((Outcome.DROPPED,), Outcome.DELIVERED, "failed"),
        ((Outcome.DROPPED, Outcome.REJECTED), Outcome.REJECTED, "passed"),
        ((Outcome.INCONCLUSIVE,), Outcome.INCONCLUSIVE, "passed"),
    ],
)
def test_status(expect: tuple[Outcome, ...], outcome: Outcome, status: Status) -> None:
    assert seen(asked(*expect), traced(outcome)).status == status


def test_what_was_not_seen() -> None:
    made = unseen(asked(), AgentError("it died", "look at its log"))
    assert made.status == "error"
    assert made.error is not None
    assert (made.error.kind, made.error.hint) == ("AgentError", "look at its log")


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ([], 0),
        (["passed"], 0),
        (["passed", "inconclusive"], 4),
        (["inconclusive", "error"], 3),
        (["error", "failed", "inconclusive"], 1),
    ],
)
def test_exit_code(told: list[Status], code: int) -> None:
    results = [Result(expectation=asked(), status=status) for status in told]
    assert exit_code(results) == code


def test_about() -> None:
    flannel = [
        DetectedNetwork(node=name, name="Flannel (VXLAN)", proxy="iptables") for name in "ab"
    ]
    nodes = [
        Node(name="node-a", kubelet="v1.36.2", kernel="6.1.0"),
        Node(name="node-b"),
    ]
    assert about([traced(Outcome.DELIVERED, *flannel)], nodes) == {
        "kptrace": __version__,
        "proxy": "iptables",
        "network": "Flannel (VXLAN)",
        "node node-a": "kubelet v1.36.2, kernel 6.1.0",
    }


def test_having() -> None:
    results = tuple(seen(asked(), traced(outcome)) for outcome in Outcome)
    made = Verification(file="f", results=results)
    assert len(made.having("passed")) == 1
    assert len(made.having("failed", "inconclusive")) == len(Outcome) - 1

"""Why, and what mends it."""

from __future__ import annotations

import msgspec

from kptrace.model import Evidence, EvidenceSource, Finding, Outcome, Trace
from kptrace.render.finding import fault, other_findings
from kptrace.render.layout import TextLayout

DROPPED = Finding(
    cause="made-up",
    severity="error",
    node="node-b",
    object="sysctl x",
    summary="it was dropped",
    evidence=("seen here", "never seen there"),
    remedy=("sysctl -w x=1  # on node-b", "or ask somebody"),
)


def shown(trace: Trace, width: int = 80, **changes: object) -> str:
    page = TextLayout(width, colour=False)
    fault(page, msgspec.structs.replace(trace, **changes))
    return page.text()


def test_the_parts_in_order(samples: dict[str, Trace]) -> None:
    assert shown(samples["dropped-tunnel-port"], findings=(DROPPED,)) == (
        "  Problem   it was dropped\n"
        "  Object    sysctl x on node-b\n"
        "  Evidence  seen here\n"
        "            never seen there\n"
        "  Fix       sysctl -w x=1  # on node-b\n"
        "            or ask somebody\n"
        "\n"
        "  cause     made-up  (kptrace causes ID and -o wide tell more)\n"
    )


def test_a_known_cause_shows_its_impact_and_usual_fix(samples: dict[str, Trace]) -> None:
    known = msgspec.structs.replace(DROPPED, cause="mtu-exceeded", remedy=())
    text = shown(samples["dropped-tunnel-port"], findings=(known,))
    assert "  Impact    handshakes work; large requests and answers hang\n" in text
    assert "  Fix       set the CNI's MTU" in text


def test_a_long_command_can_be_copied_and_its_comment_stands_below(
    samples: dict[str, Trace],
) -> None:
    line = "kubectl -n shop get pods -l app=empty  # do any match? ready?"
    long = msgspec.structs.replace(DROPPED, remedy=(line,))
    text = shown(samples["dropped-tunnel-port"], width=48, findings=(long,))
    assert (
        "  Fix       kubectl -n shop get pods -l \\\n"
        "                app=empty\n"
        "            # do any match? ready?\n"
    ) in text


def test_without_a_finding_the_summary_is_all(samples: dict[str, Trace]) -> None:
    text = shown(samples["dropped-tunnel-port"], findings=(), summary="it got lost")
    assert text == "  Problem   it got lost\n"


def test_the_first_error_is_the_reason_and_the_others_come_after(
    samples: dict[str, Trace],
) -> None:
    odd = Finding(cause="dns-slow", severity="warning", node="", object="", summary="slow")
    text = shown(samples["dropped-tunnel-port"], findings=(odd, DROPPED))
    assert text.index("it was dropped") < text.index("warning   slow  (dns-slow)")


def test_what_is_open(samples: dict[str, Trace]) -> None:
    layers = (
        EvidenceSource(name="drops", node="node-a", unavailable="no tracefs", hint="mount it"),
        EvidenceSource(name="capture", node="node-a", lost=3),
    )
    text = shown(
        samples["inconclusive"],
        findings=(),
        summary="last seen on eth0",
        evidence=Evidence(sources=layers),
    )
    assert text == (
        "  Observed      last seen on eth0\n"
        "  Not observed  drop reasons on node-a: no tracefs\n"
        "                3 reports of capture on node-a were lost\n"
        "  Next step     mount it\n"
    )


def test_nothing_at_all(samples: dict[str, Trace]) -> None:
    text = shown(samples["inconclusive"], findings=(), summary="", evidence=Evidence())
    assert text == "  Observed      nothing was seen\n"


def test_worst_first() -> None:
    page = TextLayout(80, colour=False)
    other_findings(
        page,
        [
            Finding(cause="b", severity="info", node="node-a", object="", summary="small"),
            Finding(cause="a", severity="error", node="node-a", object="", summary="on node-a"),
        ],
    )
    assert page.text() == "  error     on node-a  (a)\n\n  info      small on node-a  (b)\n"


def test_an_outcome_without_hops_is_told(samples: dict[str, Trace]) -> None:
    text = shown(samples["unresolved"], outcome=Outcome.UNRESOLVED)
    assert "dns-nxdomain" in text

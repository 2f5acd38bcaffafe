"""A result of an expectation in words, for every form that tells of several. Pure, text out.

Nothing is cleaned here: each form does that in its own way (sanitize.py, xml, markdown).
"""

from __future__ import annotations

from kptrace.diagnose.phrases import end
from kptrace.model import Finding
from kptrace.render.phrases import outcome_words, source_words, target_words
from kptrace.verify.results import DELIVERED, Expectation, Result, Verification

STATUS_STYLES = {
    "passed": "good",
    "failed": "bad",
    "error": "bad",
    "inconclusive": "unsure",
    "untried": "quiet",
}


def subject(result: Result) -> str:
    """``svc/web (shop) from pod/client on node-a``; as it was asked, where nothing was seen."""
    return f"{target_words(result.expectation.request.target)} from {start(result)}"


def start(result: Result) -> str:
    request = result.expectation.request
    if result.trace is None:
        return request.source or "a chosen source"
    return source_words(result.trace.source, request.target.namespace)


def address(result: Result) -> str:
    """``10.96.41.7:80/tcp``, as far as it is known."""
    resolution = result.trace.resolution if result.trace else None
    if resolution is None or not resolution.address:
        return ""
    return f"{end(resolution.address, resolution.port)}/{resolution.protocol}"


def via(expectation: Expectation) -> str:
    """`` via nodePort of node-b``, where it is not the ClusterIP."""
    request = expectation.request
    if request.via == "clusterIP":
        return ""
    return f" via {request.via}{f' of {request.node}' if request.node else ''}"


def answer(result: Result) -> str:
    """``DROPPED on node-b``, ``could not be looked at``, ``not tried``."""
    if result.trace is not None:
        return outcome_words(result.trace)
    if result.status == "untried":
        return why(result)
    return "could not be looked at" if result.status == "error" else "INCONCLUSIVE"


def tally(verification: Verification) -> str:
    """``2 of 6 as expected``; and that there would be more to say."""
    text = f"{len(verification.having('passed'))} of {len(verification.results)} as expected"
    return f"{text}, then interrupted" if verification.having("untried") else text


def expected(expectation: Expectation) -> str:
    return " or ".join(expectation.expect)


def why(result: Result) -> str:
    """One sentence; what was expected is said where it is not the usual."""
    if result.error is not None:
        return result.error.message
    assert result.trace is not None
    said = result.trace.summary or outcome_words(result.trace)
    if result.status == "failed" and result.expectation.expect != DELIVERED:
        return f"{said}; expected {expected(result.expectation)}"
    return said


def cause(result: Result) -> Finding | None:
    """What is to blame, where the trace knows it."""
    findings = result.trace.findings if result.trace else ()
    return next((finding for finding in findings if finding.severity == "error"), None)


def remedies(result: Result) -> tuple[str, ...]:
    if result.error is not None:
        return (result.error.hint,) if result.error.hint else ()
    finding = cause(result)
    return finding.remedy if finding else ()

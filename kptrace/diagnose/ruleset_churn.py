"""Rules that change while they are read (rules/live/consistency.py) or shortly after.

kube-proxy follows the API a moment later.
"""

from __future__ import annotations

from collections.abc import Iterable

from kptrace.model import Finding

LOOKS = 3  # in a row, until all that was read is of one generation
# for kube-proxy to write what it was told: it does so once a second (--iptables-min-sync-period)
SETTLE_SECONDS = 2.0


def unsteady(node: str) -> Finding:
    return Finding(
        cause="ruleset-unstable",
        severity="warning",
        node=node,
        object=f"the rules of {node}",
        summary=f"the rules of {node} changed while they were read, each of {LOOKS} times: "
        "what is told of them may mix older and newer ones",
        remedy=(f"nft monitor  # on {node}: what changes?", "then look again"),
    )


def present_both_times(now: Iterable[Finding], before: Iterable[Finding]) -> tuple[Finding, ...]:
    """Without the faults that were not there before, too: nobody has had the time to fix them."""
    known = {(finding.cause, finding.node, finding.object, finding.summary) for finding in before}
    return tuple(
        finding
        for finding in now
        if finding.severity != "error"
        or (finding.cause, finding.node, finding.object, finding.summary) in known
    )


def has_errors(findings: Iterable[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)

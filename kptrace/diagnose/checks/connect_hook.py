"""Causes at connect(): a program refused the call, and nothing was ever sent.

What proves it is that the call failed at once and no tap saw anything, not even the sender's own;
why, the maps tell that the program reads.
"""

from __future__ import annotations

from collections.abc import Iterator

from kptrace.diagnose.probe_evidence import ProbeEvidence
from kptrace.model import Finding, Netns, Outcome

REFUSED = ("unreachable", "failed")


def diagnose(evidence: ProbeEvidence) -> Iterator[Finding]:
    snapshot = evidence.snapshots.get(Netns(node=evidence.node))
    programs = snapshot.programs if snapshot else None
    returned, branch = evidence.returned, evidence.branch
    if programs is None or returned is None or branch is None or evidence.journey.forward:
        return
    if returned.result not in REFUSED or branch.outcome is not Outcome.NO_ENDPOINTS:
        return
    ready = [endpoint for endpoint in evidence.resolution.endpoints if endpoint.ready]
    service = evidence.resolution.service
    name = service.key if service else evidence.resolution.address
    yield Finding(
        cause="endpoint-missing" if ready else "no-endpoints",
        severity="error",
        node=evidence.node,
        object=f"{programs.table}: {branch.object}" if programs.table else branch.object,
        summary=f"{programs.owner} on {evidence.node} has no backend for {name}: "
        "it refuses connect()",
        evidence=(
            f"connect() failed with {returned.error} at once, and nothing was sent",
            f"the map says: {branch.object}, no backend",
            f"the API has {len(ready)} ready endpoints for it",
        ),
        remedy=programs.remedy if ready else (),
    )

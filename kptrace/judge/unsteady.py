"""Rules that change while they are read or a probe is on its way (rules/steady.py), and those that
are about to change: kube-proxy obeys the API a moment later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kptrace.model import Finding, Layer, Place
from kptrace.rules.wanted import Wanted

LOOKS = 3  # in a row, until all that was read is of one generation
# for kube-proxy to write what it was told: it does so once a second (--iptables-min-sync-period)
SETTLE_SECONDS = 2.0


def unsteady(node: str) -> Finding:
    return Finding(
        cause="rules-changing",
        severity="warning",
        node=node,
        object=f"the rules of {node}",
        summary=f"the rules of {node} changed while they were read, each of {LOOKS} times: "
        "what is told of them may mix older and newer ones",
        remedy=(f"nft monitor  # on {node}: what changes?", "then look again"),
    )


def lasting(now: Iterable[Finding], before: Iterable[Finding]) -> tuple[Finding, ...]:
    """Without the faults that were not there before, too: nobody has had the time to mend them."""
    known = {(one.cause, one.node, one.object, one.summary) for one in before}
    return tuple(
        one
        for one in now
        if one.severity != "error" or (one.cause, one.node, one.object, one.summary) in known
    )


def faulty(findings: Iterable[Finding]) -> bool:
    return any(one.severity == "error" for one in findings)


def rules_changed(place: Place, parts: Sequence[Wanted]) -> Layer:
    """``parts``: those that were other after the probe than when they were read."""
    named = ", ".join(dict.fromkeys(map(_words, parts[:_NAMED])))
    more = f" and {len(parts) - _NAMED} more" if len(parts) > _NAMED else ""
    return Layer(
        name="state",
        node=place.node,
        missing=f"the rules changed while this ran ({named}{more}): "
        "those that the probe met may be older or newer than those told here",
        remedy="trace once more",
    )


_NAMED = 2


def _words(part: Wanted) -> str:
    table = f" of {part.family} {part.table}" if part.table else ""
    return f"{part.kind} {part.name}{table}"

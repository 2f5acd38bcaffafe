"""What ``kptrace explain`` does, however its words were read (explain.py, fast_explain.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kptrace.model import Outcome, TraceRequest
from kptrace.model.errors import EXIT_INCONCLUSIVE, UsageError
from kptrace.model.targets import parse_source, parse_target

if TYPE_CHECKING:
    from kptrace.explain.explain import StateSource
    from kptrace.model import Explanation


def explained(
    target: str,
    source: str,
    namespace: str,
    node: str,
    state: Callable[[TraceRequest], StateSource],
) -> Explanation:
    """``state``: begins to fetch it, while what explains it is imported."""
    meant = parse_target(target, namespace)
    if meant.kind not in ("service", "address"):
        raise UsageError(
            f'"{target}" is no Service', "explain tells of Services: svc/NAME, or an address of one"
        )
    sender = parse_source(source, namespace) if source else None
    there = state(TraceRequest(target=meant, source=source, namespace=namespace, node=node))
    from kptrace.explain.explain import explain_from_state

    return explain_from_state(meant, sender, node, there)


def exit_code(explanation: Explanation) -> int:
    """1 when the rules differ from what the API tells; 4 when what they do is not known."""
    if any(finding.severity == "error" for finding in explanation.findings):
        return 1
    outcomes = {entry.outcome for port in explanation.ports for entry in port.entries}
    return EXIT_INCONCLUSIVE if Outcome.INCONCLUSIVE in outcomes else 0

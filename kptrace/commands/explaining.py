"""What ``kptrace explain`` does, however its words were read (explain.py, quick.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kptrace.errors import Usage
from kptrace.model import Question
from kptrace.target import parse_source, parse_target

if TYPE_CHECKING:
    from kptrace.explain import State
    from kptrace.model import Explanation


def explained(
    target: str,
    source: str,
    namespace: str,
    node: str,
    state: Callable[[Question], State],
) -> Explanation:
    """``state``: begins to fetch it, while what explains it is imported."""
    meant = parse_target(target, namespace)
    if meant.kind not in ("service", "address"):
        raise Usage(
            f'"{target}" is no Service', "explain tells of Services: svc/NAME, or an address of one"
        )
    sender = parse_source(source, namespace) if source else None
    there = state(Question(target=meant, source=source, namespace=namespace, node=node))
    from kptrace.explain import look

    return look(meant, sender, node, there)


def exit_code(made: Explanation) -> int:
    """1 when the rules differ from what the API tells."""
    return int(any(finding.severity == "error" for finding in made.findings))

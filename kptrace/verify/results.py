"""What was expected of some Services, and what became of each: ``kptrace verify``. Pure.

In: expectations (verify/expectations_file.py), and for each a trace or the error that there was in
its stead. Out: ``Verification``, which render tells in each form, and the exit code. A single trace
is told to CI systems in the same way: as the one result of an expectation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from kptrace import __version__
from kptrace.model import API_VERSION, Node, Outcome, Trace, TraceRequest, Value
from kptrace.model.errors import KptraceError

Status = Literal["passed", "failed", "inconclusive", "error", "untried"]

DELIVERED = (Outcome.DELIVERED,)


class Expectation(Value):
    """``question.expect`` names the outcomes that pass. ``line``: where it stands in its file."""

    request: TraceRequest
    name: str = ""
    line: int = 0

    @property
    def expect(self) -> tuple[Outcome, ...]:
        return self.request.expect or DELIVERED


class ErrorInfo(Value):
    """Why it could not be looked at. ``kind``: as in model/errors.py."""

    kind: str
    message: str
    hint: str = ""
    manifest: str = ""

    @property
    def text(self) -> str:
        """The message, the hint and the manifest, each on lines of their own."""
        return "\n".join(filter(None, (self.message, self.hint, self.manifest)))


class Result(Value):
    """One expectation and what came of it: a trace, or trouble. ``saved``: the file of its run."""

    expectation: Expectation
    status: Status
    trace: Trace | None = None
    error: ErrorInfo | None = None
    saved: str = ""


class Verification(Value):
    """What ``verify -o json`` prints. ``about``: versions, proxy and network, by name."""

    file: str
    results: tuple[Result, ...]
    about: dict[str, str] = msgspec.field(default_factory=dict)
    api_version: str = API_VERSION
    kind: Literal["Verification"] = "Verification"

    def having(self, *status: Status) -> tuple[Result, ...]:
        return tuple(result for result in self.results if result.status in status)


def seen(expectation: Expectation, trace: Trace, saved: str = "") -> Result:
    return Result(
        expectation=expectation, status=_status(expectation, trace), trace=trace, saved=saved
    )


def unseen(expectation: Expectation, error: KptraceError) -> Result:
    trouble = ErrorInfo(
        kind=type(error).__name__, message=error.message, hint=error.hint, manifest=error.manifest
    )
    return Result(expectation=expectation, status="error", error=trouble)


def untried(expectation: Expectation, why: str) -> Result:
    """The run was interrupted; of this one nothing is claimed."""
    trouble = ErrorInfo(kind="Interrupted", message=why)
    return Result(expectation=expectation, status="untried", error=trouble)


def exit_code(results: Sequence[Result]) -> int:
    """What was seen to be wrong weighs more than what could not be seen."""
    statuses = {result.status for result in results}
    weights: tuple[tuple[Status, int], ...] = (("failed", 1), ("error", 3), ("inconclusive", 4))
    return next((code for status, code in weights if status in statuses), 0)


def about(traces: Iterable[Trace], nodes: Iterable[Node]) -> dict[str, str]:
    """What a reader of many reports wants to sort them by; what is not known is left out."""
    networks = [network for trace in traces for network in trace.networks]
    texts_by_name = {
        "kptrace": __version__,
        "proxy": _listed(network.proxy for network in networks),
        "network": _listed(network.name for network in networks),
    }
    for node in nodes:
        versions = (("kubelet", node.kubelet), ("kernel", node.kernel))
        texts_by_name[f"node {node.name}"] = ", ".join(
            f"{what} {text}" for what, text in versions if text
        )
    return {name: text for name, text in texts_by_name.items() if text}


def _status(expectation: Expectation, trace: Trace) -> Status:
    if trace.outcome in expectation.expect:
        return "passed"
    return "inconclusive" if trace.outcome is Outcome.INCONCLUSIVE else "failed"


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(text for text in texts if text))

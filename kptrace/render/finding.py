"""Why it is not as expected, and how to fix it: findings -> labelled paragraphs. Pure.

Problem, Impact, Evidence, Fix          where the cause is known
Observed, Not observed, Next step       where it stays open
the other findings, shortly             below
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from kptrace.diagnose.catalogue.causes import cause
from kptrace.model import Finding, Outcome, Trace
from kptrace.render.evidence import missing
from kptrace.render.layout import Span, TextLayout, glue, span, width_of
from kptrace.render.sanitize import pad

# A line of a remedy that begins with one of these is a command; every other one is a sentence.
COMMAND = re.compile(
    r"(ip6?tables(-legacy|-nft)?(-save)?|nft|ipset|ipvsadm|conntrack|ip|bridge|ethtool|ss|nstat"
    r"|tcpdump|sysctl|modprobe|mount|systemctl|journalctl|kubectl|kptrace|calicoctl|cilium)\s"
)

INDENT = 2
LABEL = 10
OPEN_LABEL = 14


def fault(page: TextLayout, trace: Trace) -> None:
    """The answer to "why", for a trace that ended otherwise than delivered."""
    main = next((f for f in trace.findings if f.severity == "error"), None)
    if trace.outcome is Outcome.INCONCLUSIVE:
        main = main or next(iter(trace.findings), None)
        _open(page, trace, main)
    elif main is not None:
        _known(page, main)
    else:
        paragraphs(
            page, "Problem", [trace.summary or "it was not delivered, and no cause was found"]
        )
    if main is not None:
        page.blank()
        hint = span("  (kptrace causes ID and -o wide tell more)", "quiet")
        page.line(span(main.cause), hint, label=_label("cause"), indent=INDENT)
    other_findings(page, [f for f in trace.findings if f is not main])


def other_findings(page: TextLayout, findings: Iterable[Finding]) -> None:
    """What else is odd, worst first."""
    order = ("error", "warning", "info")
    for finding in sorted(findings, key=lambda f: order.index(f.severity)):
        page.blank()
        style = "bad" if finding.severity == "error" else "unsure"
        where = (
            f" on {finding.node}" if finding.node and finding.node not in finding.summary else ""
        )
        page.line(
            span(f"{finding.summary}{where}  "),
            span(f"({finding.cause})", "quiet"),
            label=[span(pad(finding.severity, LABEL), style)],
            indent=INDENT,
        )
        commands(page, "", finding.remedy)


def _known(page: TextLayout, finding: Finding) -> None:
    where = f"{finding.object} on {finding.node}" if finding.node else finding.object
    entry = cause(finding.cause)
    paragraphs(page, "Problem", [finding.summary])
    if finding.object and finding.object not in finding.summary:
        paragraphs(page, "Object", [where])
    paragraphs(page, "Impact", [entry.impact] if entry else [])
    paragraphs(page, "Evidence", finding.evidence)
    if finding.remedy:
        commands(page, "Fix", finding.remedy)
    elif entry:
        paragraphs(page, "Fix", [entry.fix])


def _open(page: TextLayout, trace: Trace, finding: Finding | None) -> None:
    lost = [layer for layer in trace.evidence.sources if layer.lost]
    blind = missing(trace.evidence.sources)
    unknown = [what for what, _ in blind]
    unknown += [f"{layer.lost} reports of {layer.name} on {layer.node} were lost" for layer in lost]
    settle = [remedy for _, remedy in blind if remedy]
    known = [trace.summary] if finding is None or trace.summary != finding.summary else []
    if finding is not None:
        known += finding.evidence
        unknown.insert(0, finding.summary)
        settle += finding.remedy
    observed = [line for line in known if line] or ["nothing was seen"]
    paragraphs(page, "Observed", observed, OPEN_LABEL)
    paragraphs(page, "Not observed", unknown, OPEN_LABEL)
    commands(page, "Next step", dict.fromkeys(settle), OPEN_LABEL)


def _label(word: str, width: int = LABEL) -> list[Span]:
    return [span(pad(word, width), "name")]


def paragraphs(page: TextLayout, word: str, lines: Iterable[str], width: int = LABEL) -> None:
    """The label stands before the first line; all lines begin below each other.

    width: columns of the label
    """
    for line in lines:
        page.line(span(line), label=_label(word, width), indent=INDENT)
        word = ""


def commands(page: TextLayout, word: str, lines: Iterable[str], width: int = LABEL) -> None:
    """As ``paragraphs``, with a line that is a command on one line of its own where it fits."""
    for line in lines:
        if COMMAND.match(line):
            _command(page, word, line, width)
        else:
            page.line(span(line), label=_label(word, width), indent=INDENT)
        word = ""


def _command(page: TextLayout, word: str, line: str, width: int) -> None:
    """A command with its ``# on node-b`` behind it or, where that is too long, below it."""
    command, mark, comment = line.partition("  # ")
    spans = [glue(command, "name"), glue(f"{mark}{comment}", "quiet")]
    if width_of(spans) + INDENT + width <= page.width:
        page.line(*spans, label=_label(word, width), indent=INDENT)
        return
    page.command(command, _label(word, width), INDENT)
    if comment:
        page.line(span(f"# {comment}", "quiet"), indent=INDENT + width)

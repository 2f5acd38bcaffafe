"""A Checkup as text for a person: the answer, what is wrong, and then what was looked at. Pure."""

from __future__ import annotations

from kptrace.diagnose.catalogue.causes import cause
from kptrace.diagnose.policy_denial import CAUSE as POLICY
from kptrace.model import CheckReport, Finding, Outcome
from kptrace.render.evidence import manifests
from kptrace.render.finding import commands, paragraphs
from kptrace.render.layout import Span, TextLayout, glue, span, width_of
from kptrace.render.sanitize import pad


def checkup(report: CheckReport, width: int = 80, colour: bool = False, wide: bool = False) -> str:
    page = TextLayout(width, colour)
    _heading(page, report)
    for finding in report.findings:
        _finding(page, finding)
    _seen(page, report, wide)
    manifests(page, report.unavailable)
    return page.text()


# --- the first lines ------------------------------------------------------------------------------


def _heading(page: TextLayout, report: CheckReport) -> None:
    what = glue(
        f"{_count(len(report.nodes), 'node')}, {_count(report.services, 'Service')}", "name"
    )
    answer = _answer(report)
    if width_of((what, answer)) + 4 <= page.width:
        page.row([what], answer, [], hang=4)
    else:
        page.line(answer)
        page.line(what)
    room = max((len(node.name) for node in report.nodes), default=0)
    for node in report.nodes:
        proxy = "no proxy" if node.proxy == "none" else f"proxy {node.proxy}"
        text = f"{proxy}, network {node.network}"
        page.line(span(text), label=[span(f"  {pad(node.name, room)}  ")])
    for layer in report.unavailable:
        page.line(
            span("not read: ", "unsure"),
            span(layer.unavailable),
            span(f" ({layer.hint})" if layer.hint else ""),
            label=[span(f"  {layer.node}  ")],
        )


def _answer(report: CheckReport) -> Span:
    wrong, odd = (
        sum(finding.severity == severity for finding in report.findings)
        for severity in ("error", "warning")
    )
    if wrong:
        more = f", {_count(odd, 'warning')}" if odd else ""
        return glue(f"{_count(wrong, 'FAULT')}{more}", "bad")
    if odd:
        return glue(f"NOTHING BROKEN, {_count(odd, 'warning')}", "unsure")
    if report.unavailable:
        return glue("NOTHING WRONG IN WHAT WAS READ", "unsure")
    return glue("NOTHING WRONG FOUND", "good")


def _count(number: int, noun: str) -> str:
    plural = "S" if noun.isupper() else "s"
    return f"{number} {noun}{plural if number != 1 else ''}"


# --- what is wrong --------------------------------------------------------------------------------


def _finding(page: TextLayout, finding: Finding) -> None:
    page.blank()
    style = "bad" if finding.severity == "error" else "unsure"
    page.line(
        span(finding.severity, style), span("  "), span(finding.cause, "name"), *_where(finding)
    )
    paragraphs(page, "Problem", [finding.summary])
    entry = cause(finding.cause)
    if entry is not None and finding.severity == "error":
        paragraphs(page, "Impact", [entry.impact])
    paragraphs(page, "Evidence", finding.evidence)
    if finding.remedy:
        commands(page, "Fix", finding.remedy)
    elif entry is not None:
        paragraphs(page, "Fix", [entry.fix])


def _where(finding: Finding) -> list[Span]:
    return [span(f" on {finding.node}")] if finding.node else []


# --- what was looked at ---------------------------------------------------------------------------


def _seen(page: TextLayout, report: CheckReport, wide: bool) -> None:
    page.blank()
    if report.services and not report.missing:
        page.line(span(f"Rules of {_count(report.services, 'Service')} compared with the API."))
    elif report.missing:
        names = ", ".join(name.removeprefix("api/") for name in report.missing)
        page.line(span(f"Rules were not compared with the API; not available: {names}."), hang=2)
    if report.paths:
        page.line(span(_ways(report)), hang=2)
    for way in report.paths if wide else ():
        text = f": {way.description}" if way.description else ""
        goal = way.destination_node or "elsewhere"
        page.line(
            span(f"{way.source_node} to {goal} ({way.source} > {way.destination})  "),
            span(f"{way.outcome}{text}", "" if way.outcome is Outcome.DELIVERED else "unsure"),
            indent=2,
            hang=4,
        )
    page.line(span("Sysctls, bridges, MTUs of tunnels and the kernel's tables checked."), hang=2)
    for node in report.nodes:
        if node.missing:
            page.line(span(f"Not available on {node.name}: {', '.join(node.missing)}."), hang=2)


def _ways(report: CheckReport) -> str:
    arrived, open_ = (
        sum(way.outcome is outcome for way in report.paths)
        for outcome in (Outcome.DELIVERED, Outcome.INCONCLUSIVE)
    )
    denied = sum(way.cause == POLICY for way in report.paths)
    text = f"Paths between pods of different nodes simulated: {len(report.paths)}, {arrived} arrive"
    if open_:
        text += f", {open_} left what was looked at"
    if denied:
        text += f", {denied} {'are' if denied > 1 else 'is'} denied by policies"
    ended = len(report.paths) - arrived - open_ - denied
    return f"{text}, {ended} do not." if ended else f"{text}."

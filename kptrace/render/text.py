"""A Trace as text for a person: the answer first, then why, then the way and what proves it. Pure.

    text(trace, width=80, colour=False, wide=False) -> str

Every line fits ``width`` (40 at least); nothing is told by colour alone. The caller decides on
colour and width: they depend on the terminal, and this room knows none.
"""

from __future__ import annotations

from kptrace.model import Outcome, Trace
from kptrace.render import evidence
from kptrace.render.cni import networks
from kptrace.render.finding import fault, other_findings
from kptrace.render.heading import heading
from kptrace.render.hops import path
from kptrace.render.layout import TextLayout, span


def text(trace: Trace, width: int = 80, colour: bool = False, wide: bool = False) -> str:
    page = TextLayout(width, colour)
    heading(page, trace)
    page.blank()
    if trace.outcome is not Outcome.DELIVERED:
        fault(page, trace)
        page.blank()
    if trace.evidence.shares:
        evidence.shares(page, trace)
        page.blank()
        text = "the first that was not" if trace.outcome is not Outcome.DELIVERED else "one of them"
        page.line(span(f"The way of {text}:"))
    if trace.hops:
        path(page, trace, wide)
        page.blank()
    if trace.outcome is Outcome.DELIVERED and trace.findings:
        other_findings(page, trace.findings)
        page.blank()
    evidence.agreement(page, trace)
    if not wide:
        evidence.choice(page, trace)
    evidence.dns(page, trace.resolution.dns if trace.resolution else (), wide)
    networks(page, trace.networks, wide or trace.outcome is not Outcome.DELIVERED)
    evidence.layers(page, trace.evidence.sources, trace.outcome is not Outcome.INCONCLUSIVE)
    if wide:
        evidence.conntrack(page, trace)
        evidence.branches(page, trace)
    return page.text()

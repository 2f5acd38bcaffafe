"""The first lines: what was traced from where, what became of it, and the addresses of the way.

Where the names are too long to stand beside the answer, the answer comes first and the names below.
"""

from __future__ import annotations

from kptrace.diagnose.phrases import end
from kptrace.model import Endpoint, Trace
from kptrace.render.layout import TextLayout, glue, span, width_of
from kptrace.render.phrases import (
    outcome_style,
    outcome_words,
    place_words,
    source_words,
    target_words,
)
from kptrace.render.sanitize import clean, shorten


def heading(page: TextLayout, trace: Trace) -> None:
    what = glue(target_words(trace.target), "name")
    start = glue(f"from {source_words(trace.source, trace.target.namespace)}")
    # A long node name in the answer stands in full below, with the hop or the finding.
    text = shorten(clean(outcome_words(trace)), page.width)
    answer = glue(text, outcome_style(trace.outcome))
    if width_of((what, start, answer)) + 4 <= page.width:
        page.row([what, span("  "), start], answer, [], hang=4)
    else:
        page.line(answer)
        page.line(what, span("  "), start, hang=2)
    _addresses(page, trace)
    if trace.source.why.startswith("chosen"):
        page.line(span(f"source {trace.source.why}", "quiet"), hang=2)


def backend_of(trace: Trace) -> Endpoint | None:
    """The endpoint that the traced flow was sent to, as far as that is known."""
    final = next(
        (h.packet.innermost.flow for h in reversed(trace.hops) if h.action == "dnat"), None
    )
    if final is None:
        ends = [
            e.reply for e in trace.evidence.conntrack if e.netns.node == trace.source.netns.node
        ]
        final = ends[0].reverse if ends else None
    resolution = trace.resolution
    if resolution is None:
        return None
    requested = (final.dst, final.dport) if final else (resolution.address, resolution.port)
    for endpoint in resolution.endpoints:
        if (endpoint.address, endpoint.port) == requested:
            return endpoint
    if requested == (resolution.address, resolution.port):
        return None
    return Endpoint(address=requested[0], port=requested[1])


def _addresses(page: TextLayout, trace: Trace) -> None:
    """``10.244.1.10 -> 10.96.41.7:80/TCP -> 10.244.2.21:8080  pod/remote-1 on node-b``."""
    resolution = trace.resolution
    if resolution is None or not resolution.address:
        return
    address = end(resolution.address, resolution.port)
    ways = [_start(trace), f"{address}/{resolution.protocol.upper()}"]
    backend, shares = backend_of(trace), trace.evidence.shares
    if shares:
        ways.append(f"{len(shares)} backend{'s' if len(shares) != 1 else ''}")
    elif backend is not None and end(backend.address, backend.port) != address:
        ways.append(end(backend.address, backend.port))
    first, *others = [way for way in ways if way]
    spans = [glue(first)]
    for other in others:
        spans += [span(" "), glue(f"-> {other}")]
    service = resolution.service
    if trace.target.kind in ("address", "name") and service is not None:
        spans += [span("  "), glue(f"svc/{service.name} ({service.namespace})")]
    if not shares and backend is not None and backend.node:
        pod = backend.pod or "host"
        spans += [span("  "), glue(place_words(backend.node, pod, trace.target.namespace))]
    page.line(*spans, hang=2)


def _start(trace: Trace) -> str:
    """The address that the packet starts with."""
    if trace.hops:
        return trace.hops[0].packet.innermost.flow.src
    return trace.source.address

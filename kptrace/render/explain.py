"""An Explanation as text for a person: the answer first, then each way in, its backends and rules.

    explain(made, width=80, colour=False, wide=False) -> str

Senders that fare alike share a line; rules that an earlier way in has shown are not shown again
but named. The wide form shows all of them, with all their text, and every backend. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from itertools import groupby

from kptrace.diagnose.phrases import end
from kptrace.diagnose.policy_denial import CAUSE as POLICY
from kptrace.model import (
    ExplainedPort,
    Explanation,
    Outcome,
    Service,
    ServiceEntrypoint,
    WeightedBackend,
)
from kptrace.render.explain_rules import SeenRules, show_chain
from kptrace.render.layout import Span, TextLayout, glue, span, width_of
from kptrace.render.phrases import OUTCOME_WORDS, outcome_style, pod_words, target_words
from kptrace.render.sanitize import cells, clean, pad

KINDS = {
    "clusterIP": "ClusterIP",
    "nodePort": "NodePort",
    "externalIP": "external IP",
    "loadBalancer": "load balancer IP",
}
SENDERS = {"pod": "a pod", "node": "the node", "outside": "outside"}
SLICES = "endpointslices.json"
# more backends than this are counted, not listed
MOST_BACKENDS = 10
_FEW_BACKENDS = 4
_SENDER_ROOM = 32
_LEAST_WORDS = 24


def explain(
    explanation: Explanation, width: int = 80, colour: bool = False, wide: bool = False
) -> str:
    page = TextLayout(width, colour)
    _heading(page, explanation)
    faults = [finding for finding in explanation.findings if finding.severity != "info"]
    if faults:
        from kptrace.render.finding import other_findings

        other_findings(page, faults)
    shown = SeenRules(wide)
    for port in explanation.ports:
        page.blank()
        _port(page, explanation, port, shown)
    remarks = [finding for finding in explanation.findings if finding.severity == "info"]
    if remarks:
        _remarks(page, explanation)
    _footer(page, explanation)
    return page.text()


# --- the first lines ----------------------------------------------------------------------------


def _heading(page: TextLayout, explanation: Explanation) -> None:
    what = glue(target_words(explanation.target), "name")
    proxy = "no proxy" if explanation.proxy == "none" else explanation.proxy
    where = glue(f"on {explanation.node} ({proxy})")
    text, style = _answer(explanation)
    answer = glue(text, style)
    if width_of((what, where, answer)) + 4 <= page.width:
        page.row([what, span("  "), where], answer, [], hang=4)
    else:
        page.line(answer)
        page.line(what, span("  "), where, hang=2)
    if not explanation.ports and not explanation.findings:
        page.line(span("no rule on this node leads to it", "bad"), indent=2)
    if explanation.service is not None:
        page.line(span(_service_words(explanation.service)), hang=2)


def _answer(explanation: Explanation) -> tuple[str, str]:
    faults = [finding.cause for finding in explanation.findings if finding.severity == "error"]
    if set(faults) == {POLICY}:
        return "DENIED by a policy", "bad"
    if faults:
        return f"{len(faults)} FAULT{'S' if len(faults) != 1 else ''} in its rules", "bad"
    entries = [entry for port in explanation.ports for entry in port.entries]
    if not entries:
        return "NOT PROXIED", "unsure"
    outcomes = [entry.outcome for entry in entries if not entry.denied_by]
    if not outcomes:
        return "DENIED by policies", "unsure"
    if len(outcomes) < len(entries) and set(outcomes) == {Outcome.DELIVERED}:
        return "DELIVERED where policies admit it", "good"
    if len(set(outcomes)) == 1:
        return OUTCOME_WORDS[outcomes[0]], outcome_style(outcomes[0])
    count = outcomes.count(Outcome.DELIVERED)
    return f"DELIVERED on {count} of {len(outcomes)} ways", "unsure"


def _service_words(service: Service) -> str:
    """Its type, and what is not usual about it."""
    texts = [service.type]
    if service.internal_policy != "Cluster":
        texts.append(f"internalTrafficPolicy {service.internal_policy}")
    if service.external_policy != "Cluster":
        texts.append(f"externalTrafficPolicy {service.external_policy}")
    if service.affinity_seconds:
        texts.append(f"a client keeps its backend for {_span(service.affinity_seconds)}")
    if service.source_ranges:
        texts.append(f"load balancer open to {', '.join(service.source_ranges)}")
    if service.traffic_distribution:
        texts.append(f"trafficDistribution {service.traffic_distribution}")
    return "; ".join(texts)


def _span(seconds: int) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds % length == 0:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


# --- one port -----------------------------------------------------------------------------------


def _port(
    page: TextLayout, explanation: Explanation, port: ExplainedPort, shown: SeenRules
) -> None:
    if len(explanation.ports) > 1 or port.name:
        name = f" {port.name}" if port.name else ""
        page.line(span(f"port {port.port}/{port.protocol.upper()}{name}", "name"))
        page.blank()
    handles = groupby(port.entries, key=lambda entry: (entry.kind, entry.address, entry.port))
    for number, ((kind, address, at), shown_entries) in enumerate(handles):
        if number:
            page.blank()
        entries = tuple(shown_entries)
        label = f"/{port.protocol.upper()}"
        page.line(span(f"{KINDS[kind]} {end(address, at)}{label}", "name"))
        _fates(page, entries, explanation, shown.wide)
        show_chain(page, entries, shown, indent=2)


def _fates(
    page: TextLayout, entries: Sequence[ServiceEntrypoint], explanation: Explanation, wide: bool
) -> None:
    """What becomes of each sender's packets; those with the same backends stand above them."""
    by_backends: dict[tuple[WeightedBackend, ...], list[ServiceEntrypoint]] = {}
    for entry in entries:
        by_backends.setdefault(tuple(sorted(entry.backends, key=_key)), []).append(entry)
    room = min(_SENDER_ROOM, max(cells(_senders(value)) for value in _alike(entries).values()))
    for backends, alike in by_backends.items():
        for senders in _alike(alike).values():
            _fate(page, senders, room)
        _backends(page, backends, explanation, wide)


def _alike(entries: Iterable[ServiceEntrypoint]) -> dict[Hashable, list[ServiceEntrypoint]]:
    """Those who fare alike."""
    alike: dict[Hashable, list[ServiceEntrypoint]] = {}
    for entry in entries:
        fate = (
            entry.outcome,
            entry.snat_source,
            entry.description,
            entry.deterministic,
            entry.denied_by,
            frozenset(map(_key, entry.backends)),
        )
        alike.setdefault(fate, []).append(entry)
    return alike


def _fate(page: TextLayout, entries: Sequence[ServiceEntrypoint], room: int) -> None:
    first = entries[0]
    style = outcome_style(first.outcome) if first.deterministic else "unsure"
    spans = [span(OUTCOME_WORDS[first.outcome], style)]
    if first.denied_by:
        spans = [span(f"DENIED by {first.denied_by}", "unsure")]
    if first.outcome is Outcome.DELIVERED:
        spans += [span(f"  {_seen_as(first.snat_source)}")]
    elif first.description:
        spans += [span(f"  {_reason(first.description)}")]
    if not first.deterministic:
        spans += [span("  (not certain)", "unsure")]
    label = pad(clean(f"from {_senders(entries)}"), room + 5)
    if cells(label) + _LEAST_WORDS > page.width:
        page.line(span(label), indent=2)
        page.line(*spans, indent=6)
        return
    page.line(*spans, label=[span(f"{label}  ")], indent=2, hang=6)


def _seen_as(becomes: str) -> str:
    """Whom the backend sees."""
    if becomes == "?":
        return "as the node"
    return f"as {becomes.replace(', ', ' or ')}" if becomes else "with its source"


def _reason(text: str) -> str:
    """What the rule's words say beyond the outcome that stands before them."""
    for deed in ("drops it", "rejects it"):
        text = text.removeprefix(deed).lstrip(": ")
    return text


def _senders(entries: Iterable[ServiceEntrypoint]) -> str:
    """``a pod, the node``; an address where it decides, as with source ranges."""
    names = []
    for entry in entries:
        name = SENDERS[entry.sender]
        if entry.denied_by and entry.pod:
            name = f"pod {entry.pod}"
        elif entry.denied_by or (entry.sender == "outside" and entry.kind == "loadBalancer"):
            name = f"{name} ({entry.source})" if entry.source else name
        names.append(name)
    return ", ".join(dict.fromkeys(names))


def _key(backend: WeightedBackend) -> tuple[bool, str, str, int]:
    return not backend.node, backend.node, backend.address, backend.port


def _backends(
    page: TextLayout, backends: Sequence[WeightedBackend], explanation: Explanation, wide: bool
) -> None:
    many = len(backends) > MOST_BACKENDS and not wide
    listed = backends[:_FEW_BACKENDS] if many else backends
    room = max((len(end(backend.address, backend.port)) for backend in listed), default=0)
    for backend in listed:
        where = pad(clean(end(backend.address, backend.port)), room)
        page.line(
            span(_place(backend, explanation)),
            label=[span(f"{backend.weight:6.1%}  {where}  ")],
            indent=4,
        )
    if many:
        rest = len(backends) - len(listed)
        page.line(span(f"... and {rest} more (-o wide lists them)", "quiet"), indent=6)


def _place(backend: WeightedBackend, explanation: Explanation) -> str:
    namespace = explanation.target.namespace
    pod = pod_words(backend.pod, namespace) if backend.pod else ""
    node = f"on {backend.node}" if backend.node else ""
    asked = f"api/{SLICES}" not in explanation.missing
    return " ".join(filter(None, (pod, node))) or ("none of its endpoints" if asked else "")


# --- the last lines -----------------------------------------------------------------------------


def _remarks(page: TextLayout, explanation: Explanation) -> None:
    """What is as it should be, and might be taken for a fault."""
    for finding in explanation.findings:
        if finding.severity != "info":
            continue
        page.blank()
        page.line(span(f"{finding.summary}  "), span(f"({finding.cause})", "quiet"))
        for line in finding.evidence:
            page.line(span(line), indent=4)


def _footer(page: TextLayout, explanation: Explanation) -> None:
    lines: list[list[Span]] = []
    if len(explanation.nodes) > 1:
        others = ", ".join(name for name in explanation.nodes if name != explanation.node)
        lines.append([span(f"Other nodes: {others} (--node NAME)")])
    if explanation.missing:
        names = ", ".join(re.split("/|: ", name)[-1] for name in explanation.missing)
        lines.append([span(f"Not there to read, taken as empty or usual: {names}")])
    if lines:
        page.blank()
    for line in lines:
        page.line(*line, hang=2)

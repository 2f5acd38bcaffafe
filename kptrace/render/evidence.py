"""What the report rests on: prediction against observation, DNS, and who watched. Pure.

What was not watched, or lost, is said with what would give it: silence of a tap that was not there
is no evidence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from kptrace.diagnose.concurrent_changes import CHANGE
from kptrace.diagnose.phrases import end, entry_words
from kptrace.model import BackendShare, DnsAnswer, Endpoint, EvidenceSource, Trace
from kptrace.render.layout import TextLayout, glue, span
from kptrace.render.phrases import OUTCOME_WORDS, duration_text, place_words, pod_words
from kptrace.render.sanitize import cells, clean, pad

LAYER_WORDS = {
    "capture": "capture",
    "rules": "rule trace",
    "conntrack": "conntrack",
    "drops": "drop reasons",
    "host": "the node itself",
    "state": "rules and routes",
    "dns": "DNS",
    "cgroup": "programs at connect()",
    "change": "an unchanged state",
}


def agreement(page: TextLayout, trace: Trace) -> None:
    """Prediction against observation."""
    prediction_match = trace.evidence.prediction_match
    if prediction_match is None:
        return
    seen, predicted = prediction_match.seen, prediction_match.predicted
    if prediction_match.diverged_at:
        where = (
            f"at {prediction_match.diverged_at}: {seen} of {predicted} interface crossings match."
        )
        page.line(span("Prediction and capture diverge ", "unsure"), span(where), hang=2)
    else:
        page.line(span(f"Prediction matches capture: {seen} of {predicted} interface crossings."))
    if trace.prediction.missing:
        page.line(
            span("Prediction made without: " + ", ".join(trace.prediction.missing) + "."), hang=2
        )


MANY_BACKENDS = 6


def _chooser(trace: Trace) -> str:
    steps = trace.prediction.branches[0].steps
    backends = {step.rule.backend for step in steps if step.rule is not None}
    return next((phrase for text, phrase in CHOOSERS if text in backends), "the rules")


CHOOSERS = (("ipvs", "IPVS"), ("bpf", "a program at connect()"))


def choice(page: TextLayout, trace: Trace) -> None:
    """``Chosen by the rules among 3 backends: web-1 33.3%, web-2 33.3%, web-3 33.3%.``"""
    weights: dict[str, float] = {}
    for branch in trace.prediction.branches:
        if branch.backend is not None:
            backend = branch.backend
            name = pod_words(backend.pod, trace.target.namespace) if backend.pod else ""
            key = name.removeprefix("pod/") or end(backend.address, backend.port)
            weights[key] = weights.get(key, 0.0) + branch.weight
    is_known = any(hop.rule is not None and hop.rule.backend == "ipvs" for hop in trace.hops)
    if len(weights) < 2 or trace.evidence.shares or is_known:
        return
    named = [f"{name} {weight:.1%}" for name, weight in weights.items()]
    more = len(named) - MANY_BACKENDS
    tail = f", and {more} more" if more > 0 else ""
    page.line(
        span(f"Chosen by {_chooser(trace)} among {len(named)} backends: "),
        span(", ".join(named[:MANY_BACKENDS]) + f"{tail}."),
        hang=2,
    )


def dns(page: TextLayout, answers: Sequence[DnsAnswer], wide: bool) -> None:
    """The deciding question, in the wide form each one."""
    tried = f", {len(answers)} names tried" if len(answers) > 1 and not wide else ""
    for answer in answers if wide else answers[-1:]:
        page.line(
            span(f"DNS: {answer.name} {answer.type} "),
            span(_said(answer), "" if answer.records else "bad"),
            span(" "),
            glue(
                f"({answer.server} over {answer.transport.upper()}, "
                f"{duration_text(answer.elapsed_us)})"
            ),
            span(f"{tried}."),
            hang=5,
        )


def _said(answer: DnsAnswer) -> str:
    return ", ".join(text for _, text in answer.records) or answer.status


def layers(page: TextLayout, sources: Iterable[EvidenceSource], with_missing: bool) -> None:
    """``Data sources: capture, rule trace, conntrack, drop reasons. No events lost.``"""
    known, changes = _apart(sources)
    watched = [
        LAYER_WORDS.get(name, name) for name in _names(x for x in known if not x.unavailable)
    ]
    lost = [f"{x.lost} reports of {_name(x)} on {x.node}" for x in known if x.lost]
    if watched:
        text = f"Data sources: {', '.join(watched)}."
        if lost:
            page.line(span(text), span(" Lost: " + ", ".join(lost) + ".", "bad"), hang=2)
        else:
            page.line(span(f"{text} No events lost."), hang=2)
    for what, remedy in missing(known) if with_missing else ():
        page.line(
            span("Not available: ", "unsure"),
            span(f"{what}."),
            span(f" Enable with: {remedy}" if remedy else ""),
            hang=2,
        )
    for source in changes if with_missing else ():
        what = f"{source.unavailable}. Next step: {source.hint}"
        page.line(span("Unsure: ", "unsure"), span(what), hang=2)
    manifests(page, known)


def _apart(
    layers: Iterable[EvidenceSource],
) -> tuple[tuple[EvidenceSource, ...], tuple[EvidenceSource, ...]]:
    """What was watched or not, and what did not keep still."""
    sources = tuple(layers)
    changes = tuple(layer for layer in sources if layer.name == CHANGE)
    return tuple(layer for layer in sources if layer not in changes), changes


def manifests(page: TextLayout, layers: Iterable[EvidenceSource]) -> None:
    """What is to be applied for what is missing, each once: lines that stay as they are, to be
    copied. YAML that is wholly indented is YAML, too.
    """
    for text in dict.fromkeys(layer.manifest for layer in layers if layer.manifest):
        page.blank()
        page.line(span("For `kubectl apply -f -`:"))
        for line in text.splitlines():
            page.uncut(span(line), indent=2)


def missing(layers: Iterable[EvidenceSource]) -> list[tuple[str, str]]:
    """What was not watched and why, and the remedy; those that lack for the same cause together:
    ``capture, rule trace on node-b: no agent there``.
    """
    gaps: dict[str, list[EvidenceSource]] = {}
    for layer in layers:
        if layer.unavailable:
            gaps.setdefault(_cause(layer), []).append(layer)
    return [(f"{_where(gap)}: {_reason(cause, gap)}", _remedy(gap)) for cause, gap in gaps.items()]


def _cause(layer: EvidenceSource) -> str:
    """``not asked: REFUSAL`` and ``no agent could be started: REFUSAL`` have one cause; so have
    all that a capability would give.
    """
    if layer.hint.startswith("grant CAP_"):
        netns = PLACE.search(layer.unavailable)
        return f"not permitted{netns[0] if netns else ''}"
    return layer.unavailable.partition(": ")[2] or layer.unavailable


def _reason(cause: str, gap: Sequence[EvidenceSource]) -> str:
    """In full, where all say the same."""
    texts = {layer.unavailable for layer in gap}
    return (texts.pop() if len(texts) == 1 else cause).rstrip(".")


def _where(gap: Iterable[EvidenceSource]) -> str:
    """``capture, rule trace on node-a, node-b; conntrack on node-b``"""
    by_node: dict[str, dict[str, None]] = {}
    for layer in gap:
        by_node.setdefault(layer.node, {})[_name(layer)] = None
    nodes: dict[tuple[str, ...], list[str]] = {}
    for node, names in by_node.items():
        nodes.setdefault(tuple(names), []).append(node)
    return "; ".join(
        f"{', '.join(names)} on {', '.join(texts)}" if any(texts) else ", ".join(names)
        for names, texts in nodes.items()
    )


def _remedy(gap: Iterable[EvidenceSource]) -> str:
    groups = dict.fromkeys(layer.hint for layer in gap if layer.hint)
    if len(groups) > 1 and all(remedy.startswith("grant CAP_") for remedy in groups):
        *most, last = dict.fromkeys(CAPABILITY.findall(" ".join(groups)))
        ways = {remedy.partition(": ")[2] for remedy in groups}  # how an agent gets them
        return f"grant {', '.join(most)} and {last}" + "".join(f": {way}" for way in ways if way)
    return "; ".join(groups)


CAPABILITY = re.compile(r"CAP_[A-Z_]+")
PLACE = re.compile(r" \(in [^()]*\)$")  # as diagnose/evidence_sources.py says in which pod


def _names(layers: Iterable[EvidenceSource]) -> Iterable[str]:
    return dict.fromkeys(layer.name for layer in layers)


def _name(layer: EvidenceSource) -> str:
    return LAYER_WORDS.get(layer.name, layer.name)


# --- many flows -------------------------------------------------------------------------------


def shares(page: TextLayout, trace: Trace) -> None:
    """How often each backend was chosen, beside how often it should be."""
    shares = trace.evidence.shares
    if not shares:
        return
    sent = sum(share.seen for share in shares)
    heads = ("backend", "", "predicted", f"seen of {sent}", "delivered")
    rows = [_row(share, sent, trace.target.namespace) for share in shares]
    widths = [max(cells(row[i]) for row in (heads, *rows)) for i in range(5)]
    if sum(widths) + 2 * 5 > page.width:
        for row in rows:  # what it is on one line, the numbers below
            page.line(span(row[0]), span("  "), span(row[1]), indent=2, hang=4)
            numbers = f"predicted {row[2]}, seen {row[3]} of {sent}, delivered {row[4]}"
            page.line(span(numbers), indent=6)
        _by_ipvs(page, trace)
        return
    for index, row in enumerate((heads, *rows)):
        text = [pad(row[0], widths[0]), pad(row[1], widths[1])]
        text += [f"{row[i]:>{widths[i]}}" for i in range(2, 5)]
        page.line(glue("  ".join(text), "quiet" if not index else ""), indent=2)
    _by_ipvs(page, trace)


def _by_ipvs(page: TextLayout, trace: Trace) -> None:
    """It does not choose by chance, so what was seen need not come near what was predicted."""
    steps = trace.prediction.branches[0].steps if trace.prediction.branches else ()
    chosen = next((s.description for s in steps if s.rule and s.rule.backend == "ipvs"), "")
    if chosen:
        page.line(span(f"{chosen}."), indent=2)


def _row(share: BackendShare, sent: int, namespace: str) -> tuple[str, str, str, str, str]:
    pod = f"{pod_words(share.pod, namespace)} on {share.node}" if share.pod else share.node
    percent = f" ({share.seen / sent:.0%})" if sent else ""
    return (
        clean(end(share.address, share.port)),
        clean(pod or "no such endpoint"),
        f"{share.weight:.1%}",
        f"{share.seen}{percent}",
        f"{share.delivered}",
    )


# --- only in the wide form --------------------------------------------------------------------


def branches(page: TextLayout, trace: Trace) -> None:
    """Every way the packet could have gone."""
    branches = trace.prediction.branches
    if not branches:
        return
    page.blank()
    page.line(span("Predicted", "name"))
    for branch in branches:
        to = _backend(branch.backend, trace.target.namespace) if branch.backend else ""
        sure = "" if branch.deterministic else ", not certain"
        text = f": {branch.full_description}" if branch.full_description else ""
        page.line(
            span(" ".join(x for x in (OUTCOME_WORDS[branch.outcome].lower(), to) if x)),
            span(f"{sure}{text}"),
            label=[span(f"{branch.weight:6.1%}  ")],
            indent=1,
        )


def _backend(backend: Endpoint, namespace: str) -> str:
    where = place_words(backend.node, backend.pod or "host", namespace) if backend.node else ""
    return f"{end(backend.address, backend.port)} {where}".rstrip()


def conntrack(page: TextLayout, trace: Trace) -> None:
    for entry in trace.evidence.conntrack:
        page.line(span(entry_words(entry) + "."), hang=2)

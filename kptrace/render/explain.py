"""An Explanation as text: each way in to a Service, to whom it leads, and by which rules. Pure.

Ways in that the same rules treat alike are told once, below all their addresses. A rule has its
place, what it means, and below that its own text; ``counted`` is what its counter says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from kptrace.judge.words import end
from kptrace.model import Backend, Entry, ExplainedPort, Explanation, MetRule
from kptrace.render.clean import cells, clean, pad
from kptrace.render.fault import also
from kptrace.render.page import Page, glue, say
from kptrace.render.words import (
    OUTCOME_WORDS,
    outcome_style,
    pod_words,
    rule_place,
    rule_text,
    target_words,
)

KIND_WORDS = {
    "clusterIP": "cluster IP",
    "nodePort": "node port",
    "externalIP": "external IP",
    "loadBalancer": "load-balancer IP",
}

SENDER_WORDS = {"pod": "a pod", "node": "the node itself", "outside": "outside"}

INDENT = 2


def explain(told: Explanation, width: int = 80, colour: bool = False) -> str:
    page = Page(width, colour)
    proxy = "no known proxy" if told.proxy == "none" else told.proxy
    where = " ".join(filter(None, (f"on {told.node}" if told.node else "", f"by {proxy}")))
    page.line(glue(target_words(told.target), "name"), say("  "), glue(where), hang=2)
    for port in told.ports:
        page.blank()
        page.line(glue(_port_words(port), "name"))
        for alike in _alike(port.entries):
            _show(page, alike, told.target.namespace)
    if not any(port.entries for port in told.ports):
        page.blank()
        page.line(say("no rule on this node leads to it", "bad"), indent=INDENT)
    also(page, told.findings)
    if told.missing:
        page.blank()
        page.line(say("Not read: ", "unsure"), say(", ".join(told.missing) + "."), hang=INDENT)
    return page.text()


def _port_words(port: ExplainedPort) -> str:
    name = f"{port.name} " if port.name else ""
    return f"port {name}{port.port}/{port.protocol}"


def _alike(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Entries that the same rules treat alike, in the order of the first of each kind."""
    groups: dict[object, list[Entry]] = {}
    for entry in entries:
        key = (entry.outcome, entry.backends, entry.rules, entry.becomes, entry.words)
        groups.setdefault(key, []).append(entry)
    return list(groups.values())


def _show(page: Page, alike: Sequence[Entry], namespace: str) -> None:
    page.blank()
    for entry in alike:
        sender = f"from {SENDER_WORDS[entry.sender]}"
        at = f" ({entry.source})" if entry.source else ""
        page.line(
            say(f"{KIND_WORDS[entry.kind]} "),
            glue(end(entry.address, entry.port), "name"),
            say(" "),
            glue(sender + at),
            indent=INDENT,
            hang=INDENT + 2,
        )
    first = alike[0]
    unsure = "" if first.certain else " (or as a rule decides that is not understood here)"
    words = f": {first.words}" if first.words else ""
    page.line(
        say(OUTCOME_WORDS[first.outcome].lower(), outcome_style(first.outcome)),
        say(f"{unsure}{words}"),
        indent=INDENT + 2,
    )
    _show_backends(page, first.backends, namespace)
    if first.becomes:
        page.line(say(f"the backend sees it come from {first.becomes}"), indent=INDENT + 2)
    _show_rules(page, first.rules)


def _show_backends(page: Page, backends: Sequence[Backend], namespace: str) -> None:
    ends = [clean(end(backend.address, backend.port)) for backend in backends]
    room = max(map(cells, ends), default=0) + 2
    for backend, address in zip(backends, ends, strict=True):
        who = pod_words(backend.pod, namespace) if backend.pod else ""
        where = f"on {backend.node}" if backend.node else ""
        label = [say(f"{backend.weight:6.1%}  "), say(pad(address, room))]
        page.line(glue(who), say(" " if who else ""), glue(where), label=label, indent=INDENT + 2)


def _show_rules(page: Page, rules: Sequence[MetRule]) -> None:
    """Rules by hook and table, as the packet meets them."""
    for (hook, table), met in groupby(rules, key=lambda rule: (rule.hook, rule.table)):
        page.line(say(" ".join(filter(None, (hook, table))), "quiet"), indent=INDENT + 2)
        for rule in met:
            counted = f"  counted {rule.packets} packets" if rule.packets is not None else ""
            page.line(
                say(rule_place(rule)),
                say("  "),
                say(rule.words, "change"),
                say(counted, "quiet"),
                indent=INDENT + 4,
                hang=INDENT + 6,
            )
            page.line(say(rule_text(rule), "quiet"), indent=INDENT + 8)

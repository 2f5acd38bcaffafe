"""The path: one thing that was done to the packet a line, grouped by node. Pure.

A line has the hop's number (its place in the report's ``hops``, counted from 1), the interface or
chain, what was done, and the time since the probe left; ``inferred`` stands there where the kernel
did not report the hop itself. The short form puts crossings that changed nothing on one line, and
the answer's way on one line where it is the way out reversed; the wide form leaves nothing out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from kptrace.diagnose.encapsulation import CLAUSE
from kptrace.diagnose.phrases import end, flow_words
from kptrace.model import Hop, Outcome, RuleRef, Trace
from kptrace.render.layout import Span, TextLayout, span
from kptrace.render.phrases import offset_words, packet_words, pod_words
from kptrace.render.rules import show_passed, show_rule, show_rules
from kptrace.render.sanitize import cells, clean, pad, shorten

VERBS = {
    "sent": ("sent", ""),
    "seen": ("seen", "quiet"),
    "dnat": ("DNAT", "change"),
    "snat": ("SNAT", "change"),
    "encap": ("encap", "change"),
    "decap": ("decap", "change"),
    "delivered": ("DELIVERED", "good"),
    "rejected": ("REJECTED", "bad"),
    "dropped": ("DROPPED", "bad"),
    "reply": ("reply", "quiet"),
    "route": ("", ""),
}
VERB_WIDTH = 6

# A route up to its device: ``proto kernel scope link src ...`` is for the wide form.
ROUTE = re.compile(r"( dev \S+).*", re.DOTALL)

ENDED = ("dropped", "rejected")


class HopRow(NamedTuple):
    """Hops that are shown on one line, their number and the second column."""

    hops: Sequence[Hop]
    number: list[Span]
    place: str

    @property
    def last(self) -> Hop:
        return self.hops[-1]


def path(page: TextLayout, trace: Trace, wide: bool) -> None:
    way = _HopTable(page, trace, wide)
    count = sum(hop.action != "reply" for hop in trace.hops)
    forward, back = trace.hops[:count], trace.hops[count:]
    way.show(way.entries(forward, 1), "")
    if back and not wide and _same_way(forward, back):
        way.summed_up(back, count + 1)
    else:
        way.show(way.entries(back, count + 1), "back, ")


class _HopTable:
    """How wide the columns are and how much is told."""

    def __init__(self, page: TextLayout, trace: Trace, wide: bool) -> None:
        self._page = page
        self._wide = wide
        self._namespace = trace.target.namespace
        # Where it failed, the rules that did no harm would push the answer off the screen.
        self._rules = wide or trace.outcome is Outcome.DELIVERED
        digits = len(str(len(trace.hops)))
        self._margin = 1 + (digits if wide else 2 * digits + 1)
        self._room = max(15, page.width * 24 // 100)

    def entries(self, hops: Sequence[Hop], number: int) -> list[HopRow]:
        runs: list[list[Hop]] = []
        for hop in hops:
            if runs and not self._wide and self._joins(runs[-1], hop):
                runs[-1].append(hop)
            else:
                runs.append([hop])
        rows = []
        for run in runs:
            label = self._number(number, len(run))
            rows.append(HopRow(hops=run, number=label, place=self._place(run)))
            number += len(run)
        return rows

    def show(self, entries: Sequence[HopRow], before: str) -> None:
        room = max((cells(entry.place) for entry in entries), default=0)
        for node, group in groupby(entries, key=lambda entry: entry.last.node):
            self._page.line(span(before), span(node, "name"), hang=4)
            for entry in group:
                self._show(entry, room)

    def summed_up(self, back: Sequence[Hop], number: int) -> None:
        """The answer in one line, if it took the way out in reverse."""
        self._page.line(span("back", "name"))
        changes = [f"{_change(hop)} on {hop.node}" for hop in back if hop.rewrites]
        text = ", ".join([f"{back[0].description or 'answer'} the same way", *changes])
        label = self._number(number, len(back))
        self._page.row(
            [span(text)], span(offset_words(back[-1].offset_us), "quiet"), label, self._margin
        )

    # --- one line ---

    def _show(self, entry: HopRow, room: int) -> None:
        hop = entry.last
        verb, style = VERBS[hop.action]
        label = [*entry.number, span(pad(entry.place, room + 2))]
        if verb:
            label.append(span(pad(verb, VERB_WIDTH - 1) + " ", style))
        right = offset_words(hop.offset_us) if hop.observed else "inferred"
        hang = self._margin + room + 2 + (VERB_WIDTH if verb else 0)
        self._page.row([span(self._detail(hop))], span(right, "quiet"), label, hang)
        self._rules_of(entry)

    def _rules_of(self, entry: HopRow) -> None:
        hop, indent = entry.last, self._margin + 2
        if hop.action == "encap" and self._rules:
            for clause in hop.description.split(CLAUSE)[1:]:
                self._page.line(span(clause, "quiet"), indent=indent)
        rules = [*hop.preceding_rules, *([hop.rule] if hop.rule else [])]
        if hop.rule is not None and hop.rule.backend == "ipvs":
            rules.sort(key=lambda server: server.number)  # a list to choose from, not a way
        if self._wide:
            show_rules(self._page, rules, hop.rule, indent, wide=True)
        elif hop.action in ENDED and hop.rule:
            show_rule(self._page, hop.rule, indent)
        elif hop.action == "route" and self._rules:
            show_passed(self._page, rules, indent)
        elif self._rules:
            rest = [rule for rule in rules if rule is hop.rule or entry.place not in _bases(rule)]
            show_rules(self._page, rest, hop.rule, indent, wide=False)

    def _number(self, first: int, count: int) -> list[Span]:
        """``7`` or ``2-3``, right-aligned."""
        last = first + count - 1
        text = f"{first}-{last}" if count > 1 else f"{first}"
        return [span(f"{text:>{self._margin - 1}} ", "quiet")]

    def _detail(self, hop: Hop) -> str:
        if hop.action == "reply":
            return ", ".join(filter(None, (hop.description, _change(hop))))
        if (
            hop.action in ENDED
            and hop.rule
            and hop.description in (hop.rule.description, hop.rule.text)
        ):
            return ""  # the rule stands below
        if hop.action == "encap" and hop.description:
            return hop.description.split(CLAUSE)[0]
        if hop.action == "route" and not self._wide:
            return ROUTE.sub(r"\1", hop.description)
        return hop.description or _described(hop)

    # --- which hops share a line, and what stands in its second column ---

    def _joins(self, run: Sequence[Hop], hop: Hop) -> bool:
        before = run[-1]
        if (before.node, before.netns) != (hop.node, hop.netns) or not _plain(before):
            return False
        same = hop.action == before.action and hop.description == before.description
        return _plain(hop) and same and len(self._joined([*run, hop])) <= self._room

    def _joined(self, run: Iterable[Hop]) -> str:
        names = dict.fromkeys(clean(hop.interface) for hop in run)
        return " > ".join(names)

    def _place(self, run: Sequence[Hop]) -> str:
        hop = run[-1]
        rule = hop.preceding_rules[0] if hop.preceding_rules else hop.rule
        if hop.action == "dnat" and rule is not None and rule.backend == "bpf":
            return "connect()"
        if rule is not None and rule.backend == "ipvs":
            return "IPVS"
        if hop.action in ("dnat", "snat", *ENDED) and rule is not None:
            fitting = (base for base in _bases(rule) if cells(base) <= self._room)
            return next(fitting, shorten(clean(rule.table), self._room))
        if hop.action == "route":
            return "route"
        if hop.netns != "host":
            return self._pod_place(hop)
        if self._wide and hop.direction:
            return f"{clean(hop.interface)} {hop.direction}"
        return self._joined(run) or "kernel"

    def _pod_place(self, hop: Hop) -> str:
        interface = f" {clean(hop.interface)}" if hop.interface else ""
        pod = clean(pod_words(hop.netns, self._namespace))
        return f"{shorten(pod, self._room - len(interface))}{interface}"


def _bases(rule: RuleRef) -> tuple[str, str]:
    """Where a hook begins: ``nat PREROUTING``, or ``nat-prerouting`` alone."""
    return clean(f"{rule.table} {rule.chain}"), clean(rule.chain)


def _plain(hop: Hop) -> bool:
    """A crossing at which nothing was done."""
    return hop.observed and not hop.rewrites and hop.action in ("seen", "reply")


def _described(hop: Hop) -> str:
    match hop.action:
        case "sent":
            return packet_words(hop.packet)
        case "delivered":
            flow = hop.packet.innermost.flow
            return f"from {end(flow.src, flow.sport)}"
        case "dnat" | "snat":
            return _change(hop)
        case "encap":
            return flow_words(hop.packet.flow)
        case _:
            return ""


def _change(hop: Hop) -> str:
    """``10.96.41.7:80 => 10.244.2.21:8080``, made of the changed fields."""
    old = {field: before for field, before, _ in hop.rewrites}
    new = {field: after for field, _, after in hop.rewrites}
    flow = hop.packet.innermost.flow
    changes = []
    for address, port in (("dst", "dport"), ("src", "sport")):
        if address in new or port in new:
            now = end(getattr(flow, address), getattr(flow, port))
            was = end(
                old.get(address, getattr(flow, address)), _port(old.get(port), getattr(flow, port))
            )
            changes.append(f"{was} => {now}")
    others = [c for c in hop.rewrites if c[0] not in ("dst", "dport", "src", "sport")]
    return ", ".join([*changes, *(f"{field} {was} => {now}" for field, was, now in others)])


def _port(text: str | None, otherwise: int) -> int:
    return int(text) if text and text.isdecimal() else otherwise


def _same_way(forward: Iterable[Hop], back: Sequence[Hop]) -> bool:
    """The answer crossed the interfaces of the way out in reverse, unbroken, as one packet. A
    socket is none: what it sent has not crossed anything.
    """
    out = _crossings(
        h for h in forward if h.observed and h.interface and h.action not in ("dnat", "snat")
    )
    return _crossings(back) == out[::-1] and len({hop.description for hop in back}) == 1


def _crossings(hops: Iterable[Hop]) -> list[tuple[str, str, str]]:
    """The interfaces in order; in and out again by the same one (a hairpin) counts once."""
    return [where for where, _ in groupby((hop.node, hop.netns, hop.interface) for hop in hops)]

"""Rules below the hop that they made: chain, number, and the rule in its own text or in words.

Chains of nftables mode have long names (``service-PFISGYVC-shop/web/tcp/http``); where one does not
fit beside what the rule says, that goes below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kptrace.model import RuleRef
from kptrace.render.layout import Span, TextLayout, span
from kptrace.render.phrases import rule_deed, rule_place, rule_text
from kptrace.render.sanitize import cells, clean, pad

# The most that chain and number take beside what the rule says.
COLUMN = 30


def show_rules(
    page: TextLayout, rules: Sequence[RuleRef], acting: RuleRef | None, indent: int, wide: bool
) -> None:
    """One after the other, as the packet met them; ``acting`` is the one that did it."""
    namespaces = [clean(rule_place(rule)) for rule in rules]
    room = max((cells(netns) for netns in namespaces if cells(netns) <= COLUMN), default=0)
    for rule, netns in zip(rules, namespaces, strict=True):
        below = indent + (room + 2 if cells(netns) <= COLUMN else 4)
        first, *more = _told(rule, rule is acting, wide)
        if cells(netns) <= COLUMN:
            page.line(first, label=[span(pad(netns, room + 2))], indent=indent)
        else:
            page.line(span(netns), indent=indent)
            page.line(first, indent=below)
        for spans in more:
            page.line(spans, indent=below)


def show_rule(page: TextLayout, rule: RuleRef, indent: int) -> None:
    """The rule that ended the way, with all its text."""
    label = [span(f"{rule_place(rule)}  ", "name")]
    page.line(span(rule_text(rule), "bad"), label=label, indent=indent, hang=indent + 4)


def show_passed(page: TextLayout, rules: Sequence[RuleRef], indent: int) -> None:
    """Rules that let the packet through, by their places alone."""
    if rules:
        passed = ", ".join(map(rule_place, rules))
        label = [span(f"passed {rules[0].table} ", "quiet")]
        page.line(span(passed, "quiet"), label=label, indent=indent, hang=indent + 7)


def _told(rule: RuleRef, acting: bool, wide: bool) -> Iterator[Span]:
    """A rule in words; the one that acts in its own, and in the wide form all in both."""
    if wide:
        yield span(rule_text(rule))
        if rule.description:
            yield span(rule.description, "quiet")
    elif acting:
        yield span(rule_deed(rule))
    else:
        yield span(rule.description or rule_text(rule))

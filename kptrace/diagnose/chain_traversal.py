"""Rule hits, put together into passages: one walk of the probe through one base chain.

In: RuleHits as they arrived, and the rulesets they speak of. Out: Passages, each with the rules
that matched, as the ruleset has them.

The kernel reports single rules. An nft report carries the packet on the first event of a base
chain's walk, a legacy one on every event; so the packet of a passage is the last one told. A
passage ends where another base chain begins, or the same one starts over (a retransmission).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby

import msgspec

from kptrace.model import Netns, Packet, RuleRef, RuleTraceEvent, Value
from kptrace.rules.describe.rule import describe
from kptrace.rules.model.expressions import Const, Dnat, Masquerade, Redirect, Reject, Snat, Verdict
from kptrace.rules.model.ruleset import Chain, Rule, Table
from kptrace.simulate.snapshot.snapshot import Snapshot


class MatchedRuleEvent(Value):
    """One event of a passage. ``rule`` is None for a policy, or where the ruleset has no such."""

    hit: RuleTraceEvent
    ref: RuleRef
    rule: Rule | None = None

    def does(self, *kinds: type) -> bool:
        return self.rule is not None and any(isinstance(part, kinds) for part in self.rule.body)

    @property
    def redirected(self) -> int:
        """The port of this host that a REDIRECT sends to; 0: it is none, or to a range."""
        parts = self.rule.body if self.rule is not None else ()
        ports = (part.port for part in parts if isinstance(part, Redirect))
        return next((int(p.value) for p in ports if isinstance(p, Const) and p.value), 0)

    @property
    def accepts(self) -> bool:
        return self.rule is not None and any(
            isinstance(part, Verdict) and part.kind == "accept" for part in self.rule.body
        )

    @property
    def drops(self) -> bool:
        """It threw the packet away without a word.

        A legacy report has no verdict (nf_log tells only the rule), so the rule itself is asked;
        nft reports ``drop`` for a REJECT too, which is told apart by the rule.
        """
        if self.does(Reject):
            return False
        if self.hit.verdict:
            return self.hit.verdict == "drop"
        return self.rule is not None and any(
            isinstance(part, Verdict) and part.kind == "drop" for part in self.rule.body
        )


class ChainTraversal(Value):
    """hook: of the base chain (``prerouting``), empty where it is not known.

    outer: the packet here was the tunnel's, with the probe inside
    """

    place: Netns
    hook: str
    table: Table
    chain: str
    met: tuple[MatchedRuleEvent, ...]
    packet: Packet | None = None
    outer: bool = False

    @property
    def rules(self) -> tuple[MatchedRuleEvent, ...]:
        """Those that matched, without policies and plain returns from the end of a chain."""
        return tuple(m for m in self.met if m.hit.kind == "rule" and m.hit.number)

    @property
    def ended_by(self) -> MatchedRuleEvent | None:
        """The rule or policy that dropped or rejected the packet here."""
        if not self.met:
            return None
        last = self.met[-1]
        if last.drops or last.does(Reject):
            return last
        return None

    def nat_rule(
        self, *kinds: type
    ) -> tuple[MatchedRuleEvent, tuple[MatchedRuleEvent, ...]] | None:
        """The rule that did such a NAT, and the rules that led to it."""
        for met in self.rules:
            if met.does(*kinds):
                return met, self.leading_to(met)
        return None

    def leading_to(self, met: MatchedRuleEvent) -> tuple[MatchedRuleEvent, ...]:
        """The jumps by which the walk came to this rule, without the detours that returned."""
        path: list[MatchedRuleEvent] = []
        for rule in self.rules:
            while rule.hit.chain in [p.hit.chain for p in path]:
                path.pop()
            if rule is met:
                break
            path.append(rule)
        return tuple(path)

    @property
    def accepted_by(self) -> MatchedRuleEvent | None:
        """The rule that let the packet pass, where one did (not the policy)."""
        accepting = [met for met in self.rules if met.hit.verdict in ("accept", "") and met.accepts]
        return accepting[-1] if accepting else None


DNAT = (Dnat, Redirect)
SNAT = (Snat, Masquerade)


def chain_traversals(
    hits: Iterable[RuleTraceEvent], snapshots: Mapping[Netns, Snapshot]
) -> tuple[ChainTraversal, ...]:
    """In the order of time. Hits of a place and backend arrive in order on one socket."""
    ordered = sorted(hits, key=lambda h: (h.netns, h.backend, h.sequence))
    traversals: list[ChainTraversal] = []
    for (netns, _), group in groupby(ordered, key=lambda h: (h.netns, h.backend)):
        traversals += _of_place(netns, list(group), snapshots.get(netns))
    return tuple(sorted(traversals, key=lambda p: p.met[0].hit.time_ns))


def _of_place(
    netns: Netns, hits: list[RuleTraceEvent], snapshot: Snapshot | None
) -> list[ChainTraversal]:
    by_packet: dict[int, list[RuleTraceEvent]] = {}
    for hit in hits:
        by_packet.setdefault(hit.trace_id, []).append(hit)
    return [p for value in by_packet.values() for p in _of_packet(netns, value, snapshot)]


def _of_packet(
    netns: Netns, hits: list[RuleTraceEvent], snapshot: Snapshot | None
) -> list[ChainTraversal]:
    traversals: list[ChainTraversal] = []
    current: list[RuleTraceEvent] = []
    for hit in hits:
        if current and _begins(hit, current, snapshot):
            traversals.append(_passage(netns, current, snapshot))
            current = []
        current.append(hit)
    if current:
        traversals.append(_passage(netns, current, snapshot))
    return traversals


def _begins(hit: RuleTraceEvent, current: list[RuleTraceEvent], snapshot: Snapshot | None) -> bool:
    first, last = current[0], current[-1]
    if (hit.family, hit.table) != (first.family, first.table):
        return True
    if last.kind == "policy":
        return True
    chain = _chain(hit, snapshot)
    if chain is None or not chain.hook:
        return False
    if hit.chain != first.chain:
        return True
    earlier = max((h.number for h in current if h.chain == hit.chain), default=0)
    return bool(hit.number) and hit.number <= earlier


def _passage(netns: Netns, hits: list[RuleTraceEvent], snapshot: Snapshot | None) -> ChainTraversal:
    first = hits[0]
    chain = _chain(first, snapshot)
    return ChainTraversal(
        place=netns,
        hook=chain.hook if chain else "",
        table=_table(first),
        chain=first.chain,
        met=tuple(_met(hit, snapshot) for hit in hits),
        packet=next((hit.packet for hit in hits if hit.packet is not None), None),
    )


def _table(hit: RuleTraceEvent) -> Table:
    return Table(backend=hit.backend, family=hit.family, name=hit.table)


def _chain(hit: RuleTraceEvent, snapshot: Snapshot | None) -> Chain | None:
    return snapshot.ruleset.chain(_table(hit), hit.chain) if snapshot else None


def _met(hit: RuleTraceEvent, snapshot: Snapshot | None) -> MatchedRuleEvent:
    chain = _chain(hit, snapshot)
    if hit.kind == "rule" and chain is not None and 0 < hit.number <= len(chain.rules):
        rule = chain.rules[hit.number - 1]
        return MatchedRuleEvent(hit=hit, ref=rule.ref(describe(rule)), rule=rule)
    if hit.kind == "policy" and chain is not None and not hit.verdict:
        hit = msgspec.structs.replace(hit, verdict=chain.policy)
    text = f"policy {hit.verdict}".strip() if hit.kind == "policy" else ""
    ref = RuleRef(
        backend=hit.backend,
        family=hit.family,
        table=hit.table,
        chain=hit.chain,
        number=hit.number if hit.kind == "rule" else 0,
        text=text,
        description=f"the chain's policy is {hit.verdict.upper()}" if text else "",
    )
    return MatchedRuleEvent(hit=hit, ref=ref)

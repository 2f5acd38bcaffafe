"""What a rule's statements do to the packet and its connection.

The packet is changed in place. ``RuleEffects`` collects what happened, for the step that is noted.
NAT is in ``nat.py``.
"""

from __future__ import annotations

from kptrace.model import NoteKind
from kptrace.model.family import Family
from kptrace.rules.model.expressions import (
    AnonymousMap,
    BitwiseExpr,
    Dnat,
    Expr,
    MapLookup,
    Masquerade,
    NoTrack,
    Redirect,
    Reject,
    SetField,
    SetRef,
    SetUpdate,
    Snat,
    Statement,
    Tproxy,
    Verdict,
    VerdictMap,
)
from kptrace.simulate.ip.skb import Skb
from kptrace.simulate.netfilter.effects import ACCEPT, Effect, NftBreak, RejectEffect, RuleEffects
from kptrace.simulate.netfilter.expressions import EvalContext
from kptrace.simulate.netfilter.fields import ABSENT, UNKNOWN, read_field
from kptrace.simulate.netfilter.nat import tproxy_target, translate


def _is_other_protocol(reply: str, context: EvalContext) -> bool:
    """Whether a REJECT is of another protocol or family; nft lists no test for that beside it."""
    if reply == "tcp reset":
        return context.skb.flow.protocol != "tcp"
    return reply.partition(" ")[0] == ("icmp" if context.skb.family is Family.IPV6 else "icmpv6")


def act(statement: Statement, context: EvalContext, effects: RuleEffects) -> Effect:
    """Perform a statement; return what it means for the rule: a verdict, a REJECT, a break or
    None.
    """
    match statement:
        case Verdict():
            return statement
        case VerdictMap(key=key, map=entries):
            return _verdict_from_map(key, entries, context, effects)
        case Reject(reply=reply) if _is_other_protocol(reply, context):
            return NftBreak()
        case Reject(reply=reply):
            return RejectEffect(reply=reply)
        case Dnat() | Snat() | Redirect() | Masquerade():
            return translate(statement, context, effects)
        case SetUpdate(key=key, set=updated):
            absent = not updated.ipset and context.value(key) is ABSENT
            return NftBreak() if absent else None
        case SetField():
            return _assign(statement, context, effects)
        case NoTrack():
            if context.skb.tracked is None and context.skb.zone is None:
                context.skb.untracked = True
        case Tproxy():
            return _tproxy(statement, context)
    return None


def _verdict_from_map(
    key: Expr, entries: SetRef | AnonymousMap, context: EvalContext, effects: RuleEffects
) -> Effect:
    entries_met = context.elements(key, entries)
    _, entry = entries_met[context.choices.pick([weight for weight, _ in entries_met])]
    if entry is ABSENT:
        return NftBreak()
    if entry is UNKNOWN or not isinstance(entry.data, Verdict):  # type: ignore[union-attr]
        context.choices.certain = False
        context.add_note(
            NoteKind.NOT_EVALUATED,
            "a verdict map could not be looked up and is taken as without a match",
        )
        return NftBreak()
    if isinstance(entries, SetRef):
        effects.via_map = (*effects.via_map, entries.name)
    return entry.data  # type: ignore[union-attr]


def _assign(statement: SetField, context: EvalContext, effects: RuleEffects) -> Effect:
    skb, key = context.skb, statement.field.key
    value = context.value(statement.value)
    header = key.startswith(("ip ", "ip6 "))
    if value is ABSENT or (header and read_field(key, skb, context.snapshot) is ABSENT):
        return None if statement.tolerant else NftBreak()
    if value is UNKNOWN and _is_looked_up(statement.value):
        context.choices.certain = False  # a key that is not in the map would have ended the rule
    known = value if isinstance(value, int) else None
    match key:
        case "meta mark":
            effects.action = "mark"
            skb.set_mark(known)
        case "ct zone":
            _set_zone(skb, known, statement.tolerant)
        case "ct mark" if skb.tracked is not None:
            skb.tracked.connection.mark = known
        case "ip ttl" | "ip6 hoplimit" if known is not None:
            skb.set_ttl(known)
        case "ip dscp" | "ip6 dscp" if known is not None:
            skb.dscp = known
        case _ if not header:  # nothing that decides the packet's way (nftrace, priority)
            return None
    (skb.unknown.add if known is None else skb.unknown.discard)(key)
    return None


def _set_zone(skb: Skb, zone: int | None, iptables: bool) -> None:
    """Set the zone; the first rule counts, nft's even after notrack (nft_ct_set_zone_eval)."""
    if skb.tracked is None and skb.zone is None and not (iptables and skb.untracked):
        skb.zone, skb.untracked = zone or 0, False


def _is_looked_up(expr: Expr) -> bool:
    if isinstance(expr, BitwiseExpr):
        return _is_looked_up(expr.left) or _is_looked_up(expr.right)
    return isinstance(expr, MapLookup)


def _tproxy(statement: Tproxy, context: EvalContext) -> Effect:
    skb = context.skb
    where = tproxy_target(statement, context)
    if where is None:
        return NftBreak()
    skb.socket = where
    if statement.mark is not None:
        mark = context.value(statement.mark)
        skb.set_mark(mark if isinstance(mark, int) else None)
    return ACCEPT if statement.accepts else None

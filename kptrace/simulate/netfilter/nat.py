"""Network address translation: DNAT, SNAT, MASQUERADE, REDIRECT set up a connection.

Of a range of addresses a source that is inside stays as it is, a destination never does: it is
hashed anew (get_unique_tuple, find_best_ips_proto). Of a range of ports an old one that is inside
stays; else a destination gets the first and a source any (nf_nat_l4proto_unique_tuple). ``random``
keeps nothing, not even ICMP's id, and what has another id is translated (IPS_SRC_NAT). Few
possibilities are enumerated; of many ports the kernel will choose one (0), of many addresses one is
guessed.
"""

from __future__ import annotations

from kptrace.model import NoteKind
from kptrace.model.addresses import address
from kptrace.model.family import Family
from kptrace.rules.model.expressions import (
    Const,
    Dnat,
    Expr,
    MapLookup,
    Masquerade,
    Range,
    Redirect,
    Snat,
    Tproxy,
)
from kptrace.simulate.ip.routing import interface_address, masquerade_address
from kptrace.simulate.netfilter.effects import ACCEPT, Effect, NftBreak, RuleEffects
from kptrace.simulate.netfilter.expressions import EvalContext, Plain
from kptrace.simulate.netfilter.fields import ABSENT, UNKNOWN, MissingField
from kptrace.simulate.snapshot.snapshot import Snapshot

_RANDOM = frozenset({"random", "fully-random"})
_WITH_ID = frozenset({"icmp", "icmpv6"})
_ENUMERATED_RANGE = 64
AddressPort = tuple[str, int]


def translate(
    statement: Dnat | Snat | Redirect | Masquerade, context: EvalContext, effects: RuleEffects
) -> Effect:
    """Set up the translation of the packet's connection, once for each side, and apply it.

    Returns ACCEPT (nf_nat_setup_info), or NftBreak where a map has no entry for the packet.
    """
    if _is_other(statement, context):
        return NftBreak() if _lacks_key(statement, context) else None
    anew = context.skb.flow.protocol in _WITH_ID and bool(_RANDOM & set(statement.flags))
    if isinstance(statement, Dnat | Redirect):
        where = _destination(statement, context)
        return _set_destination(where, context, effects, anew) if where else NftBreak()
    where = _source(statement, context)
    return _set_source(where, context, effects, anew) if where else NftBreak()


def _is_other(statement: Dnat | Snat | Redirect | Masquerade, context: EvalContext) -> bool:
    """Whether the statement is for the other family, in a table of both (nft_nat_inet_eval)."""
    family = statement.family if isinstance(statement, Dnat | Snat) else ""
    return bool(family) and family != context.skb.family


def _lacks_key(statement: Dnat | Snat | Redirect | Masquerade, context: EvalContext) -> bool:
    """Whether a key of the other family ends the rule before the translation is looked at."""
    addr = statement.addr if isinstance(statement, Dnat | Snat) else None
    return isinstance(addr, MapLookup) and context.value(addr) is ABSENT


def _destination(statement: Dnat | Redirect, context: EvalContext) -> AddressPort | None:
    flow = context.skb.flow
    keeps = not _RANDOM & set(statement.flags)
    if isinstance(statement, Dnat):
        # without a range of ports, a destination's port is never changed, not even at random
        where = _chosen(statement.addr, context, flow.dst, keeps=False)
        return _with_port(
            where, _first(statement, flow.dport), context, flow.dst, flow.dport, keeps
        )
    own = _own_address(context)
    return _with_port(own, _first(statement, flow.dport), context, "", flow.dport, keeps)


def _first(statement: Dnat | Redirect, old: int) -> Expr | None:
    """Return the port of a range that is tried first, as it is not in use."""
    port = statement.port
    if not isinstance(port, Range) or _RANDOM & set(statement.flags):
        return port
    inside = int(port.low) <= old <= int(port.high)
    return Const(value=old if inside else int(port.low))


def _own_address(context: EvalContext) -> str:
    """Return REDIRECT's address: 127.0.0.1 for the host's own packets, else the interface's."""
    skb = context.skb
    own = "::1" if skb.family is Family.IPV6 else "127.0.0.1"
    return _interface_own(context.snapshot, skb.iif, skb.family) or own if skb.iif else own


def _interface_own(snapshot: Snapshot, interface: str, family: Family) -> str:
    if family is Family.IPV4:
        return interface_address(snapshot, interface)
    usable = (held.address for held in snapshot.on(interface, family) if held.scope == "global")
    return next(usable, "")


def _source(statement: Snat | Masquerade, context: EvalContext) -> AddressPort | None:
    skb = context.skb
    keeps = not _RANDOM & set(statement.flags)
    where: Plain
    if isinstance(statement, Snat):
        where = _chosen(statement.addr, context, skb.flow.src, keeps)
    else:
        where = masquerade_address(context.snapshot, skb.oif, skb.hop, skb.flow.dst) or skb.flow.src
    target = _with_port(where, statement.port, context, skb.flow.src, skb.flow.sport, keeps)
    if target and statement.port is None and not keeps:
        return target[0], 0
    return target


def tproxy_target(statement: Tproxy, context: EvalContext) -> AddressPort | None:
    """Return the (address, port) of a TPROXY statement; None where a map has no entry."""
    flow = context.skb.flow
    where = _chosen(statement.addr, context, flow.dst, keeps=True)
    return _with_port(where, statement.port, context, flow.dst, flow.dport, keeps=True)


# --- one of several ---------------------------------------------------------------------------


def _with_port(
    where: Plain, port: Expr | None, context: EvalContext, old: str, old_port: int, keeps: bool
) -> AddressPort | None:
    """Return the new address and port; None where a map has no entry for the packet."""
    parts = where if isinstance(where, tuple) else (where,)
    number = old_port if len(parts) < 2 else parts[1]
    if port is not None:
        parts, number = parts[:1], _port(port, context, old_port, keeps)
    if ABSENT in (parts[0], number):
        return None
    if isinstance(parts[0], str) and isinstance(number, int):
        return parts[0], number
    context.choices.certain = False
    context.add_note(NoteKind.NOT_EVALUATED, "the address that NAT gives could not be computed")
    return old, old_port


def _chosen(expr: Expr | None, context: EvalContext, old: str, keeps: bool) -> Plain:
    if expr is None:
        return old
    if not isinstance(expr, Range):
        return context.value(expr)
    first, last = address(str(expr.low)), address(str(expr.high))
    if keeps and first <= address(old) <= last:  # type: ignore[operator]
        return old
    span = int(last) - int(first) + 1
    if span > _ENUMERATED_RANGE:
        context.choices.certain = False
        return str(first)
    return str(first + context.choices.pick([1 / span] * span))


def _port(expr: Expr, context: EvalContext, old: int, keeps: bool) -> str | int | MissingField:
    if not isinstance(expr, Range):
        value = context.value(expr)
        return UNKNOWN if isinstance(value, tuple | frozenset) else value
    low, high = int(expr.low), int(expr.high)
    if keeps and low <= old <= high:
        return old
    span = high - low + 1
    return low + context.choices.pick([1 / span] * span) if span <= _ENUMERATED_RANGE else 0


# --- the connection ---------------------------------------------------------------------------


def _set_destination(
    where: AddressPort, context: EvalContext, effects: RuleEffects, anew: bool
) -> Effect:
    """Translate the destination. ``anew``: an ICMP request gets another id, which is a
    translation.
    """
    skb = context.skb
    if skb.tracked is None or skb.tracked.connection.dnat_done:
        return ACCEPT
    skb.tracked.connection.set_destination(*where)
    skb.tracked.connection.dnat |= anew
    skb.tracked.connection.dnat_done = True
    skb.set_destination(*where)
    effects.action = "dnat"
    return ACCEPT


def _set_source(
    where: AddressPort, context: EvalContext, effects: RuleEffects, anew: bool
) -> Effect:
    skb = context.skb
    if skb.tracked is None or skb.tracked.connection.snat_done:
        return ACCEPT
    skb.tracked.connection.set_source(*where)
    skb.tracked.connection.snat |= anew
    skb.tracked.connection.snat_done = True
    skb.set_source(*where)
    effects.action = "snat"
    return ACCEPT

"""What a rule's statements do to the packet and its connection.

In: a statement and the scene. Out: nothing, a Verdict, or a Refusal (REJECT); the packet is
changed in place. ``Done`` collects what happened, for the Step that the walk notes.

DNAT, SNAT, MASQUERADE and REDIRECT set up the connection once (nf_nat_setup_info) and accept.
"""

from __future__ import annotations

from dataclasses import dataclass

from kptrace.model import StepAction, Value
from kptrace.rules.parts import (
    Assign,
    Dnat,
    Entries,
    Expr,
    Masquerade,
    NoTrack,
    Range,
    Redirect,
    Reject,
    SetRef,
    SetUpdate,
    Snat,
    Statement,
    Tproxy,
    Verdict,
    VerdictMap,
)
from kptrace.walk.expressions import Scene
from kptrace.walk.fields import ABSENT, UNKNOWN
from kptrace.walk.network import address
from kptrace.walk.routing import interface_address, masquerade_address
from kptrace.walk.snapshot import Snapshot


class Refusal(Value):
    """REJECT: the packet ends here and its sender is told."""

    reply: str


class Unmatched(Value):
    """A map had no such key: the rule ends as if a match had been false (NFT_BREAK)."""


Effect = Verdict | Refusal | Unmatched | None
ACCEPT = Verdict(kind="accept")
_RANDOM = frozenset({"random", "fully-random"})


@dataclass
class Done:
    """The most telling thing that the rule did; ``via_map``: names of verdict maps it went by."""

    action: StepAction = "rule"
    via_map: tuple[str, ...] = ()


def act(statement: Statement, scene: Scene, done: Done) -> Effect:
    match statement:
        case Verdict():
            return statement
        case VerdictMap(key=key, map=entries):
            return _mapped(key, entries, scene, done)
        case Reject(reply=reply):
            return Refusal(reply=reply)
        case Dnat(family=family) | Snat(family=family) if _is_other(family, scene):
            return None
        case Dnat(addr=addr, port=port):
            return _dnat(addr, port, scene, done)
        case Redirect(port=port):
            return _redirect(port, scene, done)
        case Snat(addr=addr, port=port, flags=flags):
            return _snat(addr, port, flags, scene, done)
        case Masquerade(port=port, flags=flags):
            return _masquerade(port, flags, scene, done)
        case SetUpdate(key=key, set=updated):
            absent = not updated.ipset and scene.value(key) is ABSENT
            return Unmatched() if absent else None
        case Assign():
            return _assign(statement, scene, done)
        case NoTrack():
            if scene.skb.tracked is None:
                scene.skb.untracked = True
        case Tproxy():
            return _tproxy(statement, scene)
    return None


def _mapped(key: Expr, entries: SetRef | Entries, scene: Scene, done: Done) -> Effect:
    ways = scene.elements(key, entries)
    _, found = ways[scene.choices.pick([weight for weight, _ in ways])]
    if found is ABSENT:
        return Unmatched()
    if found is UNKNOWN or not isinstance(found.data, Verdict):  # type: ignore[union-attr]
        scene.choices.certain = False
        scene.remark("a verdict map could not be looked up, taken as without a match")
        return Unmatched()
    if isinstance(entries, SetRef):
        done.via_map = (*done.via_map, entries.name)
    return found.data  # type: ignore[union-attr]


def _is_other(family: str, scene: Scene) -> bool:
    """nft_nat_inet_eval: in a table of both families a translation is for one of them."""
    return bool(family) and family != ("ip6" if scene.skb.family == 6 else "ip")


def _dnat(addr: Expr | None, port: Expr | None, scene: Scene, done: Done) -> Effect:
    skb = scene.skb
    where = _target(addr, port, scene, skb.flow.dst, skb.flow.dport)
    return _translate(where, scene, done) if where else Unmatched()


def _redirect(port: Expr | None, scene: Scene, done: Done) -> Effect:
    """To this host itself: 127.0.0.1 for its own packets, else the interface's address."""
    skb = scene.skb
    own = "::1" if skb.family == 6 else "127.0.0.1"
    if skb.iif:
        own = _interface_own(scene.snapshot, skb.iif, skb.family) or own
    where = _target(None, port, scene, own, skb.flow.dport)
    return _translate(where, scene, done) if where else Unmatched()


def _interface_own(snapshot: Snapshot, interface: str, family: int) -> str:
    if family == 4:
        return interface_address(snapshot, interface)
    usable = (one.address for one in snapshot.on(interface, 6) if one.scope == "global")
    return next(usable, "")


def _translate(where: tuple[str, int], scene: Scene, done: Done) -> Effect:
    skb = scene.skb
    if skb.tracked is None or skb.tracked.connection.dnat_done:
        return ACCEPT
    skb.tracked.connection.set_destination(*where)
    skb.tracked.connection.dnat_done = True
    skb.set_destination(*where)
    done.action = "dnat"
    return ACCEPT


def _snat(
    addr: Expr | None, port: Expr | None, flags: tuple[str, ...], scene: Scene, done: Done
) -> Effect:
    skb = scene.skb
    where = _target(addr, port, scene, skb.flow.src, skb.flow.sport)
    return _translate_source(where, flags, scene, done) if where else Unmatched()


def _masquerade(port: Expr | None, flags: tuple[str, ...], scene: Scene, done: Done) -> Effect:
    skb = scene.skb
    own = masquerade_address(scene.snapshot, skb.oif, skb.hop, skb.flow.dst)
    where = _target(None, port, scene, own or skb.flow.src, skb.flow.sport)
    return _translate_source(where, flags, scene, done) if where else Unmatched()


def _translate_source(
    where: tuple[str, int] | None, flags: tuple[str, ...], scene: Scene, done: Done
) -> Effect:
    skb = scene.skb
    if where is None or skb.tracked is None or skb.tracked.connection.snat_done:
        return ACCEPT
    source, port = where
    if _RANDOM & set(flags):
        port = 0  # the kernel will choose one
    skb.tracked.connection.set_source(source, port)
    skb.tracked.connection.snat_done = True
    skb.set_source(source, port)
    done.action = "snat"
    return ACCEPT


def _target(
    addr: Expr | None, port: Expr | None, scene: Scene, old: str, old_port: int
) -> tuple[str, int] | None:
    """The new address and port; None where a map has no entry for the packet."""
    where: str | int = old
    number: str | int = old_port
    if addr is not None:
        value = _from_range(addr, scene, old)
        if value is ABSENT:
            return None
        if isinstance(value, tuple):
            where, number = value[0], value[1] if len(value) > 1 else old_port
        elif isinstance(value, str):
            where = value
        else:
            scene.choices.certain = False
            scene.remark("the address that NAT gives could not be computed")
    if port is not None:
        value = _from_range(port, scene, old_port)
        if isinstance(value, int):
            number = value
        else:
            scene.choices.certain = False
    return str(where), int(number)


def _from_range(expr: Expr, scene: Scene, old: str | int) -> object:
    """Of a range, the old value if it is inside, else any: few are spread out, many are guessed."""
    if not isinstance(expr, Range):
        return scene.value(expr)
    low, high = expr.low, expr.high
    if isinstance(low, int) and isinstance(high, int):
        if isinstance(old, int) and low <= old <= high:
            return old
        scene.choices.certain = scene.choices.certain and low == high
        return low
    first, last = address(str(low)), address(str(high))
    if isinstance(old, str) and first <= address(old) <= last:  # type: ignore[operator]
        return old
    span = int(last) - int(first) + 1
    if span > _FEW:
        scene.choices.certain = False
        return str(first)
    return str(first + scene.choices.pick([1 / span] * span))


_FEW = 64


def _assign(statement: Assign, scene: Scene, done: Done) -> Effect:
    skb, key = scene.skb, statement.field.key
    value = scene.value(statement.value)
    if value is ABSENT:
        return None if statement.tolerant else Unmatched()
    if key not in ("meta mark", "ct mark"):
        return None  # nothing that decides the packet's way (nftrace, priority, dscp, ttl)
    known = isinstance(value, int)
    if key == "meta mark":
        done.action = "mark"
        if isinstance(value, int):
            skb.set_mark(value)
        (skb.unknown.discard if known else skb.unknown.add)(key)
    elif skb.tracked is not None:
        skb.tracked.connection.mark = value if isinstance(value, int) else None
    return None


def _tproxy(statement: Tproxy, scene: Scene) -> Effect:
    skb = scene.skb
    where = _target(statement.addr, statement.port, scene, skb.flow.dst, skb.flow.dport)
    if where is None:
        return Unmatched()
    skb.socket = where
    if statement.mark is not None and isinstance(mark := scene.value(statement.mark), int):
        skb.set_mark(mark)
    return ACCEPT if statement.accepts else None

"""The walk's word in the kernel's form, and whether both agree.

In: a Prediction and the rules. Out: a Way for each branch, in the form of what the witness saw; and
of a set of ways and one observation: agreed, not judged (the walk itself was not certain), or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from differential.observation import Exit, Observation, Seen
from differential.packets import Sent
from differential.plan import ENDS, OPEN_PORTS, ROUTER, place_of
from differential.witness import OWN_TABLES

from kptrace.model import Branch, Flow, NoteKind, SimulatedStep, Value
from kptrace.rules.model.expressions import Reject
from kptrace.rules.model.ruleset import Ruleset, Table
from kptrace.simulate.predict import predict
from kptrace.simulate.topology import Topology

_ROUTER = place_of(ROUTER)
_PORTS = {end.port: end.name for end in ENDS.values()}

_WAYS = 512  # of a packet; what is beyond that is not judged

# what REJECT sends, as ICMP type and code (include/net/netfilter/nf_reject.h, nft_reject.c)
_V4 = {
    "net-unreachable": 0,
    "host-unreachable": 1,
    "prot-unreachable": 2,
    "port-unreachable": 3,
    "net-prohibited": 9,
    "host-prohibited": 10,
    "admin-prohibited": 13,
}
_V6 = {
    "no-route": 0,
    "admin-prohibited": 1,
    "addr-unreachable": 3,
    "port-unreachable": 4,
    "policy-fail": 5,
    "reject-route": 6,
}
_X4 = {"no-route": 0, "port-unreachable": 3, "host-unreachable": 1, "admin-prohibited": 13}
_X6 = {"no-route": 0, "port-unreachable": 4, "host-unreachable": 3, "admin-prohibited": 1}


class Way(Value):
    """refusal: what the sender is told, empty: nothing; ``?``: something, or nothing, as the rules
    of OUTPUT may end it.
    """

    weight: float
    certain: bool
    there: Seen
    refusal: str = ""
    back: Seen | None = None
    words: str = ""


def ways(sent: Sent, world: Topology) -> list[Way]:
    """Every way that the walk sees for the packet."""
    source = place_of(sent.start)
    ruleset = world.snapshots[_ROUTER].ruleset
    prediction = predict(sent.packet(), source, world, limit=_WAYS)
    return [_way(branch, ruleset) for branch in prediction.branches]


def _way(branch: Branch, ruleset: Ruleset) -> Way:
    steps = list(branch.steps)
    turn = next((n for n, step in enumerate(steps) if step.action == "reply"), len(steps))
    there, back = steps[:turn], steps[turn:]
    stayed = [s.packet.flow for s in there if s.action == "delivered" and s.netns == _ROUTER]
    return Way(
        weight=branch.weight,
        certain=branch.deterministic,
        there=_seen(there, stayed[-1] if stayed else None),
        refusal="?" if branch.notes_of(NoteKind.REJECT_NOT_SENT) else _refusal(there, ruleset),
        back=_seen(back) if back else None,
        words=f"{branch.outcome}: {branch.full_description}",
    )


def _seen(steps: Sequence[SimulatedStep], stayed: Flow | None = None) -> Seen:
    here = [step for step in steps if step.netns == _ROUTER]
    legacy, nft = [], []
    marks: list[int | None] = []
    for step in here:
        ref = step.rule
        if ref is None or ref.number == 0 or ref.table in OWN_TABLES:
            continue
        told = f"{ref.family} {ref.table} {ref.chain} {ref.number}"
        if ref.backend == "legacy":
            legacy.append(told)
        else:
            nft.append(told)
            marks.append(step.packet.mark if step.deterministic else None)
    out = [s for s in here if s.action == "seen" and s.direction == "out" and s.interface in _PORTS]
    left = None
    if out:
        packet = out[-1].packet
        left = Exit(end=_PORTS[out[-1].interface], flow=packet.flow, ttl=packet.ttl)
    return Seen(legacy=tuple(legacy), nft=tuple(nft), marks=tuple(marks), left=left, stayed=stayed)


def _refusal(steps: Sequence[SimulatedStep], ruleset: Ruleset) -> str:
    refused = [s for s in steps if s.action == "rejected" and s.netns == _ROUTER]
    if not refused:
        return ""
    ref = refused[-1].rule
    if ref is None or ref.number == 0 or ref.backend not in ("legacy", "nft"):
        return "?"
    chain = ruleset.chain(Table(backend=ref.backend, family=ref.family, name=ref.table), ref.chain)
    body = chain.rules[ref.number - 1].body if chain else ()
    replies = [part.reply for part in body if isinstance(part, Reject)]
    return _sent_back(replies[0], refused[-1].packet.flow.ipv6) if replies else "?"


def _sent_back(reply: str, ipv6: bool) -> str:
    kind, _, code = reply.partition(" ")
    if kind == "tcp":
        return "tcp reset"
    codes = (_X6 if ipv6 else _X4) if kind == "icmpx" else _V6 if ipv6 else _V4
    return f"icmpv6 1/{codes[code]}" if ipv6 else f"icmp 3/{codes[code]}"


# --- agreement --------------------------------------------------------------------------------

Judgement = Literal["agreed", "not judged", "disagreed"]


def judge(expected: Sequence[Way], seen: Observation) -> Judgement:
    fitting = [way for way in expected if not differences(way, seen)]
    if any(way.certain for way in fitting):
        return "agreed"
    if fitting or any(not way.certain for way in expected):
        return "not judged"
    return "disagreed"


def differences(way: Way, seen: Observation) -> list[str]:
    """In words; empty: they agree."""
    found = [f"there: {words}" for words in _differ(way.there, seen.there)]
    found += _refused(way, seen.there)
    if way.there.stayed and seen.there.stayed and not _fits(way.there.stayed, seen.there.stayed):
        found.append(f"stays as {way.there.stayed} against {seen.there.stayed}")
    unseen = way.there.left is None and not way.refusal and not way.there.stayed
    if unseen and seen.there.stayed:
        found.append(f"does not stay, against {seen.there.stayed}")
    if seen.answerable and not _closed(way.there.stayed):
        back = _differ(way.back or Seen(), seen.back or Seen())
        found += [f"back: {words}" for words in back]
    return found


def _closed(stayed: Flow | None) -> bool:
    """A port at which the router has no socket: its stack refuses, which is no rule's doing."""
    return stayed is not None and "icmp" not in stayed.protocol and stayed.dport not in OPEN_PORTS


def _differ(one: Seen, other: Seen) -> Iterable[str]:
    for name in ("legacy", "nft"):
        mine, theirs = getattr(one, name), getattr(other, name)
        if mine != theirs:
            at = next((n for n, p in enumerate(zip(mine, theirs, strict=False)) if p[0] != p[1]),
                      min(len(mine), len(theirs)))  # fmt: skip
            yield f"{name} rule {at + 1}: {mine[at : at + 2]} against {theirs[at : at + 2]}"
    if one.nft == other.nft and not _same_marks(one.marks, other.marks):
        yield f"marks {one.marks} against {other.marks}"
    left, exited = one.left, other.left
    if not _same_exit(left, exited):
        yield f"left {left} against {exited}"


def _same_marks(one: Sequence[int | None], other: Sequence[int | None]) -> bool:
    """None: the walk says that it does not know."""
    return all(a in (None, b) for a, b in zip(one, other, strict=True))


def _same_exit(one: Exit | None, other: Exit | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.end, one.ttl) == (other.end, other.ttl) and _fits(one.flow, other.flow)


def _refused(way: Way, seen: Seen) -> Iterable[str]:
    told = [one for one in seen.refusals if one]
    if way.refusal and told and way.refusal != "?" and way.refusal not in told:
        yield f"refused with {way.refusal} against {told}"
    if not way.refusal and told and way.there.left:
        yield f"not refused, against {told}"


def _fits(expected: Flow, seen: Flow) -> bool:
    """A port of 0 is one that the kernel was free to choose."""
    plain = (expected.protocol, expected.src, expected.dst) == (seen.protocol, seen.src, seen.dst)
    ports = ((expected.sport, seen.sport), (expected.dport, seen.dport))
    return plain and all(one in (0, other) for one, other in ports)
